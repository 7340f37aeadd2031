"""The statistics of a convolution's input that G_VBSM matches: of its channels and of its patches.

The authors' hook makes a permuted copy of every activation for the channels and a second one for the patches
(shaoshitong/G_VBSM_Dataset_Condensation, ``recover/utils.py``, ConvFeatureHook). Here an activation is read once:
mean and variance over the batch at each place (C, H, W) are all that both need, by the law of total variance, and
they are a batch size smaller. The gradient is affine in the activation and joins the one that flows by.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache, partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvMoments(NamedTuple):
    """The moments of each of G groups; variances are biased.

    ``mean`` and ``var`` (G, C) of the channels; ``patch_mean`` and ``patch_var`` (G, K) of the places of the grid of
    patches, row by row, over images, channels and the pixels of the patch.
    """

    mean: Tensor
    var: Tensor
    patch_mean: Tensor
    patch_var: Tensor


def conv_moments(x: Tensor, groups: int, patch: int) -> tuple[Tensor, ConvMoments]:
    """Compute the moments of activations (G * B, C, H, W) in ``groups`` equal parts; return the activations too.

    Sides that are no multiple of ``patch`` are resized to the next one, bilinearly, before they are cut into patches
    of ``patch`` pixels a side. Go on with the activations returned: their gradient holds that of the moments.
    """
    height, width = x.shape[2:]
    grid = 1 if height == width == 1 else patch  # enlarged, it is the same pixel all over
    if height % grid == 0 and width % grid == 0:
        x, *found = _Tap.apply(x, groups, grid)
        return x, ConvMoments(*found)
    x, mean, var, _, _ = _Tap.apply(x, groups, 1)
    if height <= patch and width <= patch:
        x, patch_mean, patch_var = _OnePatch.apply(x, groups, patch)
        return x, ConvMoments(mean, var, patch_mean, patch_var)
    resized = F.interpolate(x, [-(-side // patch) * patch for side in (height, width)], mode="bilinear")
    _, _, _, patch_mean, patch_var = _Tap.apply(resized, groups, patch)
    return x, ConvMoments(mean, var, patch_mean, patch_var)


class _Tap(torch.autograd.Function):
    """x, unchanged, and its moments; sides are multiples of ``patch``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, patch: int) -> tuple[Tensor, ...]:
        if not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous()  # nothing to do, unless it is a part of a tensor
        means, variances = _over_batch(x, groups)
        mean = means.mean((2, 3), keepdim=True)
        var = (variances + (means - mean).square_()).mean((2, 3))
        # channels differ more among one another than rounding can hide: here the plain formula is exact enough
        patch_mean = _over_patches(means.mean(1), patch)
        patch_var = _over_patches((variances + means.square()).mean(1), patch) - patch_mean.square()
        ctx.save_for_backward(x, mean, patch_mean)
        ctx.patch = patch
        return x, mean.flatten(1), var, patch_mean, patch_var

    @staticmethod
    def backward(ctx: Any, *into: Tensor) -> tuple[Tensor, None, None]:
        x, mean, patch_mean = ctx.saved_tensors
        into_x, into_mean, into_var, into_patch_mean, into_patch_var = into
        groups, batch = len(mean), len(x) // len(mean)
        _, channels, height, width = x.shape
        of_channel = 1 / (batch * height * width)
        of_patch = 1 / (batch * channels * ctx.patch**2)
        # of each kind: the gradient is constant + slope * x; (G, 1, 1, C) and (G, rows, columns)
        slope_c = into_var * (2 * of_channel)
        constant_c = (into_mean * of_channel).addcmul_(slope_c, mean.flatten(1), value=-1)
        slope_p = into_patch_var * (2 * of_patch)
        constant_p = (into_patch_mean * of_patch).addcmul_(slope_p, patch_mean, value=-1)
        small = torch.stack([slope_p, constant_p]).view(2, groups, height // ctx.patch, 1, width // ctx.patch, 1)
        small = small.expand(-1, -1, -1, ctx.patch, -1, ctx.patch).reshape(2, groups, height, width, 1)
        # laid out as channels_last, like the activations
        slope, constant = (small + torch.stack([slope_c, constant_c])[:, :, None, None]).permute(0, 1, 4, 2, 3)
        parts = x.unflatten(0, (groups, batch))
        gradient = torch.addcmul(into_x.unflatten(0, (groups, batch)), parts, slope[:, None])
        whole: Tensor = gradient.add_(constant[:, None]).flatten(0, 1)
        return whole, None, None


class _OnePatch(torch.autograd.Function):
    """x, unchanged, and the moments (G, 1) of x resized to one patch, which is larger.

    Resized is R x Rᵀ, so that the sum of its squares is that of x * (A x Aᵀ) with A = RᵀR: all is done at the size of
    x, be it 16 times smaller.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, patch: int) -> tuple[Tensor, Tensor, Tensor]:
        _, channels, height, width = x.shape
        sums_h, squares_h = _resizing(height, patch, x.device, x.dtype)
        sums_w, squares_w = _resizing(width, patch, x.device, x.dtype)
        rows = x.permute(0, 2, 3, 1)  # contiguous, if x is channels_last
        turned = torch.matmul(squares_h, torch.matmul(squares_w, rows).flatten(2)).view(rows.shape)
        count = len(x) // groups * channels * patch**2
        weights = sums_h[:, None] * sums_w
        mean = (rows.sum(3).view(groups, -1, height, width).sum(1) * weights).sum((1, 2)) / count
        squares = (rows * turned).reshape(groups, -1).sum(1) / count
        ctx.save_for_backward(turned, weights, mean)
        ctx.count = count
        return x, mean[:, None], (squares - mean.square())[:, None]

    @staticmethod
    def backward(ctx: Any, *into: Tensor) -> tuple[Tensor, None, None]:
        turned, weights, mean = ctx.saved_tensors
        into_x, into_mean, into_var = into
        slope = into_var * (2 / ctx.count)
        constant = (into_mean / ctx.count).addcmul_(slope, mean[:, None], value=-1)
        added = torch.addcmul(
            constant.view(-1, 1, 1, 1, 1) * weights[:, :, None],
            slope.view(-1, 1, 1, 1, 1),
            turned.unflatten(0, (len(mean), -1)),
        )
        return into_x + added.flatten(0, 1).permute(0, 3, 1, 2), None, None


@cache
def _resizing(side: int, patch: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the column sums of the matrix R (patch, side) that resizes a line of ``side`` pixels, and RᵀR."""
    lines = F.interpolate(torch.eye(side, dtype=torch.float64)[:, None], patch, mode="linear")[:, 0]  # Rᵀ
    return lines.sum(1).to(device, dtype), (lines @ lines.T).to(device, dtype)


def _over_batch(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Compute the mean and biased variance (G, C, H, W) over the images of each group, at each place."""
    _, channels, height, width = x.shape
    last = x.is_contiguous(memory_format=torch.channels_last)
    rows = (x.permute(0, 2, 3, 1) if last else x).reshape(groups, len(x) // groups, -1)
    if x.device.type == "cpu":
        # the kernel of batch norms in training, with places for channels: 20 times as fast as var_mean on a CPU
        found = [torch.batch_norm_update_stats(group.t()[None, :, :, None], None, None, 0.0) for group in rows]
        means, variances = (torch.stack(list(parts)) for parts in zip(*found, strict=True))
    else:
        variances, means = torch.var_mean(rows, 1, correction=0)
    if last:
        shape = groups, height, width, channels
        return means.view(shape).permute(0, 3, 1, 2), variances.view(shape).permute(0, 3, 1, 2)
    return means.view(groups, channels, height, width), variances.view(groups, channels, height, width)


def _over_patches(maps: Tensor, patch: int) -> Tensor:
    """Compute the means (G, K) of the patches of maps (G, H, W)."""
    return maps.unflatten(2, (-1, patch)).unflatten(1, (-1, patch)).mean((2, 4)).flatten(1)  # type: ignore[no-any-return]


class ConvInputs(ExitStack):
    """Records the moments of the inputs of a network's convolutions, while it is open.

    ``names`` and ``modules`` are the network's Conv2d in module order; those in ``skipped`` (a set of their places)
    record nothing in the next forward.
    """

    def __init__(self, net: nn.Module, groups: int, patch: int):
        super().__init__()
        convs = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
        self.names, self.modules = list(convs), list(convs.values())
        self.skipped: frozenset[int] = frozenset()
        self._groups, self._patch = groups, patch
        self._found: dict[int, ConvMoments] = {}

    def __enter__(self) -> Self:
        for place, module in enumerate(self.modules):
            self.enter_context(module.register_forward_pre_hook(partial(self._record, place)))
        self.callback(self._found.clear)
        return self

    def take(self) -> dict[int, ConvMoments]:
        """Return and forget the moments of the last forward by the places of the convolutions."""
        found = self._found.copy()
        self._found.clear()
        return found

    def _record(self, place: int, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if place in self.skipped:
            return None
        x, self._found[place] = conv_moments(inputs[0], self._groups, self._patch)
        return (x,)
