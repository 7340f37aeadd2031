"""Wide ResNets for small images (Zagoruyko and Komodakis, BMVC 2016), as "WRN-16-2" in G_VBSM's pool."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.kit.models.blocks import initialise

_STRIDES = (1, 2, 2)  # of the first block of each stage


class _Block(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions.

    Where the width changes, the shortcut is a 1x1 convolution of what the first ReLU gives.
    """

    def __init__(self, into: int, out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(into)
        self.conv1 = nn.Conv2d(into, out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.convShortcut = nn.Conv2d(into, out, 1, stride, bias=False) if into != out else None

    def forward(self, features: Tensor) -> Tensor:
        active = self.bn1(features).relu_()
        shortcut = features if self.convShortcut is None else self.convShortcut(active)
        active = self.bn2(self.conv1(active)).relu_()
        return self.conv2(active) + shortcut  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """WRN-D-W: a 3x3 stem of 16 channels and three stages of (D - 4) / 6 blocks, 16, 32 and 64 times W wide.

    (B, 3, S, S) → (B, classes), for any S. Parameter names are those of CRD's repository (HobbitLong/RepDistiller,
    ``models/wrn.py``), so that checkpoints of it load.

    Args:
        depth: 10, 16, 22, …
        widen: W.
    """

    def __init__(self, depth: int, widen: int, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        width = 16
        for stage, stride in enumerate(_STRIDES):
            out = (16 * widen) << stage
            blocks = [_Block(out if index else width, out, 1 if index else stride) for index in range((depth - 4) // 6)]
            self.add_module(f"block{stage + 1}", nn.ModuleDict({"layer": nn.Sequential(*blocks)}))
            width = out
        self.bn1 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)
        initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.conv1(pixels)
        for stage in range(len(_STRIDES)):
            features = self.get_submodule(f"block{stage + 1}.layer")(features)
        return self.fc(torch.relu_(self.bn1(features)).mean((2, 3)))  # type: ignore[no-any-return]
