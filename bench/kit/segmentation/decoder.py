"""The light mask decoder: features of an image and a click on it → logits of the clicked thing's mask.

As in SAM, the image tower knows nothing of the prompt, so one pass of it serves all clicks, and what is asked for is
found by comparing the features with a query that belongs to the prompt. SAM's query comes out of a two-way
transformer; here it is the mean of the features under the click, which is enough for one click and few parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHRINKS = 4  # the mask has a quarter of the image's resolution, as SAM's has


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and what came in added."""

    def __init__(self, width: int, groups: int = 1):
        super().__init__()
        self.one, self.other = conv_norm(width, width, groups=groups), conv_norm(width, width, groups=groups)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.other(F.relu(self.one(features))))


def conv_norm(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the resolution but for its stride, and batch norm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class MaskDecoder(nn.Module):
    """Features (B, C, s, s) and clicks (B, 1, S, S) with S = 4 s → logits (B, s, s).

    Features, their products with the query, their distance from it and the click are joined; a block looks about at
    half the resolution, which is how far a click must be heard, and one at the full.
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
