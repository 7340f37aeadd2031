"""The plug-in HeLlO: its images and labels.

HeLlO (arXiv 2408.08201): a public CLIP's image tower with low-rank updates on its convolutions and on a
linear head that starts from the class names' text embeddings, trained on the real set to give the mean logits
of weak teachers. It labels any view online; stored are the low-rank matrices alone. The images are RDED's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api import (
    DatasetInfo,
    Distiller,
    GridPoint,
    ImageBlock,
    LabelSize,
    MethodCost,
    MethodInfo,
    StudentCost,
    Task,
    TeacherSpec,
)
from bench.api.architectures import network_hours
from bench.api.config import Artifact
from bench.errors import UserError
from bench.kit.clip.naming import ICON_CLIP, clip_identity
from methods.hello import config
from methods.rded import RDED

if TYPE_CHECKING:
    from methods.hello.projector import ProjectorLabels


class HeLlO(Distiller):
    """Images: RDED's, updated only on request. Labels: the projector, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="hello", title="HeLlO", version=3,
        look=2, paper="arXiv 2408.08201", labels="projector", needs="a public CLIP",
        shared=("label",),
        # supplement, Table 6, one A5000
        student_cost=StudentCost(batch_size=100, seconds=0.21, mebibytes=4004, reference=True),
    )  # fmt: skip
    Config = config.Config
    label_kinds: ClassVar[dict[str, str]] = {"projector": "methods.hello.projector:ProjectorLabels"}
    quick: ClassVar[dict[str, Any]] = {"epochs": 2}

    config: config.Config

    names_show = ("weak_teachers",)

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        """Configure it for a data set; of a teacher with fewer checkpoints than nine all are weak teachers."""
        made = config.Config(**{**config.SMALL_SETS.get(dataset.name, {}), **overrides})
        kept = len(dataset.given(dataset.teacher).kept_epochs())
        if "weak_teachers" not in overrides and made.teachers not in (config.LAST, config.NONE):
            made = made.model_copy(update={"weak_teachers": min(made.weak_teachers, kept)})
        return cls(made)

    def check(self, point: GridPoint) -> None:
        self.images_from(point).check(point)
        count, kept = self.config.weak_teachers, point.dataset.given(point.dataset.teacher).kept_epochs()
        if self.config.stage(point.ipc) not in (config.LAST, config.NONE) and len(kept) < count:
            raise UserError(
                f"hello.weak_teachers {count}: the teacher of {point.dataset.name} has {len(kept)} checkpoints; give "
                "--teacher-trajectory DIR, raise --set teacher.epochs, or leave it out"
            )

    def teachers(self, point: GridPoint) -> tuple[TeacherSpec, ...]:
        return () if self.config.teachers == config.NONE else super().teachers(point)

    def images_from(self, point: GridPoint) -> RDED:
        return RDED.for_dataset(point.dataset, **self.config.images.model_dump(exclude_unset=True))

    def distills(self, point: GridPoint) -> bool:
        return self.config.image_update

    def needs(self, artifact: Artifact, point: GridPoint) -> Sequence[Artifact]:
        """Make images with the projector, whose features the image update follows."""
        return ("labels",) if artifact == "images" else ()

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        """Share the projector, which is made from real images, among all IPC of one stage."""
        if artifact == "images":
            return super().depends_on(artifact, point)
        clip = self.config.clip or point.dataset.clip
        return {**self.config.stage_fields(point.ipc), "clip": clip_identity(clip), "seed": point.seed}

    def preflight(self, point: GridPoint) -> None:
        if (clip := self.config.clip or point.dataset.clip) != ICON_CLIP:
            from bench.kit.clip.weights import check

            check(clip)

    def label_size(self, point: GridPoint) -> LabelSize | None:
        from methods.hello.projector import label_size

        return label_size(self.config, self.config.clip or point.dataset.clip, point.dataset.classes)

    def cost(self, point: GridPoint) -> MethodCost:
        clip = (self.config.clip or point.dataset.clip).partition(":")[0].partition("@")[0]
        seen = self.config.epochs * point.dataset.train_images
        shown = 2 * self.config.update_steps * point.ipc * point.dataset.classes  # sharp and blurred
        update = network_hours(shown, (clip,), training=True) if self.config.image_update else 0.0
        label = network_hours(seen, (clip,), training=True)
        return MethodCost(distill=update, label=label, label_networks=(clip,))

    def distill(self, task: Task) -> Iterator[ImageBlock]:
        from methods.hello.image_update import update
        from methods.hello.projector import ProjectorLabels

        assert task.images is not None and isinstance(task.labels, ProjectorLabels)
        size, (pixels, labels) = self.config.update_batch, (task.images.pixels, task.images.labels)
        for first in task.blocks(range(0, len(labels), size), independent=True):
            chunk = slice(first, first + size)
            yield ImageBlock(update(pixels[chunk], task.labels.projector, self.config, task), labels[chunk])

    def label_model(self, task: Task) -> ProjectorLabels:
        from methods.hello.projector import ProjectorLabels, stored_tensors
        from methods.hello.train import train_projector

        clip = self.config.clip or task.dataset.clip
        projector, base = train_projector(task, self.config, clip)
        tensors = stored_tensors(projector, self.config)
        return ProjectorLabels(clip, base, self.config, tensors, task.device, task.data.names)
