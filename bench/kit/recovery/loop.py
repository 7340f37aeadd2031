"""The descent: images of several groups are optimised at once and clamped to what pixels can show.

Adam and the clamp work number by number and no group's loss depends on another's images, so the result is that of
separate runs. Nothing in the loop waits for the device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bench.kit.checkpoint import Checkpoint
from bench.kit.optim import lr_factor, set_lr
from bench.kit.recovery.augment import GroupViews

_BETAS, _EPS = (0.5, 0.9), 1e-8  # SRe2L, recover/data_synthesis.py; G_VBSM too


class RecoveryLoss(Protocol):
    """What is minimised: called with the views (G, B, 3, S, S) and the iteration, it returns a loss a group (G,)."""

    def __call__(self, views: Tensor, iteration: int, /) -> Tensor: ...


@runtime_checkable
class Remembers(Protocol):
    """A loss with a memory, such as running averages, which a checkpoint must hold too."""

    def state(self) -> dict[str, Tensor]:
        """What the loss goes on from, in the next iteration."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave; the tensors come on the CPU."""


def noise(seeds: Sequence[int], batch: int, size: int, device: torch.device) -> Tensor:
    """Where recovery starts: N(0, 1) in normalised space (G, B, 3, S, S), a stream a group, the same everywhere."""
    shape = batch, 3, size, size
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(device)


def recover(
    start: Tensor,
    loss: RecoveryLoss,
    views: GroupViews,
    *,
    lr: float,
    mean: Sequence[float],
    std: Sequence[float],
    checkpoint: Checkpoint | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Optimise images for all of ``views.iterations`` and return them as float (G, B, 3, S, S) in [0, 1].

    Adam with betas (.5, .9) and a learning rate that falls along a cosine from ``lr`` to 0; after each step every
    channel is clamped to what pixels in [0, 1] can be. The last images are returned: the official "best" ones are
    never updated (SRe2L, ``recover/data_synthesis.py``).

    Args:
        start: first images (G, B, 3, S, S), in normalised space.
        mean, std: of normalised space, per channel.
        checkpoint: where unfinished work is kept; found again, it is gone on with to the same bits.
        facts: plain JSON that says whose work it is; a checkpoint with other facts is ignored.
        progress: told the number of iterations done, after each.
    """
    low, high = (
        torch.tensor([(edge - m) / s for m, s in zip(mean, std, strict=True)], device=start.device).view(3, 1, 1)
        for edge in (0, 1)
    )
    images = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], lr, betas=_BETAS, eps=_EPS, fused=True)
    work: dict[str, Any] = json.loads(
        json.dumps(dict(facts or {}))
    )  # as they come back from the disk: lists for tuples
    first = _resume(checkpoint, work, images, optimizer, loss)
    for iteration in range(first, views.iterations):
        set_lr(optimizer, lr * lr_factor("cosine", iteration, views.iterations))
        optimizer.zero_grad(set_to_none=True)
        loss(views(images, iteration), iteration).sum().backward()
        optimizer.step()
        with torch.no_grad():
            images.clamp_(low, high)
        progress(iteration + 1)
        if checkpoint is not None and checkpoint.due():
            _save(checkpoint, work, iteration + 1, images, optimizer, loss)
    scale, shift = (torch.tensor(list(each), device=start.device).view(3, 1, 1) for each in (std, mean))
    return images.detach().mul(scale).add_(shift).clamp_(0, 1)


def _save(
    checkpoint: Checkpoint,
    facts: dict[str, Any],
    done: int,
    images: Tensor,
    optimizer: torch.optim.Adam,
    loss: RecoveryLoss,
) -> None:
    moments = {f"adam.{name}": tensor for name, tensor in optimizer.state[images].items()}
    memory = loss.state() if isinstance(loss, Remembers) else {}
    kept = {"images": images, **moments, **{f"loss.{name}": tensor for name, tensor in memory.items()}}
    checkpoint.save(kept, done=done, facts=facts)


def _resume(
    checkpoint: Checkpoint | None,
    facts: dict[str, Any],
    images: Tensor,
    optimizer: torch.optim.Adam,
    loss: RecoveryLoss,
) -> int:
    """Put back what :func:`_save` kept, if it is of the same work; iterations done."""
    found = checkpoint.load() if checkpoint is not None else None
    if found is None or found[1]["facts"] != facts:
        return 0
    tensors, kept = found
    with torch.no_grad():
        images.copy_(tensors["images"])
    state = {name.removeprefix("adam."): tensor for name, tensor in tensors.items() if name.startswith("adam.")}
    optimizer.load_state_dict({"state": {0: state}, "param_groups": optimizer.state_dict()["param_groups"]})
    if isinstance(loss, Remembers):
        loss.restore({name.removeprefix("loss."): t for name, t in tensors.items() if name.startswith("loss.")})
    return int(kept["done"])
