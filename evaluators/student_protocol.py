"""The settings of student training that all evaluators share, and the schedule of views that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar, Union

from pydantic import Field, model_validator

from bench.api import BaseConfig, DatasetInfo, Protocol
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.seeds import seed_for

T = TypeVar("T")
ByIpc = Union[T, Annotated[dict[int, T], Field(min_length=1)]]  # noqa: UP007 — one of a type variable: one value, or a value from each IPC on: {1 = 300, 10 = 100}
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Rate = Literal["cosine", "half_cosine", "half_linear", "late_steps", "constant"]  # see bench.kit.optim.lr_factor

TEST_SHARE = 0.1  # of the cost of training that tests may add, where a protocol names no epochs
PASSES = 3  # a training sample costs about three forward passes: one forward, two backward


def by_ipc(value: T | Mapping[int, T], ipc: int | None) -> T:
    """Return the value for an IPC: that of the largest key not above it; None, the whole set: of the largest key."""
    if not isinstance(value, Mapping):
        return value
    return value[max((key for key in value if ipc is None or key <= ipc), default=min(value))]


class FullData(BaseConfig):
    """Training of the same student on the whole training set, for the reference row."""

    epochs: Positive
    batch_size: Positive


class StudentProtocol(Protocol):
    """Training of a student, whatever it learns, and its tests.

    Keys of ``…_by_student`` are students, or DATASET/STUDENT for one data set alone.
    """

    epochs: ByIpc[Positive]
    batch_size: ByIpc[Positive]  # at most the number of images
    batch_size_by_student: dict[str, ByIpc[Positive]] = Field(default_factory=dict)
    # parts of a batch that pass the student one after another, BatchNorm over each, for one step of the optimizer
    micro_batches: Positive = 1
    micro_batches_by_student: dict[str, Positive] = Field(default_factory=dict)
    full_data: FullData
    soft_epochs: Positive | None = None  # of the epochs; the others, in between, learn hard labels (HALD)

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: ByIpc[NonNegative] = 1e-3
    lr_by_student: dict[str, ByIpc[NonNegative]] = Field(default_factory=dict)
    weight_decay: NonNegative = 0.01
    decay_all: bool = False  # biases and norms too
    momentum: float = Field(0.9, ge=0, le=1)  # of SGD
    schedule: ByIpc[Rate] = "cosine"
    warmup: int = Field(0, ge=0)  # epochs in which the learning rate rises linearly, from a hundredth (torchvision)

    crop: Literal["rrc", "shift", "none"] = "rrc"
    min_scale: float = Field(0.08, gt=0, le=1)
    flip: bool = True  # unless the data set forbids it
    shuffle: Positive = 1  # ShufflePatches factor
    mix: Literal["none", "cutmix", "mixup"] = "cutmix"
    alpha: float = Field(1.0, gt=0)

    # decay of an average of the weights, which is then tested instead (EDC: 0.99)
    ema: float | None = Field(None, ge=0, le=1)
    amp: bool = True  # bfloat16 autocast of the student, on accelerators only
    test_view: Literal["crop", "whole"] = "crop"  # resized above the image size from 64 px on and cropped, or as it is
    test_every: Positive | None = None  # epochs between two tests; None: as often as TEST_SHARE allows
    test_from: Positive = 1  # the first tested epoch, where test_every is given
    tests: Positive = 10  # at most so many, where it is not

    def for_student(self, dataset: str, student: str) -> Self:
        changes: dict[str, Any] = {}
        for field in ("batch_size", "micro_batches", "lr"):
            table = getattr(self, f"{field}_by_student")
            for key in (student, f"{dataset}/{student}"):
                if key in table:
                    changes[field] = table[key]
        return self.model_copy(update=changes)

    def hard_epochs(self, ipc: int | None) -> int:
        """Count the epochs of hard labels among those of a student that learns soft ones."""
        return 0 if ipc is None or self.soft_epochs is None else max(0, by_ipc(self.epochs, ipc) - self.soft_epochs)

    def view_epochs(self, soft: int, ipc: int | None) -> list[int]:
        """Return the epoch of views that each epoch of training shows: below ``soft`` with soft labels, else hard.

        Half of the soft epochs come first, then the hard ones, then the others (HALD).
        """
        first, hard = soft // 2, self.hard_epochs(ipc)
        return [*range(first), *range(soft, soft + hard), *range(first, soft)]

    def test_epochs(self, epochs: int, images: int, tested: int) -> set[int]:
        """Return the epochs, counted from 1, after which a student is tested: the last is always among them.

        Args:
            images, tested: per epoch of training, and per test.
        """
        if self.test_every is not None:
            return {*range(self.test_from, epochs, self.test_every), epochs}
        affordable = int(TEST_SHARE * PASSES * epochs * images / max(1, tested))
        count = max(1, min(self.tests, affordable))
        return {-(-epochs * (index + 1) // count) for index in range(count)}

    def augmentation(self, dataset: DatasetInfo, ipc: int, seed: int) -> AugmentationSchedule:
        """Return the views of a synthetic set that a student of ``seed`` sees with soft labels."""
        epochs = by_ipc(self.epochs, ipc) - self.hard_epochs(ipc)
        return self._schedule(dataset, ipc * dataset.classes, epochs, by_ipc(self.batch_size, ipc), self.shuffle, seed)

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


class ClassificationProtocol(StudentProtocol):
    """All that decides a student's accuracy except its images and labels."""

    loss: Literal["kl", "mse", "cosine"] = "kl"  # against soft labels; hard labels take cross entropy
    temperature: float = Field(20.0, gt=0)  # of the labels, and of the student unless it has its own
    temperature_schedule: Literal["constant", "step", "cosine"] = "constant"  # from temperature to temperature_min
    temperature_min: float = Field(0.0, ge=0)
    temperature_steps: Positive = 10  # of "step": in equal parts of the epochs
    temperature_decay: float = Field(0.7, gt=0, le=1)  # of "step": the factor of each
    # calibrated after each epoch (LPQLD)
    student_temperature: Annotated[float, Field(gt=0)] | Literal["same", "calibrated"] = "same"
    squared_temperature: bool = False  # kl times T²: SRe2L on Tiny-ImageNet has it, SRe2L and RDED on ImageNet don't
    ce_weight: NonNegative = 0.0  # of the cross entropy to the base image's own label, added to mse (G_VBSM, EDC)
    refinement: NonNegative = 0.0  # of the base image's smoothed hard label, added to the labels of cosine (GIFT)
    label_smoothing: float = Field(0.0, ge=0, le=1)  # of hard labels
    bn_momentum: float | None = Field(None, ge=0, le=1)  # None: the architecture's own

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.loss != "kl" and (self.temperature_schedule != "constant" or self.student_temperature != "same"):
            raise ValueError(f"loss {self.loss} has no temperature; a schedule or a student temperature needs loss kl")
        return self
