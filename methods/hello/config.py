"""HeLlO's settings: the paper's values as defaults, our readings where the paper is silent, sizes for a CPU.

No code of HeLlO is public. A line marked "assumed" is our reading of arXiv 2408.08201 where it says nothing.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bench.api import BaseConfig, affects
from bench.api.architectures import spread
from bench.api.config import Artifact
from methods.rded import RDED

# the subset of CLIP's prompts that the paper uses (openai/CLIP, Prompt_Engineering_for_ImageNet.ipynb)
TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

BY_IPC, LAST, NONE = "by-ipc", "last", "none"  # of the teachers, beside the names of stages
Convention = Literal["loralib", "peft", "flattened"]
Layers = Literal["3x3", "3x3-blocks", "all", "no-downsample", "no-stem", "blocks", "layers-3-4"]


class Stage(BaseConfig):
    """A stretch of the teacher's training, from which the weak teachers of sets up to an IPC are taken evenly."""

    up_to_ipc: int | None = Field(ge=1)  # None: any
    share: tuple[float, float]  # from and to, as fractions of the training

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.share[0] < self.share[1] <= 1:
            raise ValueError(f"share {self.share} is not (from, to) with 0 <= from < to <= 1")
        return self


# assumed: the paper takes "the very early stage" for small IPC and gives no epochs; of 90: 5, 10, …, 45; 10, 20, …, 90;
# 63, 67, …, 90
STAGES = {
    "early": Stage(up_to_ipc=5, share=(0, 1 / 2)),
    "all": Stage(up_to_ipc=20, share=(0, 1)),
    "late": Stage(up_to_ipc=None, share=(2 / 3, 1)),
}


class ProjectorConfig(BaseConfig):
    """All that is needed to build a projector again. Defaults are the paper's for ImageNet-1K, or assumed as noted."""

    unmarked: ClassVar[Artifact] = "labels"

    templates: tuple[str, ...] = TEMPLATES
    adapt: Literal["lora", "head"] = "lora"  # "head": the tower stays as it is (Table 3, linear probe)
    layers: Layers = "3x3"  # assumed, with the next two: gives the paper's .8, .6, 1.5 M (M = 2^20)
    convention: Convention = "loralib"
    attention_pool: bool = False
    conv_rank: int = Field(8, ge=1)
    alpha: float | None = None  # the update is alpha / rank * B A; None: alpha = rank (assumed)
    init: Literal["text", "random"] = "text"
    # assumed: the mean text embedding is taken out of the head's start. The cosines of one image with all classes
    # share a large offset, which softmax ignores but the MSE to a teacher's centred logits does not: trained to
    # remove it, the features collapse (10 % on digits where the centred head reaches 96 %)
    centre: bool = True
    head: Literal["low-rank", "full"] = "low-rank"  # "full": trained and stored whole
    head_rank: int | None = Field(None, ge=1)  # None: 64 up to 100 classes, 128 above
    features: Literal["normalised", "raw"] = "normalised"  # assumed; "raw": Eq. 5 to the letter, no scale
    learn_scale: bool = False  # else the public CLIP's exp(logit_scale), 100 for OpenAI's
    store_dtype: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _scaled(self) -> Self:
        if self.learn_scale and self.features == "raw":
            raise ValueError("learn_scale: raw features have no scale to learn")
        return self

    def rank(self, classes: int, width: int) -> int:
        """Return the rank of the head's update on ``width`` features (64 for ImageNet-100, 128 for ImageNet-1K)."""
        return min(self.head_rank or (64 if classes <= 100 else 128), classes, width)

    def structure(self) -> dict[str, Any]:
        """Return these fields, all of them, as plain JSON values."""
        return self.model_dump(mode="json", include=set(ProjectorConfig.model_fields))


class Config(ProjectorConfig):
    """All that can be chosen: the projector, its training, and the images."""

    # the training
    clip: Annotated[str | None, affects()] = None  # None: the data set's
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(256, ge=1)
    lr: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)  # assumed: torch's AdamW default
    schedule: Literal["cosine", "constant"] = "cosine"  # assumed
    ce_weight: float = Field(0.1, ge=0)
    min_scale: float | None = Field(None, gt=0, le=1)  # of the random resized crops; None: the teacher's
    stages: Annotated[dict[str, Stage], affects()] = STAGES
    # whose logits it learns: "by-ipc", the weak teachers of the stage that the IPC falls into; a stage's name, those of
    # this one whatever the IPC; "last", the trajectory's last checkpoint alone; "none", hard labels by cross entropy
    # alone (Table 3, linear probe)
    teachers: Annotated[str, affects()] = BY_IPC
    weak_teachers: int = Field(9, ge=1)  # of each stage ("model pool size 9", supplement)
    mse: Literal["mean", "sum"] = "mean"  # over the classes; assumed

    # the images
    images: Annotated[RDED.Config, affects()] = RDED.Config()
    image_update: Annotated[bool, affects("images")] = False
    update_lr: Annotated[float, affects("images"), Field(gt=0)] = 0.01
    update_steps: Annotated[int, affects("images"), Field(ge=1)] = 300
    update_factor: Annotated[int, affects("images"), Field(ge=2)] = 2  # assumed: how far "down" goes before "up"
    update_batch: Annotated[int, affects("speed"), Field(ge=1)] = 100  # images updated at once

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not any(stage.up_to_ipc is None for stage in self.stages.values()):
            raise ValueError("stages: one of them must have no up_to_ipc, for the largest sets")
        if taken := {BY_IPC, LAST, NONE} & self.stages.keys():
            raise ValueError(f"stages: {min(taken)} means something else; choose another name")
        if self.teachers not in (known := (BY_IPC, LAST, NONE, *self.stages)):
            raise ValueError(f"teachers: expected {', '.join(known)}, not {self.teachers}")
        return self

    def stage(self, ipc: int) -> str:
        """Return the name of the stage for sets of ``ipc`` images per class.

        It is the one that ``teachers`` names, or the one with the nearest bound.
        """
        if self.teachers != BY_IPC:
            return self.teachers
        bounds = {name: stage.up_to_ipc or math.inf for name, stage in self.stages.items()}
        return min((name for name in bounds if ipc <= bounds[name]), key=lambda name: bounds[name])

    def checkpoints(self, ipc: int, epochs: tuple[int, ...]) -> tuple[int, ...]:
        """Pick those of the kept ``epochs`` whose networks are the teachers for sets of ``ipc`` images per class."""
        name = self.stage(ipc)
        if name in (LAST, NONE):
            return epochs[-1:] if name == LAST else ()
        return spread(epochs, self.stages[name].share, self.weak_teachers)

    def stage_fields(self, ipc: int) -> dict[str, Any]:
        """Return what decides which weak teachers there are for sets of ``ipc`` images per class."""
        name = self.stage(ipc)
        if name not in (LAST, NONE) and (name not in STAGES or self.stages[name].share != STAGES[name].share):
            return {"stage": name, "share": list(self.stages[name].share)}
        return {"stage": name}


# Not from the paper: for data sets that are run on a CPU, chosen on held-out training images (docs/sweeps.md). Few
# classes, small images and a CLIP to match need fewer epochs, but as many steps: batches of 64, not 256. The last
# checkpoint teaches alone, at every IPC: the early ones of a training this short are wrong about a third of the images.
# Crops as small as ImageNet's would leave nothing of a digit.
_SMALL: dict[str, Any] = {"teachers": LAST, "batch_size": 64, "lr": 0.01, "min_scale": 0.5}
SMALL_SETS: dict[str, dict[str, Any]] = {
    "digits": {**_SMALL, "epochs": 12},
    "mnist": {**_SMALL, "epochs": 2},  # as Fashion-MNIST: not tried
    "fashion-mnist": {**_SMALL, "epochs": 1},
    "icons-100": {**_SMALL, "epochs": 10},
}
