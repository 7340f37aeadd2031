"""Batch norms that see the whole batch, whose rows several processes share.

torch's SyncBatchNorm works on GPUs only and takes the place of the modules; this is one path for all devices, exact
for uneven and empty shares, and the modules stay, so that names, types and state are those of a single process.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import UserError
from bench.kit import distributed


def synchronise(model: nn.Module) -> None:
    """Let every batch norm in training mode normalise by the batch of all ranks; without a group, nothing.

    Raises:
        UserError: a module of the network is a batch norm and more.
    """
    if distributed.size() == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.training:
            if type(module).forward is not _BatchNorm.forward:
                raise UserError(
                    f"a {type(module).__name__} is more than a batch norm, so several processes can't share the "
                    "network's training; train it in one process"
                )
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        return _BatchNorm.forward(norm, x)
    weight = x.new_ones(x.shape[1]) if norm.weight is None else norm.weight
    bias = x.new_zeros(x.shape[1]) if norm.bias is None else norm.bias
    output, mean, variance, count = _Normalise.apply(x, weight, bias, norm.eps)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        newest = norm.momentum if norm.momentum is not None else float(1 / norm.num_batches_tracked)
        norm.running_mean.lerp_(mean, newest)
        norm.running_var.lerp_(variance * (count / (count - 1)), newest)
    return output  # type: ignore[no-any-return]


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias by the moments (C,) of all ranks' x (B, C, ...), B >= 0.

    It also returns mean, biased variance and the number of values per channel, which have no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        ranks = x.new_zeros(distributed.size(), 2 * channels + 1)
        if x.numel():
            moments = torch.batch_norm_update_stats(x, None, None, 0.0)
            torch.cat([*moments, x.new_full((1,), x.numel() // channels)], out=ranks[distributed.rank()])
        # a row a rank, not sums of squares, whose difference would lose the variance beside a large mean
        means, variances, counts = distributed.all_reduce(ranks).split([channels, channels, 1], 1)
        count = counts.sum()
        shares = counts / count
        mean = (shares * means).sum(0)
        variance = (shares * ((means - mean).square_() + variances)).sum(0)
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        output = F.batch_norm(x, mean, variance, weight, bias, eps=eps) if x.numel() else torch.empty_like(x)
        return output, mean, variance, count

    @staticmethod
    def backward(ctx: Any, into: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance, count = ctx.saved_tensors
        into_x, into_weight, into_bias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
        if x.numel():  # a processor's kernel divides by the number of images
            # of a norm with fixed moments: the gradient of x but for what flows through the moments, and both sums
            into_x, into_weight, into_bias = torch.ops.aten.native_batch_norm_backward(
                into, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        scaled, plain = distributed.all_reduce(torch.stack([into_weight, into_bias]))
        scale = (variance + ctx.eps).rsqrt()
        slope = -weight * scale.square() * scaled / count
        constant = -weight * scale * plain / count - slope * mean
        shape = (1, -1) + (1,) * (x.ndim - 2)
        into_x = torch.addcmul(into_x, x, slope.view(shape)).add_(constant.view(shape))
        return into_x, into_weight, into_bias, None  # of this rank's rows: gradients are added up later
