"""Facts on data sets and teachers that are known without reading an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.api.config import BaseConfig


class TeacherSpec(BaseConfig):
    """Which training trajectory must exist before a method can start.

    The defaults are torchvision's recipe for ResNet-18 (METHODS §1.4: SGD .1, momentum .9, weight decay 1e-4,
    a tenth every 30 of 90 epochs, batches of 256).
    """

    arch: str = "resnet18"
    image_size: int = 224
    epochs: int = 90
    batch_size: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine", "constant"] = "step"  # step: a tenth after each third of the epochs
    nesterov: bool = False
    augment: str = "rrc-flip"  # "rrc-flip", "rrc", "shift" (pad and crop), "shift-flip" or "none"
    min_scale: float = 0.08  # smallest area of a random resized crop
    checkpoints: int = 9  # kept along the trajectory, evenly spaced, the last epoch always among them
    seed: int = 0
    file: str | None = None  # a foreign checkpoint: nothing is trained
    file_sha256: str | None = None  # what that file held: part of the identity, unlike its place
    accuracy: float | None = None  # of a foreign checkpoint, as its authors state it (a fraction)


class DatasetInfo(BaseConfig):
    """What can be said of a data set without reading an image."""

    name: str
    title: str
    version: int = 1
    classes: int
    image_size: int  # pixels a side at which the benchmark uses it
    channels: int = 3  # of the source; images are always handed out as RGB
    smallest_class: int  # training images in the smallest class
    train_images: int
    test_images: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    teacher: TeacherSpec  # the data set's default teacher
    clip: str  # the data set's default public CLIP, as `bench.kit.clip.loading.load_clip` names it
    student: str  # the data set's default student
    flip: bool = True  # may a horizontal flip keep the class? (not for digits)
    masks: bool = False  # does every image come with a prompt and the mask of what is prompted for?
    fingerprint: str | None = None  # of user-supplied folders: class names and file names

    @property
    def logits(self) -> int:
        """How many there are in a label: one a class, or of masks one a pixel at a quarter of the resolution, the rate
        at which SAM answers (arXiv 2304.02643)."""
        return (self.image_size // 4) ** 2 if self.masks else self.classes


@dataclass(frozen=True)
class GridPoint:
    """One point of the grid as a method sees it: the data set, images per class (IPC) and the seed."""

    dataset: DatasetInfo
    ipc: int
    seed: int
