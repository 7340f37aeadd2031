"""Settings of teacher and projector of masks, and names that the package shares; torch-free."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from bench.api import BaseConfig, DatasetInfo, affects
from bench.errors import UserError

TASK = "segmentation"
POINTS, MASKS = "points", "masks"  # extras of images: prompts as (row, column), and exact masks
SHRINKS = 4  # a mask of logits has a quarter of the image's resolution, as SAM's (arXiv 2304.02643)


class MaskTraining(BaseConfig):
    """Training of a network on masks of the training split; the values are ours, sized for two CPU cores."""

    epochs: int = Field(12, ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    min_scale: float = Field(0.7, gt=0, le=1)  # smaller crops would often lose the click
    dice_weight: float = Field(1.0, ge=0)


class TeacherConfig(BaseConfig):
    """The teacher: a network that is trained, or SAM-B."""

    # segment-anything's checkpoint of ViT-B (sam_vit_b_01ec64.pth): then nothing is trained
    file: Annotated[str | None, affects()] = None
    arch: Annotated[str, affects("prepared")] = "promptable-w24"
    seed: Annotated[int, affects("prepared")] = 0
    training: Annotated[MaskTraining, affects("prepared")] = MaskTraining()

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: str | None) -> str | None:
        """Make the path absolute: a worker may start in another folder."""
        return None if file is None else str(Path(file).absolute())


class ProjectorConfig(BaseConfig):
    """The projector: HeLlO's low-rank adaptation of a public CLIP, and the light decoder."""

    teacher: Annotated[TeacherConfig, affects()] = TeacherConfig()
    clip: Annotated[str | None, affects()] = None  # None: the data set's
    layers: Annotated[
        Literal["3x3", "3x3-blocks", "all", "no-downsample", "no-stem", "blocks", "layers-3-4"], affects("labels")
    ] = "3x3"
    convention: Annotated[Literal["loralib", "peft", "flattened"], affects("labels")] = "loralib"
    conv_rank: Annotated[int, affects("labels")] = Field(8, ge=1)  # HeLlO's
    decoder_width: Annotated[int, affects("labels")] = Field(16, ge=1)
    training: Annotated[MaskTraining, affects("labels")] = MaskTraining(epochs=8)

    def structure(self) -> dict[str, Any]:
        """Return the fields that must be known to build the projector again, all of them, as plain JSON values."""
        return self.model_dump(mode="json", exclude={"teacher", "clip", "training"})


def check_dataset(name: str, dataset: DatasetInfo) -> None:
    """Raise a UserError for a data set without the prompts and masks that ``name`` needs."""
    if dataset.task != TASK:
        raise UserError(f"{name} needs prompts and masks, which {dataset.name} has not; expected a data set like "
                        "icon-scenes")  # fmt: skip


def check_student(name: str) -> int:
    """Return the width of a promptable student; raise a UserError for other names."""
    if (match := re.fullmatch(r"promptable-w([1-9]\d*)", name)) is None:
        raise UserError(f"student {name!r} answers with classes, not with a mask; expected promptable-wN, e.g. "
                        "promptable-w16")  # fmt: skip
    return int(match[1])
