"""Requests to the calculator: a data set, images per class, a schedule of views, methods and their labels."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Self

from pydantic import Field, model_validator

from bench.api import BaseConfig, DatasetInfo, Distiller, GridPoint, TeacherSpec, architectures, catalogue, registry
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.errors import UserError
from bench.planning import variants
from bench.planning.label_choices import parse
from bench.planning.protocols import COMMON, OFFICIAL, choose, evaluator_of, read_settings

PAPERS = tomllib.loads(files("bench.storage_calculator").joinpath("papers.toml").read_text(encoding="utf-8"))
METHODS, LABELS = tuple(PAPERS["methods"]), tuple(PAPERS["labels"])
EPOCHS, BATCH_SIZE, IMAGE_SIZE, TEACHER = 300, 1024, 224, "resnet18"  # SRe2L on ImageNet-1K (relabel/relabel.sh)
CLIP = "RN50:openai"
GIVEN = "as given"  # the source of epochs and batches that no recipe sets


class StorageRequest(BaseConfig):
    """A named data set, or a number of ``classes`` and an ``image_size``.

    With a data set, ``epochs`` and ``batch_size`` default to each method's own recipe, and the teacher to the method's
    or the data set's.
    """

    dataset: str | None = None
    classes: int | None = Field(None, ge=2, le=10**6)
    image_size: int | None = Field(None, ge=8, le=4096)
    ipc: tuple[int, ...] = (1, 10, 50, 200)
    epochs: int | None = Field(None, ge=1, le=10**5)
    batch_size: int | None = Field(None, ge=1, le=10**6)
    teacher: str | None = None
    methods: tuple[str, ...] = METHODS
    labels: tuple[str, ...] = LABELS

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.dataset is None) == (self.classes is None):
            raise UserError(
                "name what to count with --classes N, or with --dataset NAME"
                if self.dataset is None
                else "--classes is the data set's; leave out --classes or --dataset"
            )
        if self.dataset is not None and self.image_size is not None:
            raise UserError("--image-size is the data set's; leave it out, or use --classes instead of --dataset")
        if not self.ipc or min(self.ipc) < 1 or max(self.ipc) > 10**5:
            raise UserError(f"--ipc {','.join(map(str, self.ipc))}: images per class are 1 to 100000")
        return self

    def info(self) -> DatasetInfo:
        """Return the data set, or a synthetic one with as many classes.

        Raises:
            UserError: no such data set or teacher, or an IPC above the smallest class.
        """
        most = max(self.ipc)
        if self.teacher is not None:
            architectures.check(self.teacher)
        if self.classes is not None:
            size = self.image_size or IMAGE_SIZE
            return DatasetInfo(
                name=f"{self.classes}-classes", title=f"{self.classes:,} classes", classes=self.classes,
                image_size=size, smallest_class=most, train_images=self.classes * most, test_images=self.classes,
                mean=(0.5,) * 3, std=(0.5,) * 3, clip=CLIP, student=TEACHER,
                teacher=TeacherSpec(arch=self.teacher or TEACHER, image_size=size),
            )  # fmt: skip
        info = catalogue.dataset(self.dataset or "")
        if most > info.smallest_class:
            raise UserError(
                f"--ipc {most}: the smallest class of {info.name} has {info.smallest_class} training images, so that "
                "is the largest IPC"
            )
        return info.model_copy(update={"teacher": self.answering(info.teacher)})

    def answering(self, teacher: TeacherSpec) -> TeacherSpec:
        """Return a teacher with the requested architecture."""
        return teacher.model_copy(update={"arch": self.teacher}) if self.teacher else teacher


SUITE, SMALL = (StorageRequest.model_validate(PAPERS[form]) for form in ("suite", "small"))


@dataclass(frozen=True)
class RequestedMethod:
    """One method of a request with its settings on the data set."""

    request: StorageRequest
    dataset: DatasetInfo
    name: str  # as requested: "rded[crops=5]"
    method: Distiller

    @classmethod
    def all(cls, request: StorageRequest) -> list[Self]:
        """Return the methods of a request, in its order.

        Raises:
            UserError: an unknown method, setting or label choice.
        """
        dataset, found = request.info(), []
        for name in request.methods:
            variant = variants.read(name)
            plugin = registry.method(variant.method)
            for text in request.labels:
                parse(text, plugin.info)
            read_settings(plugin.Config, variant.settings, f"the settings of {variant.method}")
            found.append(cls(request, dataset, name, plugin.for_dataset(dataset, **variant.settings)))
        return found

    def point(self, ipc: int) -> GridPoint:
        """Return the grid point at an IPC; sizes do not depend on its seed."""
        return GridPoint(dataset=self.dataset, ipc=ipc, seed=0)

    def schedule(self, ipc: int) -> tuple[str, AugmentationSchedule]:
        """Return the name of the recipe, and the views it shows to a student."""
        request, images, info = self.request, ipc * self.dataset.classes, self.dataset
        if request.dataset is None or (request.epochs and request.batch_size):
            name, epochs, batch = GIVEN, request.epochs or EPOCHS, request.batch_size or BATCH_SIZE
        else:
            try:
                protocol = choose(OFFICIAL, info, self.method.info.name)
            except UserError:  # baselines have no recipe of their own
                protocol = choose(COMMON, info, self.method.info.name)
            own = evaluator_of(protocol).schedule(protocol, info, ipc=ipc, seed=0)
            name, epochs, batch = protocol.name, request.epochs or own.epochs, request.batch_size or own.batch_size
        plan = AugmentationConfig(size=info.image_size)  # label bytes do not depend on the augmentation
        return name, AugmentationSchedule(plan=plan, images=images, epochs=epochs, batch_size=min(batch, images))

    def teacher(self, ipc: int) -> TeacherSpec:
        """Return the method's first teacher, which answers in its name, or the data set's."""
        return self.request.answering(next(iter(self.method.teachers(self.point(ipc))), self.dataset.teacher))
