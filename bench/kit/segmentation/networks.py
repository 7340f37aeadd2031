"""Promptable networks by name: ``promptable-wN``, an encoder–decoder of width N, teacher's stand-in and student alike.

Every promptable network takes pixels (B, 3, S, S) in [0, 1] and clicks (B, 1, S, S) in [0, 1] and answers with logits
(B, S/4, S/4); it normalises its own input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import architectures
from bench.errors import UserError
from bench.kit.segmentation.decoder import SHRINKS, Block, MaskDecoder, conv_norm


class Promptable(nn.Module):
    """An image tower that halves the image five times and comes back to a quarter of it, and the light decoder."""

    scale: Tensor
    shift: Tensor

    def __init__(self, width: int, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        scale = 1 / torch.tensor(std).view(1, 3, 1, 1)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(1, 3, 1, 1) * scale, persistent=False)
        self.stem = nn.Sequential(
            conv_norm(3, width, stride=2), nn.ReLU(), conv_norm(width, width, stride=2), nn.ReLU()
        )
        self.quarter = Block(width)
        self.eighth = nn.Sequential(conv_norm(width, 2 * width, stride=2), nn.ReLU(), Block(2 * width))
        self.sixteenth = nn.Sequential(conv_norm(2 * width, 4 * width, stride=2), nn.ReLU(), Block(4 * width))
        self.deepest = nn.Sequential(conv_norm(4 * width, 8 * width, stride=2), nn.ReLU(), Block(8 * width))
        self.up_sixteenth = nn.Conv2d(8 * width, 4 * width, 1)
        self.up_eighth = nn.Conv2d(4 * width, 2 * width, 1)
        self.up_quarter = nn.Conv2d(2 * width, width, 1)
        self.neck = Block(width)
        self.decoder = MaskDecoder(width, width)

    def forward(self, pixels: Tensor, clicks: Tensor) -> Tensor:
        quarter = self.quarter(self.stem(torch.addcmul(self.shift, pixels, self.scale)))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        sixteenth = joined(sixteenth, self.up_sixteenth(self.deepest(sixteenth)))
        eighth = joined(eighth, self.up_eighth(sixteenth))
        return self.decoder(self.neck(joined(quarter, self.up_quarter(eighth))), clicks)  # type: ignore[no-any-return]


def joined(features: Tensor, coarser: Tensor) -> Tensor:
    """Features and coarser ones of the same width, enlarged to their size: their sum, where it is positive."""
    return F.relu(features + F.interpolate(coarser, features.shape[2:], mode="nearest"))


def build(arch: str, image_size: int, mean: Sequence[float], std: Sequence[float]) -> Promptable:
    """A promptable network with random weights, drawn from torch's global stream.

    Args:
        arch: ``promptable-wN``.
        image_size: pixels a side of its input.

    Raises:
        UserError: it is no promptable network, or it can't take images of this size.
    """
    architectures.check(arch)
    match = re.fullmatch(architectures.PROMPTABLE, arch)
    if match is None:
        raise UserError(f"{arch} answers with classes, not with a mask; expected promptable-wN, e.g. promptable-w16")
    if image_size % SHRINKS:
        raise UserError(f"{arch} takes images whose side is a multiple of {SHRINKS}, not {image_size}")
    return Promptable(int(match[1]), mean, std)
