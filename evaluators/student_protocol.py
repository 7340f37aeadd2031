"""The settings of student training that all evaluators share, and the schedule of views that follows from them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.api import BaseConfig, DatasetInfo, Protocol
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.seeds import seed_for

ByIpc = int | dict[int, int]  # one number, or a number from each IPC on: {1 = 300, 10 = 100}


def by_ipc(value: ByIpc, ipc: int) -> int:
    """Return the number for an IPC: that of the largest key not above it."""
    if isinstance(value, int):
        return value
    return value[max((key for key in value if key <= ipc), default=min(value))]


class FullData(BaseConfig):
    """Training of the same student on the whole training set, for the reference row."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)


class StudentProtocol(Protocol):
    """Training of a student, whatever it learns, and the number of its tests."""

    epochs: ByIpc
    batch_size: ByIpc  # at most the number of images
    full_data: FullData

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    lr_by_student: dict[str, float] = Field(default_factory=dict)
    weight_decay: float = 0.01
    momentum: float = 0.9  # of SGD
    schedule: Literal["cosine", "half_cosine", "half_linear", "constant"] = "cosine"
    warmup: int = Field(0, ge=0)  # epochs in which the learning rate rises linearly, from a hundredth (torchvision)
    accumulate: int = Field(1, ge=1)  # batches per optimizer step

    crop: Literal["rrc", "shift", "none"] = "rrc"
    min_scale: float = 0.08
    flip: bool = True  # unless the data set forbids it
    shuffle: int = 1  # ShufflePatches factor
    mix: Literal["none", "cutmix", "mixup"] = "cutmix"
    alpha: float = 1.0

    ema: float | None = None  # decay of an average of the weights, which is then tested instead (EDC: 0.99)
    amp: bool = True  # bfloat16 autocast, on accelerators only
    tests: int = Field(10, ge=1)  # evenly spaced, the last one after the last epoch

    def augmentation(self, dataset: DatasetInfo, ipc: int, seed: int) -> AugmentationSchedule:
        """Return the views of a synthetic set that a student of ``seed`` sees."""
        epochs, batch_size = by_ipc(self.epochs, ipc), by_ipc(self.batch_size, ipc)
        return self._schedule(dataset, ipc * dataset.classes, epochs, batch_size, self.shuffle, seed)

    def full_data_augmentation(self, dataset: DatasetInfo, images: int, seed: int) -> AugmentationSchedule:
        """Return the views of ``images`` real training images that a student of ``seed`` sees."""
        shuffle = 1  # photographs are no mosaics of patches
        return self._schedule(dataset, images, self.full_data.epochs, self.full_data.batch_size, shuffle, seed)

    def _schedule(
        self, dataset: DatasetInfo, images: int, epochs: int, batch_size: int, shuffle: int, seed: int
    ) -> AugmentationSchedule:
        plan = AugmentationConfig(
            size=dataset.image_size,
            crop=self.crop,
            min_scale=self.min_scale,
            flip=self.flip and dataset.flip,
            shuffle=shuffle,
            mix=self.mix,
            alpha=self.alpha,
            seed=seed_for("student-views", seed),
        )
        return AugmentationSchedule(plan=plan, images=images, epochs=epochs, batch_size=min(batch_size, images))
