"""ShuffleNetV2 for small images, as "ShuffleNetV2 x0.5" in G_VBSM's pool."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.kit.models.blocks import conv_bn

_STEM = 24  # channels
_UNITS = (3, 7, 3)  # per stage, after the one that halves the image
# channels of the three stages and of the last layer (ShuffleNet V2, Table 5)
_CHANNELS = {0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024)}


class _Unit(nn.Module):
    """Half of the channels pass, the other half goes through 1x1, depthwise 3x3 and 1x1 convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = conv_bn(half, half)
        self.conv2, self.bn2 = conv_bn(half, half, 3, groups=half)
        self.conv3, self.bn3 = conv_bn(half, half)

    def forward(self, features: Tensor) -> Tensor:
        kept, changed = features.chunk(2, 1)
        changed = self.bn1(self.conv1(changed)).relu_()
        changed = self.bn2(self.conv2(changed))
        changed = self.bn3(self.conv3(changed)).relu_()
        return F.channel_shuffle(torch.cat([kept, changed], 1), 2)


class _Halving(nn.Module):
    """Both halves of the output are made from the whole input, at half its resolution."""

    def __init__(self, into: int, out: int):
        super().__init__()
        half = out // 2
        self.conv1, self.bn1 = conv_bn(into, into, 3, 2, groups=into)
        self.conv2, self.bn2 = conv_bn(into, half)
        self.conv3, self.bn3 = conv_bn(into, half)
        self.conv4, self.bn4 = conv_bn(half, half, 3, 2, groups=half)
        self.conv5, self.bn5 = conv_bn(half, half)

    def forward(self, features: Tensor) -> Tensor:
        left = self.bn1(self.conv1(features))
        left = self.bn2(self.conv2(left)).relu_()
        right = self.bn3(self.conv3(features)).relu_()
        right = self.bn4(self.conv4(right))
        right = self.bn5(self.conv5(right)).relu_()
        return F.channel_shuffle(torch.cat([left, right], 1), 2)


class SmallShuffleNet(nn.Module):
    """ShuffleNetV2 with a 1x1 stem and no max-pool, a stride of 8 in all: (B, 3, S, S) → (B, classes), any S.

    Stem and parameter names are those of CRD's repository (HobbitLong/RepDistiller, ``models/ShuffleNetv2.py``), so
    that checkpoints of it load; weights start as torch's own.

    Args:
        size: 0.5 or 1.0, the paper's "x0.5" and "x1".
    """

    def __init__(self, size: float, classes: int):
        super().__init__()
        *stages, last = _CHANNELS[size]
        self.conv1, self.bn1 = conv_bn(3, _STEM)
        width = _STEM
        made = []
        for out, units in zip(stages, _UNITS, strict=True):
            made.append(nn.Sequential(_Halving(width, out), *(_Unit(out) for _ in range(units))))
            width = out
        self.layer1, self.layer2, self.layer3 = made
        self.conv2, self.bn2 = conv_bn(width, last)
        self.linear = nn.Linear(last, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.bn1(self.conv1(pixels)).relu_()
        features = self.layer3(self.layer2(self.layer1(features)))
        features = self.bn2(self.conv2(features)).relu_()
        return self.linear(features.mean((2, 3)))  # type: ignore[no-any-return]
