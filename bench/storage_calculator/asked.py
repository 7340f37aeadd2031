"""What the calculator is asked: for which set, how many images, how often they are seen, labelled by whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from bench.api import BaseConfig, DatasetInfo, Distiller, GridPoint, TeacherSpec, catalogue, registry
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.errors import UserError
from bench.planning import variants
from bench.planning.label_choices import parse
from bench.planning.protocols import COMMON, OFFICIAL, choose, evaluator_of, read_settings
from bench.storage_calculator import networks

METHODS = ("sre2l", "g_vbsm", "rded", "hello", "hello[store_dtype=float16]")
LABELS = (
    "stored:fp16", "stored:prune40", "stored:topk10", "static:fp16", "teacher:fp32", "teacher:int8", "native", "hard",
)  # fmt: skip
EPOCHS, BATCH_SIZE, IMAGE_SIZE, TEACHER = 300, 1024, 224, "resnet18"  # SRe2L on ImageNet-1K (relabel/relabel.sh)
CLIP = "RN50:openai"  # HeLlO's
GIVEN = "as given"  # where epochs and batches come from, if not from a recipe


class Asked(BaseConfig):
    """A question: a data set by its name, or else a number of ``classes`` and an ``image_size``.

    Of a data set, ``epochs`` and ``batch_size`` are those of each method's own recipe unless they are given, and the
    teacher is the data set's or the method's own.
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
                "say what to weigh with --classes N, or with --dataset NAME"
                if self.dataset is None
                else "--classes is the data set's; leave out --classes or --dataset"
            )
        if self.dataset is not None and self.image_size is not None:
            raise UserError("--image-size is the data set's; leave it out, or say --classes instead of --dataset")
        if not self.ipc or min(self.ipc) < 1 or max(self.ipc) > 10**5:
            raise UserError(f"--ipc {','.join(map(str, self.ipc))}: images per class are 1 to 100000")
        return self

    def info(self) -> DatasetInfo:
        """The data set, or one made up to have so many classes.

        Raises:
            UserError: no such data set or teacher, or one that is smaller than an IPC asked for.
        """
        if self.teacher is not None:
            networks.state(self.teacher, 2)
        if self.dataset is None:
            return self._made_up()
        info = catalogue.dataset(self.dataset)
        if max(self.ipc) > info.smallest_class:
            raise UserError(
                f"--ipc {max(self.ipc)}: the smallest class of {info.name} has {info.smallest_class} training images, "
                "so that is the largest IPC"
            )
        changed = {"teacher": info.teacher.model_copy(update={"arch": self.teacher})} if self.teacher else {}
        return info.model_copy(update=changed)

    def _made_up(self) -> DatasetInfo:
        assert self.classes is not None
        size, images = self.image_size or IMAGE_SIZE, max(self.ipc)
        return DatasetInfo(
            name=f"{self.classes}-classes", title=f"{self.classes:,} classes", classes=self.classes, image_size=size,
            smallest_class=images, train_images=self.classes * images, test_images=self.classes, mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5), teacher=TeacherSpec(arch=self.teacher or TEACHER, image_size=size), clip=CLIP,
            student=TEACHER,
        )  # fmt: skip


SUITE = Asked(dataset="imagenet-1k")  # the paper's Figure 1
SMALL = Asked(dataset="digits", ipc=(1, 10, 50))


@dataclass(frozen=True)
class Asking:
    """One method of a question: its settings on the data set, and how students see its images."""

    asked: Asked
    dataset: DatasetInfo
    name: str  # as it was asked for: hello[store_dtype=float16]
    method: Distiller

    @classmethod
    def each(cls, asked: Asked) -> list[Self]:
        """One a method.

        Raises:
            UserError: an unknown method, setting, or choice of labels.
        """
        dataset, found = asked.info(), []
        for name in asked.methods:
            variant = variants.read(name)
            plugin = registry.method(variant.method)
            for text in asked.labels:
                parse(text, plugin.info)
            read_settings(plugin.Config, variant.settings, f"the settings of {variant.method}")
            found.append(cls(asked, dataset, name, plugin.for_dataset(dataset, **variant.settings)))
        return found

    def setting(self, ipc: int) -> GridPoint:
        """The point of a grid."""
        return GridPoint(dataset=self.dataset, ipc=ipc, seed=0)

    def schedule(self, ipc: int) -> tuple[str, AugmentationSchedule]:
        """Which recipe it is, and how often and in which batches a student sees the images."""
        asked, images = self.asked, ipc * self.dataset.classes
        if asked.dataset is None or (asked.epochs and asked.batch_size):
            name, epochs, batch = GIVEN, asked.epochs or EPOCHS, asked.batch_size or BATCH_SIZE
        else:
            name, own = self._own_schedule(ipc)
            epochs, batch = asked.epochs or own.epochs, asked.batch_size or own.batch_size
        plan = AugmentationConfig(size=self.dataset.image_size)  # label bytes do not depend on what views are cut
        return name, AugmentationSchedule(plan=plan, images=images, epochs=epochs, batch_size=min(batch, images))

    def _own_schedule(self, ipc: int) -> tuple[str, AugmentationSchedule]:
        base = self.method.info.name
        try:
            protocol = choose(OFFICIAL, self.dataset, base)
        except UserError:  # baselines have no recipe of their own
            protocol = choose(COMMON, self.dataset, base)
        evaluator = evaluator_of(protocol)
        return protocol.name, evaluator.schedule(protocol, self.dataset, ipc=ipc, seed=0)

    def teacher(self, ipc: int) -> str:
        """The architecture that answers as this method's teacher: its first, as grids take it."""
        specs = self.method.teachers(self.setting(ipc))
        return (self.asked.teacher or specs[0].arch) if specs else self.dataset.teacher.arch
