"""MobileNetV2 for small images, as "MobileNetV2" (half width) in G_VBSM's pool."""

from __future__ import annotations

from torch import Tensor, nn

from bench.kit.models.blocks import conv_bn, initialise

# expansion, channels at full width, blocks, stride of the first: CRD's repository (HobbitLong/RepDistiller,
# ``models/mobilenetv2.py``), which divides images by 16 in all where the paper's network does by 32
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _LAST = 32, 1280  # channels; the last layer is not made narrower


class _InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel by itself, narrow again; added to the input where shapes agree.

    The widening is there at expansion 1 too, unlike torchvision's.
    """

    def __init__(self, into: int, out: int, stride: int, expansion: int):
        super().__init__()
        hidden = into * expansion
        self.residual = stride == 1 and into == out
        self.conv = nn.Sequential(
            *(*conv_bn(into, hidden), nn.ReLU(inplace=True)),
            *(*conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU(inplace=True)),
            *conv_bn(hidden, out),
        )

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.conv(features)
        return features + changed if self.residual else changed


class SmallMobileNet(nn.Module):
    """MobileNetV2 with ReLU in place of ReLU6 and a stride of 16 in all: (B, 3, S, S) → (B, classes), for any S.

    Parameter names are those of CRD's repository, so that checkpoints of it load.

    Args:
        width: factor on the channels of all layers but the last; a half in the field's pools.
    """

    def __init__(self, width: float, classes: int):
        super().__init__()
        channels = int(_STEM * width)
        self.conv1 = nn.Sequential(*conv_bn(3, channels, 3, 2), nn.ReLU(inplace=True))
        stages = []
        for expansion, full, blocks, stride in _STAGES:
            stage = []
            for index in range(blocks):
                out = int(full * width)
                stage.append(_InvertedResidual(channels, out, 1 if index else stride, expansion))
                channels = out
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        self.conv2 = nn.Sequential(*conv_bn(channels, _LAST), nn.ReLU(inplace=True))
        head = nn.Linear(_LAST, classes)
        self.classifier = nn.Sequential(head)
        initialise(self)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.conv2(self.blocks(self.conv1(pixels)))
        return self.classifier(features.mean((2, 3)))  # type: ignore[no-any-return]
