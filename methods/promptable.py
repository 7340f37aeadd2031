"""Soft masks for promptable segmentation: real scenes with prompts, labelled by a teacher that answers prompts.

HeLlO's supplement (arXiv 2408.08201, B.4) carries its lightening over to SA-1B with SAM-B as the teacher. Here the
teacher is a small encoder–decoder that is trained first (`prepare`), or SAM-B from a file. Its answers to every view
are what others would store; :mod:`methods.promptable_lora` is what stands in for them.

The images are random real ones, `random_real`'s, as the question is what the labels weigh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from bench.api import BaseConfig, Distiller, GridPoint, MethodInfo, Task, TeacherSpec, affects
from bench.api.config import Artifact
from bench.api.seeds import seed_for
from bench.errors import UserError
from bench.kit.clip.naming import clip_identity
from methods.random_real import RandomReal

if TYPE_CHECKING:
    from torch import Tensor

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

    # segment-anything's checkpoint of ViT-B (sam_vit_b_01ec64.pth): then nothing is trained
    file: Annotated[str | None, affects()] = None
    arch: Annotated[str, affects("prepared")] = "promptable-w24"
    seed: Annotated[int, affects("prepared")] = 0
    training: Annotated[MaskTraining, affects("prepared")] = MaskTraining()

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: str | None) -> str | None:
        """A worker may start in another folder."""
        return None if file is None else str(Path(file).absolute())


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

    def check(self, point: GridPoint) -> None:
        if not point.dataset.masks:
            raise UserError(f"{self.info.name} needs prompts and masks, which {point.dataset.name} has not; expected "
                            "a data set like icon-scenes")  # fmt: skip
        if self.config.file is not None and not Path(self.config.file).is_file():
            raise UserError(f"promptable.file {self.config.file} is no file; expected segment-anything's checkpoint of "
                            "ViT-B (sam_vit_b_01ec64.pth)")  # fmt: skip

    def teachers(self, point: GridPoint) -> tuple[TeacherSpec, ...]:
        """None that classifies."""
        return ()

    def images_from(self, point: GridPoint) -> RandomReal:
        return RandomReal()

    def needs(self, artifact: Artifact, point: GridPoint) -> Sequence[Artifact]:
        return ("prepared",) if artifact == "labels" else ()

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        """The teacher is one for all seeds and sizes of sets; a file is known by what it holds."""
        file = self.config.file
        return {"teacher": clip_identity(f"sam:{file}")} if file is not None and artifact == "prepared" else {}

    def prepare(self, task: Task) -> Mapping[str, Tensor]:
        from methods.segmentation.teacher import take_over, train_teacher

        if self.config.file is not None:
            return take_over(Path(self.config.file))
        return train_teacher(
            self.config.arch, self.config.training, task, seed_for("promptable-teacher", self.config.seed)
        )

    def label_model(self, task: Task) -> TeacherMasks:
        from methods.segmentation.teacher import TeacherMasks

        return TeacherMasks.of(self.config.arch if self.config.file is None else None, task)
