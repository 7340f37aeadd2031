"""The plug-in: which images and labels HeLlO asks for, and how they are made.

HeLlO (arXiv 2408.08201): a public CLIP's image tower with low-rank updates on its convolutions and on a
linear head that starts from the class names' text embeddings, trained on the real set to give the mean logits
of weak teachers. It labels any view online; stored are the low-rank matrices alone. The images are RDED's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api import (
    CellSpec,
    DatasetInfo,
    Distiller,
    GridPoint,
    Images,
    LabelSize,
    MethodCost,
    MethodInfo,
    StudentCost,
    Task,
)  # fmt: skip
from bench.api.cost import network_hours
from bench.kit.clip.naming import clip_identity
from methods.hello import config, parameters
from methods.rded import RDED

if TYPE_CHECKING:
    from pathlib import Path

    from methods.hello.projector import ProjectorLabels


class HeLlO(Distiller):
    """Images: RDED's, updated only on request. Labels: the projector, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="hello",
        title="HeLlO",
        version=1,
        paper="arXiv 2408.08201",
        labels="projector",
        needs="a public CLIP",
        shared=("label",),
        student_cost=StudentCost(batch_size=100, seconds=0.21, mebibytes=4004),  # supplement, Table 6, one A5000
    )
    Config = config.Config
    label_kinds: ClassVar[dict[str, str]] = {"projector": "methods.hello.projector:ProjectorLabels"}

    config: config.Config

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        return cls(config.Config(**{**config.SMALL_SETS.get(dataset.name, {}), **overrides}))

    def check(self, setting: GridPoint) -> None:
        self._rded(setting).check(setting)

    def prepare_recipe(self, setting: GridPoint) -> CellSpec:
        return self._rded(setting).prepare_recipe(setting)

    def image_recipe(self, setting: GridPoint) -> CellSpec:
        """RDED's own recipe, so that its images are computed once; with the image update, one of our own."""
        start = self._rded(setting).image_recipe(setting)
        if not self.config.image_update:
            return start
        fields = {**self._label_fields(setting), **self.config.update_fields(), "start": dict(start.fields)}
        return CellSpec(
            self.info.name, self.info.version, {**fields, "ipc": setting.ipc}, self.config.non_default_fields()
        )

    def label_recipe(self, setting: GridPoint) -> CellSpec:
        """The projector is made from real images and shared by all IPC of one stage."""
        return CellSpec(
            self.info.name, self.info.version, self._label_fields(setting), self.config.non_default_fields()
        )

    def label_size(self, setting: GridPoint) -> LabelSize | None:
        return parameters.label_size(self.config, self.config.clip or setting.dataset.clip, setting.dataset.classes)

    def cost(self, setting: GridPoint) -> MethodCost:
        clip = (self.config.clip or setting.dataset.clip).partition(":")[0].partition("@")[0]
        seen = self.config.epochs * setting.dataset.train_images
        return MethodCost(label=network_hours(seen, (clip,), training=True), label_networks=(clip,))

    def prepare(self, task: Task, folder: Path) -> None:
        self._rded(task).prepare(task, folder)

    def distill(self, task: Task) -> Images:
        images = self._rded(task).distill(task)
        if not self.config.image_update:
            return images
        from methods.hello.image_update import update

        # The label cell trains the same projector to the same bits, but only after this stage.
        projector = self.label(task, None).projector
        return update(images, projector, self.config, task.work, task.device, task.progress)

    def label(self, task: Task, images: Images | None) -> ProjectorLabels:
        from methods.hello.projector import ProjectorLabels
        from methods.hello.train import train_projector

        clip = self.config.clip or task.dataset.clip
        projector, base = train_projector(task, self.config, clip)
        return ProjectorLabels.of(projector, clip, base, task.data.names, self.config, task.device)

    def _rded(self, setting: GridPoint) -> RDED:
        return RDED.for_dataset(setting.dataset, **self.config.images.model_dump(exclude_unset=True))

    def _label_fields(self, setting: GridPoint) -> dict[str, Any]:
        clip = self.config.clip or setting.dataset.clip
        return {**self.config.label_fields(setting.ipc), "clip": clip_identity(clip), "seed": setting.seed}
