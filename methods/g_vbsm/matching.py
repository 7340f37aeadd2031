"""Generalised statistical matching (GSM): one network's statistics against those of the real data.

Sum of L2 norms, not squared, of the differences in mean and variance of every batch norm's input, and of the channels
and the patches of every convolution's input. What is compared is a running mixture of the batches' statistics; the
gradient is the one batch's ("straight through"). From shaoshitong/G_VBSM_Dataset_Condensation, ``recover/utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
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
        self.layers: list[
            tuple[int, list[int]]
        ] = []  # place among the convolutions, -1 for none; lengths of its pieces
        self.convolutions = 0
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d):
                place, found = self.convolutions, list(targets[name])
                self.convolutions += 1
            elif isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                place, found = -1, [module.running_mean, module.running_var]
            else:
                continue
            self.layers.append((place, [len(piece) for piece in found]))
            pieces += found
        self.targets = torch.cat(pieces)
        self.lengths = torch.tensor([len(piece) for piece in pieces])
        self.weights = torch.ones(len(pieces), device=self.targets.device)
        self.weights[: len(self.layers[0][1])] = first_multiplier
        self.conv = np.repeat([place for place, _ in self.layers], [len(lengths) for _, lengths in self.layers])

    def active(self, skipped: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which pieces (..., S) count when the convolutions ``skipped`` (..., convolutions) do not."""
        of_conv = self.conv >= 0
        active = np.ones((*skipped.shape[:-1], len(self.conv)), dtype=np.bool_)
        active[..., of_conv] = ~skipped[..., self.conv[of_conv]]
        return active


class Matcher(ExitStack):
    """One network of the pool and the running statistics of ``groups`` batches of images that it has seen.

    Open it around forwards; then :meth:`loss` is of the last one.
    """

    def __init__(self, net: nn.Module, layout: Layout, groups: int, config: Config):
        super().__init__()
        self.net, self.layout, self.alpha, self.init = net, layout, config.alpha, config.ema_init
        self.convs, self.norms = ConvInputs(net, groups, config.patch), BatchNormInputs(net, groups)
        device = layout.targets.device
        self._lengths = layout.lengths.to(device).expand(groups, -1).contiguous()
        self._piece = torch.arange(len(layout.lengths)).repeat_interleave(layout.lengths).to(device)
        self._absent = torch.zeros(groups, int(layout.lengths.max()), device=device)
        self.mixture = torch.zeros(groups, len(layout.targets), device=device)
        self.started = torch.zeros(groups, len(layout.lengths), dtype=torch.bool, device=device)

    def __enter__(self) -> Self:
        self.enter_context(self.convs)
        self.enter_context(self.norms)
        return self

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
        convs, norms = self.convs.take(), iter(self.norms.take())
        pieces: list[Tensor] = []
        for place, lengths in self.layout.layers:
            pieces += next(norms) if place < 0 else convs.get(place) or [self._absent[:, :size] for size in lengths]
        return torch.cat(pieces, 1)
