"""G_VBSM's settings: the authors' values as defaults and for small images, sizes for a CPU.

From shaoshitong/G_VBSM_Dataset_Condensation: defaults are ``Branch_full_ImageNet_1k/recover/recover.sh``; the others
are those of the branches named below. A line marked "assumed" is ours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bench.api import BaseConfig, DatasetInfo, TeacherSpec, affects, architectures

IMAGENET_POOL = ("resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5")
SMALL_POOL = ("resnet18-small", "convnet3-in", "mobilenetv2-small", "wrn16-2", "shufflenetv2-small")
# assumed, for two cores: the same families, narrower where they allow it; the first is those data sets' own teacher
NARROW_POOL = ("resnet10-small-w16", "convnet3-w32-in", "mobilenetv2-small", "wrn16-1", "shufflenetv2-small")


class Squeeze(BaseConfig):
    """The training of the pool's networks; see :class:`bench.api.TeacherSpec`."""

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(64, ge=1)
    lr: float = Field(0.05, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["step", "cosine", "constant"] = "constant"
    augment: str = "shift-flip"


class Config(BaseConfig):
    """All that can be chosen."""

    pool: Annotated[tuple[str, ...], affects(), Field(min_length=1)] = IMAGENET_POOL
    squeeze: Annotated[Squeeze | None, affects()] = None  # None: as the data set's default teacher is trained
    squeeze_lr: Annotated[dict[str, float], affects()] = Field(default={})  # architecture -> its own learning rate

    # -- the statistics of the real data
    patch: Annotated[int, affects("prepared"), Field(ge=1)] = 16  # pixels a side of the patches of activations
    statistics_batch: Annotated[int, affects("prepared"), Field(ge=1)] = 256

    # -- the views: of the real data too, but for the roll
    crop: Annotated[Literal["rrc", "shift", "none"], affects("prepared")] = "rrc"
    min_scale: Annotated[float, affects("prepared"), Field(gt=0, le=1)] = 0.08
    pad: Annotated[int, affects("prepared"), Field(ge=0)] = 4
    flip: Annotated[bool, affects("prepared")] = True
    roll: int = Field(32, ge=0)  # pixels at most, in either direction
    antialias: bool = False  # of the crop of synthetic images: torchvision had none for tensors at the time

    # -- the recovery
    backbone: Literal["round-robin", "random"] = "round-robin"  # the code's and the paper's
    iterations: int = Field(4000, ge=1)
    batch_size: int = Field(80, ge=1)
    micro_batches: int = Field(2, ge=1)  # parts of it with crops and statistics of their own: the authors' GPUs
    blocks: int = Field(1, ge=1)  # of IPC / blocks images of every class, one after the other
    groups: Annotated[int, affects("speed"), Field(ge=1)] = 1  # batches optimised at once where none needs another
    lr: float = Field(0.1, gt=0)
    r_loss: float = Field(0.01, ge=0)  # weight of the matched statistics
    first_multiplier: float = Field(10.0, ge=0)  # on the first layer in module order, a convolution
    nuc_norm: float = Field(1.0, ge=0)  # weight of data densification
    tau: float = Field(4.0, gt=0)  # its temperature
    alpha: float = Field(0.4, ge=0, lt=1)  # of the running statistics
    beta_dr: float = Field(0.0, ge=0, lt=1)  # probability that a convolution is not matched in an iteration
    # The running statistics start at zero, because a branch for the first call compares the type of a float with
    # int, and batches of images inherit them from the one before. (Where the real data's statistics are computed in
    # the same run, those of batch norms start from real ones; here as in the authors' runs from saved statistics.)
    ema_init: Literal["zero", "first"] = "zero"
    ema_reset: Literal["never", "per_batch"] = "never"

    # -- the labels
    norm_weighting: Annotated[bool, affects("labels")] = True  # logits are brought to one norm before they are averaged

    @model_validator(mode="after")
    def _known(self) -> Self:
        for arch in self.pool:
            architectures.check(arch)
        if len(set(self.pool)) < len(self.pool):
            raise ValueError(f"pool {self.pool} holds an architecture twice")
        if self.batch_size % self.micro_batches:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batches {self.micro_batches}")
        return self

    def pool_specs(self, teacher: TeacherSpec) -> tuple[TeacherSpec, ...]:
        """Return how each network of the pool is trained; ``teacher`` is the data set's default."""
        specs = []
        for arch in self.pool:
            recipe = self.squeeze.model_dump() if self.squeeze is not None else {}
            if arch in self.squeeze_lr:
                recipe["lr"] = self.squeeze_lr[arch]
            specs.append(teacher.model_copy(update={"arch": arch, **recipe}))
        return tuple(specs)

    def independent(self) -> bool:
        """Return whether no batch of images builds on the one before, so that several can be optimised at once."""
        in_turn = self.backbone == "round-robin" and self.iterations % len(self.pool) == 0
        return self.ema_reset == "per_batch" and in_turn


# Branch_CIFAR_100, Branch_CIFAR_10 (on one GPU): recover/*.sh, squeeze/train.py, relabel/generate_soft_label_with_db.py
_CIFAR: dict[str, Any] = {
    "pool": SMALL_POOL, "squeeze": Squeeze(), "patch": 4, "statistics_batch": 64, "crop": "shift",
    "batch_size": 100, "lr": 0.05, "alpha": 0.8, "beta_dr": 0.4, "norm_weighting": False,
}  # fmt: skip
# Branch_Tiny_ImageNet; its RandomCrop pads by 8 in training too, where ours pads by 4
_TINY: dict[str, Any] = {
    **_CIFAR, "pad": 8,
    "squeeze": Squeeze(batch_size=128, lr=0.1, schedule="cosine"),
}  # fmt: skip
# Not the authors': for data sets that are run on a CPU. Few steps want larger ones, and crops or rolls as large as
# CIFAR's would leave nothing of a digit. MobileNet's last layers see one pixel of 16, and only 64 numbers a batch
# norm: at the teacher's learning rate it stays at 74 %.
_NARROW: dict[str, Any] = {
    **_CIFAR, "pool": NARROW_POOL, "squeeze": None, "squeeze_lr": {"mobilenetv2-small": 0.01}, "crop": "rrc",
    "roll": 2, "iterations": 400, "lr": 0.1, "micro_batches": 1,
}  # fmt: skip

NAMED: dict[str, dict[str, Any]] = {
    "cifar10": {**_CIFAR, "squeeze": Squeeze(epochs=5), "micro_batches": 1},
    "cifar100": _CIFAR,
    "tiny-imagenet": {**_TINY, "blocks": 10},
    "digits": _NARROW,
    "fashion-mnist": _NARROW,
    "icons-100": {**_NARROW, "pool": NARROW_POOL[:3], "roll": 4, "iterations": 201},
}


def settings_for(dataset: DatasetInfo) -> dict[str, Any]:
    """Return the settings on a data set: its own, or (assumed) those of the authors' set of the nearest image size."""
    if dataset.name in NAMED:
        settings = NAMED[dataset.name]
    elif dataset.image_size > 64:
        settings = {}
    elif dataset.image_size > 32:
        settings = _TINY
    else:
        settings = _CIFAR if dataset.image_size > 16 else _NARROW
    recipe: Squeeze | None = settings.get("squeeze")
    if recipe is None:  # crops are those of the teacher's training
        return {**settings, "min_scale": dataset.teacher.min_scale, "flip": dataset.flip}
    if not dataset.flip:
        recipe = recipe.model_copy(update={"augment": recipe.augment.removesuffix("-flip")})
    return {**settings, "squeeze": recipe, "flip": dataset.flip}
