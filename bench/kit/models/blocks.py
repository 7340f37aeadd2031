"""Parts that several of the small networks are made of."""

from __future__ import annotations

from math import prod, sqrt

from torch import nn


def conv_bn(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Make a convolution without bias that keeps the size at stride 1, and its batch norm."""
    conv = nn.Conv2d(into, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(out)


def initialise(net: nn.Module) -> None:
    """Draw the weights of convolutions from N(0, 2 / (outputs * places)), in module order (He et al., ICCV 2015)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=sqrt(2 / (module.out_channels * prod(module.kernel_size))))
