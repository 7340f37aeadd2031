"""Statistics of activations, group by group, and their distances to targets.

The field's code reads every activation twice more in a forward hook, each time through a permuted copy (SRe2L,
``recover/utils.py``). Here they are read once in their order in memory, as rows of channels, and
the gradient of both moments, which is affine in the activation, is added to the one that flows by in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn

from bench.errors import UserError

Moments = tuple[Tensor, Tensor]

_CHUNK = 2**18  # numbers reduced at a time: 1 MiB stays in cache
_CHUNK_ROWS = 2**12  # and summed at a time in float32, which keeps them exact to about 1e-6
_LOOP = 1024  # numbers that a processor's vector loop should see at a time


def group_moments(x: Tensor, groups: int) -> Moments:
    """Compute the mean and biased variance (G, C) of each channel in each of ``groups`` equal parts of a batch.

    Args:
        x: activations (G * B, C, H, W) or (G * B, C), any strides; channels_last is read without a copy.
        groups: G; group g holds the images g * B and following.

    Returns:
        (mean, variance), in float32 at least, differentiable in ``x``.
    """
    mean, variance, _ = _Moments.apply(x, groups, None, None)
    return mean, variance


class _Moments(torch.autograd.Function):
    """The moments of x and, if a norm is given, its eval-mode output, which share one backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, groups: int, norm: nn.BatchNorm2d | None, scale: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        mean, variance = _row_moments(_rows(x, groups))
        ctx.save_for_backward(x, mean, scale)
        return mean, variance, None if norm is None else nn.BatchNorm2d.forward(norm, x)

    @staticmethod
    def backward(ctx: Any, *into: Any) -> tuple[Tensor, None, None, None]:
        x, mean, scale = ctx.saved_tensors
        return _gradient(x, mean, scale, *into), None, None, None


def _rows(x: Tensor, groups: int) -> Tensor:
    """View (G * B, C, H, W) or (G * B, C) as (G, rows, C); a view where channels are next to each other."""
    if x.ndim == 4:
        x = x.permute(0, 2, 3, 1)
    return x.reshape(groups, -1, x.shape[-1])


def _gradient(
    x: Tensor,
    mean: Tensor,
    scale: Tensor | None,
    into_mean: Tensor,
    into_variance: Tensor,
    into_output: Tensor | None,
) -> Tensor:
    """Compute the gradient of x through its moments, ``constant + slope * x``, and through an output x * ``scale``."""
    rows = _rows(x, len(mean)).to(mean.dtype)
    groups, count, channels = rows.shape
    slope = into_variance * (2 / count)
    constant = (into_mean / count).addcmul_(slope, mean, value=-1)
    # a processor's loops run over the last dimension and want it long: lay rows side by side
    beside = math.gcd(count, max(1, _LOOP // channels)) if x.device.type == "cpu" else 1
    shape = groups, count // beside, beside * channels
    gradient = torch.addcmul(_repeated(constant, beside), rows.view(shape), _repeated(slope, beside))
    if into_output is not None and scale is not None:
        gradient.addcmul_(_rows(into_output, groups).reshape(shape), _repeated(scale[None], beside))
    gradient = gradient.to(x.dtype)
    if x.ndim == 2:
        return gradient.view(x.shape)
    batch, _, height, width = x.shape
    return gradient.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _repeated(vectors: Tensor, times: int) -> Tensor:
    """Repeat (G, C) to (G, 1, times * C)."""
    return vectors[:, None].expand(-1, times, -1).reshape(len(vectors), 1, -1)


def _row_moments(rows: Tensor) -> Moments:
    """Compute the mean and biased variance (G, C) over the rows of (G, rows, C)."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if rows.device.type != "cpu":
        variance, mean = torch.var_mean(rows, 1, correction=0)
        return mean, variance
    moments = [_cpu_moments(group) for group in rows]
    if len(moments) == 1:
        return moments[0][0][None], moments[0][1][None]
    return torch.stack([mean for mean, _ in moments]), torch.stack([variance for _, variance in moments])


def _cpu_moments(rows: Tensor) -> Moments:
    """Compute the same (C,) of (rows, C) by the kernel of batch norms in training.

    On a CPU it is 30 times as fast as ``var_mean`` and as fast as one sum. Its plain sums want short chunks, whose
    moments are then put together.
    """
    chunks = rows.split(max(1, min(_CHUNK_ROWS, _CHUNK // rows.shape[1])))
    # as channels_last images one pixel wide, the form in which the kernel is vectorised over channels
    found = [torch.batch_norm_update_stats(chunk.t()[None, :, :, None], None, None, 0.0) for chunk in chunks]
    if len(found) == 1:
        return found[0]
    means, variances = (torch.stack(list(parts)) for parts in zip(*found, strict=True))
    shares = torch.tensor([len(chunk) / len(rows) for chunk in chunks], dtype=rows.dtype)
    mean = shares @ means
    return mean, shares @ (means - mean).square_().add_(variances)


class BatchNormInputs(ExitStack):
    """Records the moments of the input of every batch norm of a network, while it is open.

        with BatchNormInputs(net, groups=3) as inputs:
            logits = net(views)
            moments = inputs.take()

    ``modules`` are the network's BatchNorm2d in module order. The network must be frozen and in eval mode.

    Raises:
        UserError: a batch norm keeps no running statistics, so there is nothing to match.
    """

    def __init__(self, net: nn.Module, groups: int):
        super().__init__()
        self.modules = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        self.groups = groups
        self._found: dict[nn.Module, Moments] = {}
        for module in self.modules:
            if module.running_mean is None or module.running_var is None:
                raise UserError(
                    "a batch norm of the teacher keeps no running statistics; expected one trained with "
                    "track_running_stats=True; choose another teacher"
                )

    def __enter__(self) -> Self:
        for module in self.modules:
            # a subclass may do more than normalise (timm fuses activations into it)
            forward = self._fused(module) if type(module) is nn.BatchNorm2d else self._observed(module)
            module.forward = forward  # type: ignore[assignment, method-assign]
            self.callback(delattr, module, "forward")  # the class's own comes back
        self.callback(self._found.clear)
        return self

    def take(self) -> list[Moments]:
        """Return and forget (mean, variance), each (G, C), of every module's input in the last forward."""
        moments = [self._found[module] for module in self.modules]
        self._found.clear()
        return moments

    def _fused(self, module: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
        assert module.running_var is not None
        scale = (module.running_var + module.eps).rsqrt()
        if module.weight is not None:
            scale = scale * module.weight.detach()

        def forward(x: Tensor) -> Tensor:
            mean, variance, output = _Moments.apply(x, self.groups, module, scale)
            self._found[module] = mean, variance
            return output  # type: ignore[no-any-return]

        return forward

    def _observed(self, module: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            self._found[module] = group_moments(x, self.groups)
            return type(module).forward(module, x)

        return forward


class Distances:
    """Weighted sum of L2 norms of differences to targets: the matching terms of SRe2L and G_VBSM.

    Norms are not squared, and layers are summed, not averaged (SRe2L, ``recover/utils.py``). All vectors are
    handled as one, which costs a handful of kernels instead of a handful for each layer.

    Args:
        targets: vectors (C_l,), what each layer should show.
        weights: w_l, one per vector.
    """

    def __init__(self, targets: Sequence[Tensor], weights: Sequence[float]):
        self.targets = torch.cat(list(targets))
        self.weights = torch.tensor(list(weights), dtype=self.targets.dtype, device=self.targets.device)
        layer = torch.arange(len(targets)).repeat_interleave(torch.tensor([len(target) for target in targets]))
        self._of_layer = nn.functional.one_hot(layer, len(targets)).to(self.targets)

    def __call__(self, found: Sequence[Tensor]) -> Tensor:
        """Return Σ_l w_l ‖target_l − found_l‖₂ (G,) for found vectors (G, C_l), in the order of the targets."""
        squares = (torch.cat(list(found), 1) - self.targets).square() @ self._of_layer
        # the bound stops the infinite slope of the root at zero, where the norm's own gradient is zero too
        return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt() @ self.weights
