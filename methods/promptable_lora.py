"""HeLlO's lightening for dense labels: a low-rank adapted public CLIP tower with a light mask decoder answers in the
teacher's place, and only what was trained of it is stored (arXiv 2408.08201, supplement B.4).

The supplement gives two sizes and no architecture for masks. Ours: the tower's convolutions are adapted as HeLlO's
projector adapts them; its four stages are brought together at a quarter of the image's resolution; the decoder is the
teacher's own kind (:mod:`bench.kit.segmentation.decoder`). It learns the teacher's masks on the training split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from bench.api import BaseConfig, CellSpec, Distiller, GridPoint, Images, MethodInfo, Task, TeacherSpec
from bench.kit.clip.naming import clip_identity
from methods.promptable import MaskTraining, Promptable, TeacherConfig

if TYPE_CHECKING:
    from pathlib import Path

    from methods.segmentation.projector import ProjectorMasks


class PromptableLoRA(Distiller):
    """Images and teacher: `promptable`'s. Labels: the projector's masks, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="promptable_lora",
        title="Promptable projector",
        version=1,
        paper="arXiv 2408.08201, B.4",
        labels="projector",
        masks=True,
        needs="a data set with masks, a public CLIP with a ResNet tower",
    )
    label_kinds: ClassVar[dict[str, str]] = {"mask-projector": "methods.segmentation.projector:ProjectorMasks"}

    class Config(BaseConfig):
        teacher: TeacherConfig = TeacherConfig()
        clip: str | None = None  # None: the data set's
        layers: Literal["3x3", "3x3-blocks", "all", "no-downsample", "no-stem", "blocks", "layers-3-4"] = "3x3"
        convention: Literal["loralib", "peft", "flattened"] = "loralib"
        conv_rank: int = Field(8, ge=1)  # HeLlO's
        decoder_width: int = Field(16, ge=1)
        training: MaskTraining = MaskTraining(epochs=8)

        def structure(self) -> dict[str, Any]:
            """The fields that must be known to build the projector again, all of them, as plain JSON values."""
            return self.model_dump(mode="json", exclude={"teacher", "clip", "training"})

    config: Config

    def check(self, setting: GridPoint) -> None:
        self._promptable().check(setting)

    def teachers(self, setting: GridPoint) -> tuple[TeacherSpec, ...]:
        return ()

    def prepare_recipe(self, setting: GridPoint) -> CellSpec:
        return self._promptable().prepare_recipe(setting)

    def image_recipe(self, setting: GridPoint) -> CellSpec:
        return self._promptable().image_recipe(setting)

    def label_recipe(self, setting: GridPoint) -> CellSpec:
        """The projector: one for each seed, whatever the size of the set."""
        clip = clip_identity(self.config.clip or setting.dataset.clip)
        own = self.config.model_dump(mode="json", exclude_defaults=True, exclude={"teacher", "clip"})
        fields = {**own, "teacher": self.config.teacher.identity(), "clip": clip, "seed": setting.seed}
        return CellSpec(
            self.info.name, self.info.version, fields, self.config.non_default_fields(), needs_prepared=True
        )

    def prepare(self, task: Task, folder: Path) -> None:
        self._promptable().prepare(task, folder)

    def distill(self, task: Task) -> Images:
        return self._promptable().distill(task)

    def label(self, task: Task, images: Images | None) -> ProjectorMasks:
        from methods.segmentation.projector import train_projector

        clip = self.config.clip or task.dataset.clip
        return train_projector(task, clip, self.config, self._promptable().label(task, images))

    def _promptable(self) -> Promptable:
        return Promptable(self.config.teacher)
