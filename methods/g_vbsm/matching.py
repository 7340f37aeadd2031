"""Generalised statistical matching (GSM): one network's statistics against those of the real data.

Sum of L2 norms, not squared, of the differences in mean and variance of every batch norm's input, and of the channels
and the patches of every convolution's input. What is compared is a running mixture of the batches' statistics; the
gradient is the one batch's ("straight through"). From shaoshitong/G_VBSM_Dataset_Condensation, ``recover/utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.kit.recovery.bn_statistics import BatchNormInputs
from methods.g_vbsm.config import Config
from methods.g_vbsm.moments import ConvInputs, ConvMoments

Targets = Mapping[str, ConvMoments]  # of the real data by the name of the convolution, without a dimension for groups


class Layout:
    """The places of a network's statistics in the one vector that holds them all.

    Layers come in module order, the order of the authors' hooks: of a convolution four pieces as in
    :class:`ConvMoments`, of a batch norm its mean and variance. ``targets`` (L,) is the vector to be matched,
    ``lengths`` the sizes of its S pieces, ``weights`` (S,) their weights, ``first_multiplier`` for those of the first
    layer and else 1, and ``conv`` (S,) says which convolution a piece belongs to, -1 for none.
    """

    def __init__(self, net: nn.Module, targets: Targets, first_multiplier: float):
        pieces: list[Tensor] = []
        conv: list[int] = []
        self.order: list[tuple[str, int]] = []  # ("conv" or "norm", its place among its kind)
        seen = {"conv": 0, "norm": 0}
        first = 0
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d):
                kind, found = "conv", list(targets[name])
            elif isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                kind, found = "norm", [module.running_mean, module.running_var]
            else:
                continue
            conv += [seen["conv"] if kind == "conv" else -1] * len(found)
            pieces += found
            self.order.append((kind, seen[kind]))
            seen[kind] += 1
            first = first or len(pieces)
        self.targets = torch.cat(pieces)
        self.lengths = torch.tensor([len(piece) for piece in pieces])
        self.weights = torch.ones(len(pieces), device=self.targets.device)
        self.weights[:first] = first_multiplier
        self.conv = np.array(conv)
        self.convolutions = seen["conv"]

    def active(self, skipped: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which pieces (..., S) count when the convolutions ``skipped`` (..., convolutions) do not."""
        of_conv = self.conv >= 0
        active = np.ones((*skipped.shape[:-1], len(self.conv)), dtype=np.bool_)
        active[..., of_conv] = ~skipped[..., self.conv[of_conv]]
        return active


class Matcher:
    """One network of the pool and the running statistics of ``groups`` batches of images that it has seen.

    Open it around forwards; then :meth:`loss` is of the last one.
    """

    def __init__(self, net: nn.Module, layout: Layout, groups: int, config: Config):
        self.net, self.layout, self.alpha, self.init = net, layout, config.alpha, config.ema_init
        self.convs, self.norms = ConvInputs(net, groups, config.patch), BatchNormInputs(net, groups)
        device = layout.targets.device
        self._lengths = layout.lengths.to(device).expand(groups, -1).contiguous()
        self._piece = torch.arange(len(layout.lengths)).repeat_interleave(layout.lengths).to(device)
        self._absent = torch.zeros(groups, int(layout.lengths.max()), device=device)
        self.mixture = torch.zeros(groups, len(layout.targets), device=device)
        self.started = torch.zeros(groups, len(layout.lengths), dtype=torch.bool, device=device)
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        self._opened.enter_context(self.convs)
        self._opened.enter_context(self.norms)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def loss(self, active: Tensor) -> Tensor:
        """Return the weighted sum of norms (G,) of the last forward, after its statistics were mixed in.

        Args:
            active: bool (G, S), which pieces of the layout count; the mixture of the others stays as it is.
        """
        found = self._vector()
        with torch.no_grad():
            rate = active * (1 - self.alpha)
            if self.init == "first":
                rate = torch.where(self.started, rate, active.float())
                self.started |= active
            self.mixture.addcmul_(rate[:, self._piece], found - self.mixture)
        value = self.mixture + (found - found.detach())
        squares = torch.segment_reduce(
            (value - self.layout.targets).square(), "sum", lengths=self._lengths, axis=1, unsafe=True
        )
        # the bound stops the infinite slope of the root at zero, where the norm's own gradient is zero too
        return (squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt() * active) @ self.layout.weights

    def _vector(self) -> Tensor:
        """Return the statistics of the last forward (G, L), zeros where a convolution was skipped."""
        convs, norms = self.convs.take(), self.norms.take()
        lengths = iter(self.layout.lengths.tolist())
        pieces: list[Tensor] = []
        for kind, place in self.layout.order:
            if kind == "norm":
                pieces += norms[place]
                next(lengths), next(lengths)
            else:
                sizes = [next(lengths) for _ in ConvMoments._fields]
                pieces += convs.get(place) or [self._absent[:, :size] for size in sizes]
        return torch.cat(pieces, 1)
