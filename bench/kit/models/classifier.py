"""A classifier that normalises its own input, built from its architecture's name with random weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import architectures
from bench.errors import UserError, unknown
from bench.kit.models.convnet import ConvNet
from bench.kit.models.small_mobilenet import SmallMobileNet
from bench.kit.models.small_shufflenet import SmallShuffleNet
from bench.kit.models.wide_resnet import WideResNet

_RESNET_BLOCKS = {"10": [1, 1, 1, 1], "18": [2, 2, 2, 2], "34": [3, 4, 6, 3], "50": [3, 4, 6, 3]}  # per stage


class Classifier(nn.Module):
    """A network behind its normalisation: float pixels (B, 3, S, S) in [0, 1] → logits (B, C).

    Views are handed to students and label models alike in plain pixel values; each normalises by its own
    statistics, so no conversion between two normalisations is ever needed.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.net = net
        # (x - mean) / std written as x * scale + shift: one fused pass
        scale = 1 / torch.tensor(std).view(1, 3, 1, 1)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(1, 3, 1, 1) * scale, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(torch.addcmul(self.shift, pixels, self.scale))  # type: ignore[no-any-return]


def build(
    arch: str,
    classes: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    bn_momentum: float | None = None,
) -> Classifier:
    """Build a classifier with random weights, drawn from torch's global stream.

    Args:
        arch: a name of :mod:`bench.api.architectures`.
        image_size: pixels a side of its input.
        mean, std: of the pixels in [0, 1], per channel.
        bn_momentum: of every batch norm; None: the architecture's own.

    Raises:
        UserError: no such architecture, or it can't take images of this size.
    """
    net = _net(arch, classes, image_size)
    if bn_momentum is not None:
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = bn_momentum
    return Classifier(net, mean, std)


def _net(arch: str, classes: int, image_size: int) -> nn.Module:
    architectures.check(arch)
    if (student := architectures.plugin(arch)) is not None:
        return _tried(arch, student.build(classes, image_size), image_size)
    if match := re.fullmatch(r"convnet(\d)(?:-w(\d+))?(-in)?", arch):
        return ConvNet(int(match[1]), int(match[2] or 128), classes, image_size, bool(match[3]))
    if match := re.fullmatch(r"resnet(10|18|34|50)-small(?:-w(\d+))?", arch):
        return _small_resnet(match[1], int(match[2] or 64), classes)
    if match := re.fullmatch(r"wrn(\d+)-(\d+)", arch):
        return WideResNet(int(match[1]), int(match[2]), classes)
    if arch == "mobilenetv2-small":
        return SmallMobileNet(0.5, classes)
    if arch == "shufflenetv2-small":
        return SmallShuffleNet(0.5, classes)
    if match := re.fullmatch(r"(?:torchvision:)?([a-z0-9_]+)", arch):
        import torchvision.models  # here: it takes seconds that most processes need not wait

        known = torchvision.models.list_models(module=torchvision.models)
        if match[1] in known:
            return _tried(arch, torchvision.models.get_model(match[1], weights=None, num_classes=classes), image_size)
        if arch.startswith("torchvision:"):
            raise unknown("torchvision model", match[1], known)
    return _timm(arch, classes, image_size)


def _timm(arch: str, classes: int, image_size: int) -> nn.Module:
    import timm  # here, because it takes half a second that most cells need not wait
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    if arch == "vit-small":
        return VisionTransformer(
            img_size=image_size, patch_size=4, num_classes=classes, embed_dim=192, depth=6, num_heads=3
        )
    if arch == "swin-small":
        # windows of 4 must tile every stage: 2-px patches halve the side, then two stages halve it again
        if image_size % 16:
            raise UserError(f"swin-small takes images whose side is a multiple of 16, not {image_size}")
        return SwinTransformer(
            img_size=image_size, patch_size=2, num_classes=classes, embed_dim=48, depths=(2, 2),
            num_heads=(3, 6), window_size=4,
        )  # fmt: skip
    name = arch.removeprefix("timm:")
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    return _tried(arch, timm.create_model(name, num_classes=classes), image_size)


@torch.no_grad()
def _tried(arch: str, net: nn.Module, image_size: int) -> nn.Module:
    """Try a network on one image and return it: networks of other packages do not say which sizes they take."""
    try:
        net.eval()(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise UserError(
            f"{arch} can't take images of {image_size} px ({reason[:100]}); choose another, see bench list students"
        ) from None
    return net.train()


def _small_resnet(depth: str, width: int, classes: int) -> nn.Module:
    """Build a ResNet for small images: conv1 3x3 stride 1, no max-pool (zeyuanyin/tiny-imagenet; RDED's "modified").

    Parameter names are torchvision's, so that the field's checkpoints load.
    """
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    block, layers = Bottleneck if depth == "50" else BasicBlock, _RESNET_BLOCKS[depth]
    net: Any = ResNet(block, layers, num_classes=classes)
    net.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
    net.bn1 = nn.BatchNorm2d(width)
    net.maxpool = nn.Identity()
    net.inplanes = width
    for stage in range(4):
        layer = net._make_layer(block, width << stage, layers[stage], stride=1 if stage == 0 else 2)
        setattr(net, f"layer{stage + 1}", layer)
    net.fc = nn.Linear((width << 3) * block.expansion, classes)
    for module in net.modules():  # as torchvision initialises its own
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    made: nn.Module = net
    return made
