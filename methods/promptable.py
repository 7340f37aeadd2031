"""Soft masks for promptable segmentation: real scenes with prompts, labelled by a teacher that answers prompts.

HeLlO's supplement (arXiv 2408.08201, B.4) carries its lightening over to SA-1B with SAM-B as the teacher. Here the
teacher is a small encoder–decoder that is trained first (`prepare`), or SAM-B from a file. Its answers to every view
are what others would store; :mod:`methods.promptable_lora` is what stands in for them.

The images are random real ones, `random_real`'s, as the question is what the labels weigh.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from bench.api import BaseConfig, CellSpec, Distiller, GridPoint, Images, MethodInfo, Task, TeacherSpec
from bench.errors import UserError
from bench.kit.clip.naming import clip_identity
from bench.kit.seeds import seed_for
from methods.random_real import RandomReal

if TYPE_CHECKING:
    from methods.segmentation.teacher import TeacherMasks


class MaskTraining(BaseConfig):
    """How a network learns masks from the training split; the values are ours, sized for two CPU cores."""

    epochs: int = Field(12, ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    min_scale: float = Field(0.7, gt=0, le=1)  # smaller crops would often lose the click
    dice_weight: float = Field(1.0, ge=0)


class TeacherConfig(BaseConfig):
    """The teacher: one that is trained, or SAM-B."""

    file: str | None = None  # segment-anything's checkpoint of ViT-B (sam_vit_b_01ec64.pth): then nothing is trained
    arch: str = "promptable-w24"
    seed: int = 0
    training: MaskTraining = MaskTraining()

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: str | None) -> str | None:
        """A worker may start in another folder."""
        return None if file is None else str(Path(file).absolute())

    def identity(self) -> dict[str, Any]:
        """What decides the teacher, as fields of a recipe: of a file what it holds, not where it lies."""
        if self.file is not None:
            return {"file": clip_identity(f"sam:{self.file}")}
        return self.non_default_fields()


class Promptable(Distiller):
    """Images: random real scenes with prompts and masks. Labels: the teacher's masks, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="promptable",
        title="Promptable teacher",
        version=1,
        paper="arXiv 2408.08201, B.4",
        labels="teacher",
        masks=True,
        needs="a data set with masks",
    )
    Config = TeacherConfig
    label_kinds: ClassVar[dict[str, str]] = {"mask-teacher": "methods.segmentation.teacher:TeacherMasks"}

    config: TeacherConfig

    def check(self, setting: GridPoint) -> None:
        if not setting.dataset.masks:
            raise UserError(f"{self.info.name} needs prompts and masks, which {setting.dataset.name} has not; expected "
                            "a data set like icon-scenes")  # fmt: skip
        if self.config.file is not None and not Path(self.config.file).is_file():
            raise UserError(f"promptable.file {self.config.file} is no file; expected segment-anything's checkpoint of "
                            "ViT-B (sam_vit_b_01ec64.pth)")  # fmt: skip

    def teachers(self, setting: GridPoint) -> tuple[TeacherSpec, ...]:
        """None that classifies."""
        return ()

    def prepare_recipe(self, setting: GridPoint) -> CellSpec:
        """The teacher, one for all seeds and sizes of sets."""
        return CellSpec("promptable", self.info.version, self.config.identity(), self.config.non_default_fields())

    def image_recipe(self, setting: GridPoint) -> CellSpec:
        """That of random real images, so that they are one cell."""
        return replace(RandomReal().image_recipe(setting), needs_prepared=False)

    def label_recipe(self, setting: GridPoint) -> CellSpec:
        return replace(self.prepare_recipe(setting), needs_prepared=True)

    def prepare(self, task: Task, folder: Path) -> None:
        from methods.segmentation.teacher import TeacherMasks, take_over, train_teacher

        if self.config.file is not None:
            network, model = take_over(Path(self.config.file), task)
        else:
            seed = seed_for("promptable-teacher", self.config.seed)
            network, model = train_teacher(self.config.arch, self.config.training, task, seed)
        TeacherMasks(network, model).save(folder)

    def distill(self, task: Task) -> Images:
        return RandomReal().distill(task)

    def label(self, task: Task, images: Images | None) -> TeacherMasks:
        from methods.segmentation.teacher import TeacherMasks

        assert task.prepared is not None
        return TeacherMasks.load(task.prepared, task.device)
