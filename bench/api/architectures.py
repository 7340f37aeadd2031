"""The names of architectures, for students and teachers alike; torch-free, so that plans can be checked.

``bench.kit.models.build`` makes the networks. Other packages add theirs in the entry-point group ``bench.students``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.api.plugins import Group
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import nn

# name -> description; shown by `bench list students`
SMALL = {
    "convnet3": "ConvNet-3 of the field: 3 blocks of 3x3 convolution, batch norm, ReLU, average pool; width 128",
    "convnet4": "ConvNet-4, as convnet3 with 4 blocks",
    "convnet5": "ConvNet-5",
    "convnet6": "ConvNet-6",
    "convnet3-in": "ConvNet-3 that normalises by instance, as in dataset condensation (DC, MTT)",
    "resnet10-small": "ResNet-10 with a 3x3 stem and no max-pool, for images up to 64 px",
    "resnet18-small": "ResNet-18 with a 3x3 stem and no max-pool, for images up to 64 px",
    "resnet34-small": "ResNet-34 with a 3x3 stem and no max-pool",
    "resnet50-small": "ResNet-50 with a 3x3 stem and no max-pool",
    "wrn16-2": "Wide ResNet of depth 16, twice as wide, for images up to 64 px",
    "mobilenetv2-small": "MobileNetV2 of half the width whose images shrink by 16, not 32, for images up to 64 px",
    "shufflenetv2-small": "ShuffleNetV2 x0.5 with a 1x1 stem and no max-pool, for images up to 64 px",
    "vit-small": "ViT with 4-px patches, width 192, 6 blocks, 3 heads, for images up to 64 px",
    "swin-small": "Swin with 2-px patches, width 48, windows of 4, for images of 16, 32 or 64 px",
}
LARGE = dict.fromkeys(
    ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5", "swin_v2_t", "vgg11",
     "vit_b_16", "alexnet"), "torchvision"
)  # fmt: skip
FAMILIES = {
    "convnetD-wN": "ConvNet with D blocks of width N; convnetD-in, convnetD-wN-in: by instance",
    "resnetD-small-wN": "small-image ResNet whose first stage has N channels instead of 64",
    "wrnD-W": "Wide ResNet of depth D (10, 16, 22, ...), W times as wide",
    "timm:NAME": "any classifier of timm",
    "torchvision:NAME": "any classifier of torchvision",
}
# ms per image of training ResNet-18 at 224 px (HeLlO, arXiv 2408.08201, supplement Table 6: SRe2L's student, one A5000)
STEP = 1e3 * 0.75 / 1024
# 10^9 multiplications of one image at 224 px: torchvision's own figures; of CLIP's image towers, counted by torch
MULTIPLICATIONS = {
    "resnet18": 1.814, "resnet50": 4.089, "resnet101": 7.801, "mobilenet_v2": 0.301, "efficientnet_b0": 0.386,
    "shufflenet_v2_x0_5": 0.040, "swin_v2_t": 5.940, "vgg11": 7.609, "vit_b_16": 17.564, "alexnet": 0.714,
    "RN50": 6.111, "RN101": 9.771, "ViT-B-32": 4.409, "ViT-B-16": 17.563,
}  # fmt: skip

_SIZED = re.compile(
    r"convnet[1-8](-w[1-9]\d*)?-in|(convnet[1-8]|resnet(10|18|34|50)-small)-w[1-9]\d*|wrn(10|16|22|28|34|40)-[1-9]\d?"
)


@dataclass(frozen=True)
class Student:
    """A network from another package, registered in the group ``bench.students`` under its name.

    ``build(classes, image_size)`` makes the ``torch.nn.Module`` with random weights from torch's global stream; it maps
    normalised float pixels (B, 3, S, S) to logits (B, classes). Import torch inside. Raise ``version`` when results
    change: it is part of the identity of what was computed with the network.
    """

    title: str
    build: Callable[[int, int], nn.Module]
    version: int = 1


STUDENTS: Group[Student] = Group("bench.students", "student", Student)


def check(name: str) -> None:
    """Refuse a name that no architecture has.

    Raises:
        UserError: with the nearest valid name, or with the reason why a plug-in cannot be used.
    """
    library, _, rest = name.partition(":")
    if library in ("timm", "torchvision"):
        if not rest:
            raise UserError(f"student {name!r} names no model; expected {library}:NAME, e.g. {library}:resnet18")
    elif plugin(name) is None and not _built_in(name):
        raise unknown("student", name, [*descriptions()])


def plugin(name: str) -> Student | None:
    """Return the network of another package that is called ``name``; None for those of this package.

    Raises:
        UserError: it cannot be used.
    """
    return STUDENTS.get(name) if not _built_in(name) and name in STUDENTS else None


def descriptions() -> dict[str, str]:
    """All names and families of architectures with a line on each."""
    return {**SMALL, **LARGE, **{name: student.title for name, student in STUDENTS.usable.items()}, **FAMILIES}


def _built_in(name: str) -> bool:
    return name in SMALL or name in LARGE or bool(_SIZED.fullmatch(name))


def network_hours(images: float, networks: tuple[str, ...], training: bool = False) -> float | None:
    """Hours in which each network sees ``images`` at 224 px; None: a network is not known.

    Networks take as long as their multiplications say, but none less than ResNet-18, because small ones wait for
    memory; a forward pass takes a third of a training step.
    """
    if not networks or not set(networks) <= MULTIPLICATIONS.keys():
        return None
    weights = sum(max(1.0, MULTIPLICATIONS[name] / MULTIPLICATIONS["resnet18"]) for name in networks)
    return images * weights * (1 if training else 1 / 3) * STEP / 3.6e6
