"""Promptable networks: a light mask decoder, and ``promptable-wN``, an encoder–decoder of width N around it.

Every promptable network takes pixels (B, 3, S, S) in [0, 1] and clicks (B, 1, S, S) in [0, 1] and answers with logits
(B, S/4, S/4); it normalises its own input. As in SAM, the image tower knows nothing of the prompt, so one pass of it
serves all clicks, and the mask is found by comparing the features with a query that belongs to the prompt. SAM's query
is the output of a two-way transformer; here it is the mean of the features under the click, which is enough for one
click and few parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UserError
from methods.segmentation.config import SHRINKS, check_student


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and a residual connection."""

    def __init__(self, width: int, groups: int = 1):
        super().__init__()
        self.one, self.other = conv_norm(width, width, groups=groups), conv_norm(width, width, groups=groups)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.other(F.relu(self.one(features))))


def conv_norm(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Build a convolution that keeps the resolution but for its stride, and batch norm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class MaskDecoder(nn.Module):
    """Features (B, C, s, s) and clicks (B, 1, S, S) with S = 4 s → logits (B, s, s).

    Features, their products with the query, their distance from it and the click are joined; a block works at half the
    resolution, which spreads the click, and one at the full.
    """

    def __init__(self, features: int, width: int):
        super().__init__()
        self.embed = nn.Conv2d(features, width, 1)
        self.join = conv_norm(2 * width + 2, width)
        self.about = nn.Sequential(conv_norm(width, 2 * width, stride=2), nn.ReLU(), Block(2 * width))
        self.back = nn.Conv2d(2 * width, width, 1)
        self.fine = Block(width)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor, clicks: Tensor) -> Tensor:
        features = self.embed(features)
        at = F.avg_pool2d(clicks, SHRINKS)
        # a crop may have left the click outside: then the query is zero
        query = (features * at).sum((2, 3), keepdim=True) / at.sum((2, 3), keepdim=True).clamp(min=1e-4)
        distance = (features - query).square().mean(1, keepdim=True)
        joined = F.relu(self.join(torch.cat([features, features * query, distance, at], 1)))
        about = F.interpolate(self.back(self.about(joined)), joined.shape[2:], mode="nearest")
        logits: Tensor = self.out(self.fine(joined + about))
        return logits[:, 0]


class Promptable(nn.Module):
    """An image tower that halves the image five times and returns to a quarter of it, and the light decoder."""

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
    """Enlarge coarser features to the size of others of the same width, add them, and apply ReLU."""
    return F.relu(features + F.interpolate(coarser, features.shape[2:], mode="nearest"))


def build(arch: str, image_size: int, mean: Sequence[float], std: Sequence[float]) -> Promptable:
    """Build ``promptable-wN`` with random weights from torch's global stream.

    Raises:
        UserError: it is no promptable network, or it can't take images of ``image_size`` pixels per side.
    """
    width = check_student(arch)
    if image_size % SHRINKS:
        raise UserError(f"{arch} takes images whose side is a multiple of {SHRINKS}, not {image_size}")
    return Promptable(width, mean, std)
