"""The names of architectures, and teachers that are trained of them; torch-free, so that plans can be checked.

``bench.kit.models.build`` makes the networks. Other packages add theirs in the entry-point group ``bench.students``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from bench.api.config import BaseConfig, affects
from bench.api.plugins import Group
from bench.errors import UserError, unknown
from bench.files import sha256_of

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


class TeacherSpec(BaseConfig):
    """A training trajectory that must exist before a method can start.

    The defaults are torchvision's recipe for ResNet-18 (``references/classification``): SGD .1, momentum .9, weight
    decay 1e-4, a tenth every 30 of 90 epochs, batches of 256.
    """

    arch: str = "resnet18"
    image_size: int = Field(224, ge=1)
    epochs: int = Field(90, ge=1)
    batch_size: int = Field(256, ge=1)
    lr: float = Field(0.1, ge=0)
    momentum: float = Field(0.9, ge=0, le=1)
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["step", "cosine", "constant"] = "step"  # step: a tenth after each third of the epochs
    nesterov: bool = False
    augment: Literal["rrc-flip", "rrc", "shift-flip", "shift", "none-flip", "none"] = "rrc-flip"  # shift: pad and crop
    min_scale: float = Field(0.08, gt=0, le=1)  # smallest area of a random resized crop
    # kept of the trajectory, and of its first half and last third; the last epoch among them
    checkpoints: int = Field(9, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)
    mean: tuple[float, float, float] | None = None  # of its input, with std; None: the data set's
    std: tuple[float, float, float] | None = None
    files: Annotated[tuple[str, ...], affects()] = ()  # checkpoints from elsewhere, one per epoch: nothing is trained
    file_epochs: Annotated[tuple[int, ...], affects()] = ()  # of several files, ascending
    file_sha256: str | None = None  # of their content: part of the identity, unlike their place
    weights: str | None = None  # the state dict in a file that holds several, e.g. "model_ema"
    accuracy: float | None = Field(None, ge=0, le=1)  # of the last file, as its authors state it
    # of the rows of the files' head: class ids or names, or how the ids are sorted (natural: 2 before 10)
    class_order: Literal["sorted", "natural"] | tuple[str, ...] | None = None

    def kept_epochs(self) -> tuple[int, ...]:
        """Return the epochs (from 1) of the checkpoints: those of the files, or those that training keeps.

        90 epochs: 10, 20, …, 90; dense early, 5, 10, …, 45, and late, 63, 67, …, 90.
        """
        if self.files:
            return self.file_epochs or (self.epochs,)
        every = range(1, self.epochs + 1)
        return tuple(sorted({one for stretch in STRETCHES for one in spread(every, stretch, self.checkpoints)}))

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the files' content and epochs.

        Raises:
            UserError: a file is missing or cannot be read.
        """
        found = []
        for path in self.files:
            try:
                found.append(sha256_of(Path(path)))
            except OSError as error:
                raise UserError(f"the teacher file {path} can't be read: {error.strerror}") from None
        if not self.file_epochs:
            return found[0]
        lines = (f"{epoch} {each}\n" for epoch, each in zip(self.file_epochs, found, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


STRETCHES = ((0, 1), (0, 1 / 2), (2 / 3, 1))  # of a training, as fractions: whole, early, late


def spread(epochs: Sequence[int], stretch: tuple[float, float], count: int) -> tuple[int, ...]:
    """Pick ``count`` of ``epochs``, which ascend, evenly in a stretch of the training that the last one ends.

    Of too few in the stretch, the nearest outside are taken as well; of too few at all, all.
    """
    left, (start, end) = list(epochs), (edge * epochs[-1] for edge in stretch)
    picked = []
    for place in range(count, 0, -1):  # from its end, so that the last is always among them
        if left:
            wanted = round(start + (end - start) * place / count, 6)
            picked.append(min(left, key=lambda epoch: (abs(epoch - wanted), -epoch)))
            left.remove(picked[-1])
    return tuple(sorted(picked))
