"""HeLlO's settings: the paper's values as defaults, our readings where the paper is silent, sizes for a CPU.

No code of HeLlO is public. A line marked "assumed" is our reading of arXiv 2408.08201 where it says nothing.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bench.api import BaseConfig, affects
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

BY_IPC, LAST = "by-ipc", "last"  # of the teachers, beside the names of stages
Convention = Literal["loralib", "peft", "flattened"]
Layers = Literal["3x3", "3x3-blocks", "all", "no-downsample", "no-stem", "blocks", "layers-3-4"]


class Stage(BaseConfig):
    """A stretch of the teacher's trajectory, whose checkpoints are the weak teachers of sets up to an IPC."""

    up_to_ipc: int | None = Field(ge=1)  # None: any
    share: tuple[float, float]  # from and to, as fractions of the kept checkpoints

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.share[0] < self.share[1] <= 1:
            raise ValueError(f"share {self.share} is not (from, to) with 0 <= from < to <= 1")
        return self

    def of(self, epochs: tuple[int, ...]) -> tuple[int, ...]:
        """The kept epochs in this stretch, at least one: of nine, (0, 1/2) takes the first five."""
        first, last = (round(edge * len(epochs), 6) for edge in self.share)  # 2/3 of 9 is 6, not 6.000…1
        return epochs[math.floor(first) : math.ceil(last)]


# assumed: the paper takes "earlier checkpoints" for small IPC and gives no epochs
STAGES = {
    "early": Stage(up_to_ipc=5, share=(0, 1 / 2)),
    "all": Stage(up_to_ipc=20, share=(0, 1)),
    "late": Stage(up_to_ipc=None, share=(2 / 3, 1)),
}


class Config(BaseConfig):
    """What can be chosen. Defaults are the paper's for ImageNet-1K, or assumed as noted."""

    # -- the projector: what must be known to build it again
    templates: Annotated[tuple[str, ...], affects("labels")] = TEMPLATES
    adapt: Annotated[Literal["lora", "head"], affects("labels")] = (
        "lora"  # "head": the tower stays as it is (Table 3, linear probe)
    )
    layers: Annotated[Layers, affects("labels")] = (
        "3x3"  # assumed, with the next two: gives the paper's .8, .6, 1.5 M (M = 2^20)
    )
    convention: Annotated[Convention, affects("labels")] = "loralib"
    attention_pool: Annotated[bool, affects("labels")] = False
    conv_rank: Annotated[int, affects("labels"), Field(ge=1)] = 8
    alpha: Annotated[float | None, affects("labels")] = (
        None  # the update is alpha / rank * B A; None: alpha = rank (assumed)
    )
    init: Annotated[Literal["text", "random"], affects("labels")] = "text"
    # assumed: the mean text embedding is taken out of the head's start. The cosines of one image with all classes
    # share a large offset, which softmax ignores but the MSE to a teacher's centred logits does not: trained to
    # remove it, the features collapse (10 % on digits where the centred head reaches 96 %)
    centre: Annotated[bool, affects("labels")] = True
    head: Annotated[Literal["low-rank", "full"], affects("labels")] = "low-rank"  # "full": trained and stored whole
    head_rank: Annotated[int | None, affects("labels"), Field(ge=1)] = None  # None: 64 up to 100 classes, 128 above
    features: Annotated[Literal["normalised", "raw"], affects("labels")] = (
        "normalised"  # assumed; "raw": Eq. 5 to the letter, no scale
    )
    learn_scale: Annotated[bool, affects("labels")] = False  # else the public CLIP's exp(logit_scale), 100 for OpenAI's

    # -- what is stored of it
    store_dtype: Annotated[Literal["float32", "float16"], affects("labels")] = "float32"

    # -- its training
    clip: Annotated[str | None, affects()] = None  # None: the data set's
    epochs: Annotated[int, affects("labels"), Field(ge=1)] = 20
    batch_size: Annotated[int, affects("labels"), Field(ge=1)] = 256
    lr: Annotated[float, affects("labels"), Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, affects("labels"), Field(ge=0)] = 0.01  # assumed: torch's AdamW default
    schedule: Annotated[Literal["cosine", "constant"], affects("labels")] = "cosine"  # assumed
    ce_weight: Annotated[float, affects("labels"), Field(ge=0)] = 0.1
    min_scale: Annotated[float | None, affects("labels"), Field(gt=0, le=1)] = (
        None  # of the random resized crops; None: the teacher's
    )
    stages: Annotated[dict[str, Stage], affects()] = STAGES
    # whose logits it learns: "by-ipc", the weak teachers of the stage that the IPC falls into; a stage's name, those of
    # this one whatever the IPC; "last", the trajectory's last checkpoint alone (Table 3, linear probe)
    teachers: Annotated[str, affects()] = BY_IPC

    # -- the images
    images: Annotated[RDED.Config, affects()] = RDED.Config()
    image_update: bool = False
    update_lr: float = Field(0.01, gt=0)
    update_steps: int = Field(300, ge=1)
    update_factor: int = Field(2, ge=2)  # assumed: how far "down" goes before "up"
    update_batch: Annotated[int, affects("speed"), Field(ge=1)] = 100  # images updated at once

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not any(stage.up_to_ipc is None for stage in self.stages.values()):
            raise ValueError("stages: one of them must have no up_to_ipc, for the largest sets")
        if taken := {BY_IPC, LAST} & self.stages.keys():
            raise ValueError(f"stages: {min(taken)} means something else; choose another name")
        if self.teachers not in (BY_IPC, LAST, *self.stages):
            raise ValueError(f"teachers: expected {', '.join((BY_IPC, LAST, *self.stages))}, not {self.teachers}")
        if self.learn_scale and self.features == "raw":
            raise ValueError("learn_scale: raw features have no scale to learn")
        return self

    def stage(self, ipc: int) -> str:
        """The name of the stage for sets of ``ipc`` images a class: the one that ``teachers`` names, or the one with
        the nearest bound."""
        if self.teachers != BY_IPC:
            return self.teachers
        bounds = {name: stage.up_to_ipc or math.inf for name, stage in self.stages.items()}
        return min((name for name in bounds if ipc <= bounds[name]), key=lambda name: bounds[name])

    def checkpoints(self, ipc: int, epochs: tuple[int, ...]) -> tuple[int, ...]:
        """Those of the kept ``epochs`` whose networks are the teachers for sets of ``ipc`` images a class."""
        name = self.stage(ipc)
        return epochs[-1:] if name == LAST else self.stages[name].of(epochs)

    def rank(self, classes: int, width: int) -> int:
        """The rank of the head's update on ``width`` features (64 for ImageNet-100, 128 for ImageNet-1K)."""
        return min(self.head_rank or (64 if classes <= 100 else 128), classes, width)

    def structure(self) -> dict[str, Any]:
        """The fields that must be known to build the projector again, all of them, as plain JSON values."""
        return self.model_dump(mode="json", include=_STRUCTURE)

    def stage_fields(self, ipc: int) -> dict[str, Any]:
        """What decides which weak teachers there are for sets of ``ipc`` images per class."""
        name = self.stage(ipc)
        if name != LAST and (name not in STAGES or self.stages[name].share != STAGES[name].share):
            return {"stage": name, "share": list(self.stages[name].share)}
        return {"stage": name}


_STRUCTURE = {
    "templates", "adapt", "layers", "convention", "attention_pool", "conv_rank", "alpha", "init", "centre",
    "head", "head_rank", "features", "learn_scale", "store_dtype",
}  # fmt: skip


# Not from the paper: for data sets that are run on a CPU. Few classes, small images and a CLIP to match need
# fewer epochs, and crops as small as ImageNet's would leave nothing of a digit.
SMALL_SETS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 6, "batch_size": 64, "lr": 3e-3, "min_scale": 0.5},
    "mnist": {"epochs": 2, "lr": 2e-3, "min_scale": 0.5},
    "fashion-mnist": {"epochs": 1, "batch_size": 128, "lr": 3e-3, "min_scale": 0.5},
    "icons-100": {"epochs": 10, "lr": 2e-3, "min_scale": 0.5},
}
