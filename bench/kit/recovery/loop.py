"""The descent: images of several groups are optimised at once and clamped to what pixels can show.

Adam and the clamp work number by number and no group's loss depends on another's images, so the result is that of
separate runs. Nothing in the loop waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from bench.api import Checkpoint, Progress
from bench.kit.checkpoint import restore_training, training_state
from bench.kit.optim import lr_factor, set_lr
from bench.kit.recovery.augment import GroupViews

_BETAS, _EPS = (0.5, 0.9), 1e-8  # SRe2L, recover/data_synthesis.py; G_VBSM too


class Memory(Protocol):
    """The state that a loss goes on from, such as running averages."""

    def state(self) -> dict[str, Tensor]:
        """Return what the next iteration goes on from."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` returned; the tensors come on the CPU."""


def noise(seeds: Sequence[int], batch: int, size: int, device: torch.device) -> Tensor:
    """Draw the start of a recovery, N(0, 1) in normalised space (G, B, 3, S, S): a stream per group, on the host."""
    drawn = [torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(device)


def recover(
    start: Tensor,
    loss: Callable[[Tensor, int], Tensor],
    views: GroupViews,
    *,
    lr: float,
    mean: Sequence[float],
    std: Sequence[float],
    memory: Memory | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress = lambda done, total, **_: None,
) -> Tensor:
    """Optimise images for all of ``views.iterations`` and return them as float (G, B, 3, S, S) in [0, 1].

    Adam with betas (.5, .9) and a learning rate that falls along a cosine from ``lr`` to 0; after each step every
    channel is clamped to what pixels in [0, 1] can be. The last images are returned: the official "best" ones are
    never updated (SRe2L, ``recover/data_synthesis.py``).

    Args:
        start: first images (G, B, 3, S, S), in the space that ``mean`` and ``std`` normalise to.
        loss: of the views (G, B, 3, S, S) in an iteration, per group (G,).
        memory: of the loss, where it has one.
    """
    low, high = (
        torch.tensor([(edge - m) / s for m, s in zip(mean, std, strict=True)], device=start.device).view(3, 1, 1)
        for edge in (0, 1)
    )
    images = nn.Parameter(start.clone())
    held = nn.ParameterList([images])
    optimizer = torch.optim.Adam([images], lr, betas=_BETAS, eps=_EPS, fused=True)
    first = 0
    if checkpoint is not None and (found := checkpoint.load()) is not None:
        restore_training(held, optimizer, found[0])
        if memory is not None:
            memory.restore({name.removeprefix("loss."): t for name, t in found[0].items() if name.startswith("loss.")})
        first = found[1]["iterations"]
    for iteration in range(first, views.iterations):
        set_lr(optimizer, lr * lr_factor("cosine", iteration, views.iterations))
        optimizer.zero_grad(set_to_none=True)
        loss(views(images, iteration), iteration).sum().backward()
        optimizer.step()
        with torch.no_grad():
            images.clamp_(low, high)
        progress(iteration + 1, views.iterations)
        if checkpoint is not None and checkpoint.due():
            of_loss = memory.state() if memory is not None else {}
            kept = training_state(held, optimizer) | {f"loss.{name}": tensor for name, tensor in of_loss.items()}
            checkpoint.save(kept, iterations=iteration + 1)
    scale, shift = (torch.tensor(list(each), device=start.device).view(3, 1, 1) for each in (std, mean))
    return images.detach().mul(scale).add_(shift).clamp_(0, 1)
