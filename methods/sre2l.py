"""SRe2L (Yin et al., NeurIPS 2023): squeeze, recover, relabel.

A teacher is trained on the real images (squeeze); images are optimised from noise until the teacher is sure of their
class and its batch norms see the statistics of real images (recover); the teacher labels their views (relabel: the
harness's work). Follows the authors' repository (VILA-Lab/SRe2L, ``recover/``); ``curriculum`` is CDA's (same
repository, ``CDA/``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bench.api import BaseConfig, CellSpec, DatasetInfo, Distiller, GridPoint, Images, MethodInfo, Task
from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.kit.recovery import BatchNormInputs, RecoveryViews

# recover_tiny.sh and recover_cifar.sh, whose settings are documented in CDA's appendix
_TINY: dict[str, Any] = {"lr": 0.1, "r_bn": 1.0, "roll": (-4, 4)}
_CIFAR: dict[str, Any] = {"iterations": 1000, "crop": "none", "flip": False, "roll": (0, 4)}
# Not from the paper: sized for a CPU with two cores. Tiny-ImageNet's weight of the batch norms and the crops of the
# teacher's own training suit digits better than CIFAR's settings (students at IPC 10: .89 against .70 of the tests).
# icons-100 has the same, by the look of the images.
_SMALL_SETS: dict[str, dict[str, Any]] = {
    "digits": {"iterations": 400, "r_bn": 1.0, "min_scale": 0.5, "roll": (0, 2)},
    "fashion-mnist": {**_CIFAR, "iterations": 400, "roll": (0, 2)},
    "icons-100": {"iterations": 100, "r_bn": 1.0, "min_scale": 0.35, "roll": (0, 4)},
}


class SRe2L(Distiller):
    """Images: recovered from a teacher's batch norms, one image of each of 100 classes at a time. Labels: the
    teacher's, stored for every view."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="sre2l", title="SRe2L", version=1, paper="arXiv 2306.13092", labels="teacher", stored="fp16",
        label_files="fkd",
        needs="a teacher with batch norms", shared=("distill",),
    )  # fmt: skip

    class Config(BaseConfig):
        # recover.sh, for ImageNet-1K
        iterations: int = Field(4000, ge=1)
        lr: float = Field(0.25, gt=0)
        r_bn: float = Field(0.01, ge=0)
        first_bn: float = Field(10.0, ge=0)  # weight of the first batch norm among the others
        tv: float = Field(0.0, ge=0)
        l2: float = Field(0.0, ge=0)
        # the view, of which a batch has one an iteration
        crop: Literal["rrc", "none"] = "rrc"
        min_scale: float = Field(0.08, gt=0, le=1)
        flip: bool = True
        roll: tuple[int, int] = (0, 32)  # pixels, both ends included
        antialias: bool = False  # torchvision before 0.17, with which the published images were made, had none
        curriculum: float | None = Field(None, gt=0, le=1)  # CDA: 1.0 in the released commands
        group_classes: int = Field(100, ge=1)  # classes a batch, whose statistics are matched together
        groups: int | Literal["auto"] = "auto"  # batches optimised at once; of no effect on the result

        @model_validator(mode="after")
        def _possible(self) -> Self:
            if self.groups != "auto" and self.groups < 1:
                raise ValueError(f"groups {self.groups} is neither 'auto' nor a count from 1 on")
            if self.roll[0] > self.roll[1]:
                raise ValueError(f"roll {self.roll} is not (lowest, highest)")
            return self

        def views(self) -> RecoveryViews:
            """What happens to the images before the teacher sees them."""
            from bench.kit.recovery import RecoveryViews

            return RecoveryViews(**{name: getattr(self, name) for name in _VIEW})

    config: Config

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        """The official settings of ImageNet-1K, Tiny-ImageNet and CIFAR. Assumed, because the authors give none: other
        sets up to 32 px are run as CIFAR, up to 64 px as Tiny-ImageNet, larger ones as ImageNet-1K."""
        settings: dict[str, Any] = {}
        if dataset.image_size <= 64:
            settings = dict(_SMALL_SETS.get(dataset.name, _CIFAR if dataset.image_size <= 32 else _TINY))
        if not dataset.flip:
            settings["flip"] = False
        return cls(cls.Config(**{**settings, **overrides}))

    def check(self, setting: GridPoint) -> None:
        if self.config.flip and not setting.dataset.flip:
            raise UserError(
                f"a flipped image of {setting.dataset.name} may belong to another class; leave out --set sre2l.flip"
            )

    def image_recipe(self, setting: GridPoint) -> CellSpec:
        fields = {**self.config.non_default_fields(), "ipc": setting.ipc, "seed": setting.seed}
        fields.pop("groups", None)
        return CellSpec(self.info.name, self.info.version, fields, self.config.non_default_fields())

    def distill(self, task: Task) -> Images:
        import torch

        from bench.kit import distributed

        classes, size = task.dataset.classes, task.dataset.image_size
        batches = official_batches(task.ipc, classes, self.config.group_classes)
        at_once = distributed.broadcast_object(self._at_once(task, len(batches[0].classes)))
        of_ranks = [
            together(batches[distributed.share(len(batches), rank)], at_once) for rank in range(distributed.size())
        ]
        rounds = of_ranks.pop(distributed.rank())
        pixels = torch.empty(task.ipc * classes, 3, size, size, dtype=torch.uint8)
        for index, groups in enumerate(rounds):
            tell = partial(_tell, task, index * self.config.iterations, len(rounds) * self.config.iterations)
            pixels[_places(groups, task.ipc)] = self._round(task, groups, tell)
        distributed.wait()
        for groups in (groups for others in of_ranks for groups in others):  # finished, in the folder that all share
            pixels[_places(groups, task.ipc)] = self._round(task, groups, lambda done: None)
        return Images(pixels, torch.arange(classes).repeat_interleave(task.ipc))

    def _at_once(self, task: Task, batch: int) -> int:
        """How many batches are optimised at once."""
        from bench.kit.recovery import groups_that_fit

        if self.config.groups != "auto":
            return self.config.groups
        return groups_that_fit(task.teacher.model().net, batch, task.dataset.image_size, task.device)

    def _round(self, task: Task, groups: Sequence[Batch], tell: Callable[[int], None]) -> Tensor:
        """The images of some batches of equal size, uint8 (N, 3, S, S), batch by batch; kept in a file of their own,
        because all of a large set would be too much to write again and again."""
        import torch

        from bench.kit import distributed
        from bench.kit.checkpoint import Checkpoint
        from bench.kit.images import quantise
        from bench.kit.recovery import BatchNormInputs, GroupViews, noise, recover
        from bench.kit.seeds import seed_for

        facts = {"batches": [batch.number for batch in groups]}
        finished = Checkpoint(task.work, f"images-{groups[0].number:06d}")
        found = finished.load()
        if found is not None and found[1] == facts:
            return found[0]["pixels"]
        config, size = self.config, task.dataset.image_size
        net, network = task.teacher.model().net, task.teacher.network
        seeds = [seed_for("sre2l", task.seed, batch.number) for batch in groups]
        labels = torch.tensor([list(batch.classes) for batch in groups], device=task.device)
        with BatchNormInputs(net, len(groups)) as inputs:
            _refuse_without_batch_norms(inputs, network.arch)
            recovered = recover(
                noise(seeds, labels.shape[1], size, task.device),
                SRe2LLoss(net, inputs, labels, config),
                GroupViews(config.views(), seeds, size, config.iterations, task.device),
                lr=config.lr, mean=network.mean, std=network.std,
                checkpoint=Checkpoint(task.work, distributed.rank_suffix("checkpoint")), facts=facts, progress=tell,
            )  # fmt: skip
        pixels = quantise(recovered.flatten(0, 1)).cpu()
        finished.save({"pixels": pixels}, **facts)
        return pixels


def _tell(task: Task, before: int, total: int, done: int) -> None:
    task.progress(before + done, total)


_VIEW = ("crop", "min_scale", "flip", "roll", "antialias", "curriculum")


@dataclass(frozen=True)
class Batch:
    """Images that are optimised together, as the official loops order them: image ``image`` of consecutive classes."""

    number: int
    image: int
    classes: range


def official_batches(ipc: int, classes: int, size: int) -> list[Batch]:
    """For each image of a class, all classes in blocks of ``size``; the last block may be smaller, where the official
    code stops with an error."""
    blocks = [range(first, min(first + size, classes)) for first in range(0, classes, size)]
    pairs = [(image, block) for image in range(ipc) for block in blocks]
    return [Batch(number, image, block) for number, (image, block) in enumerate(pairs)]


def _places(groups: Sequence[Batch], ipc: int) -> list[int]:
    """Where the images of some batches, batch by batch, are in a set that is class-major."""
    return [label * ipc + batch.image for batch in groups for label in batch.classes]


def together(batches: Sequence[Batch], at_once: int) -> list[list[Batch]]:
    """Up to ``at_once`` batches of equal size each, in their order."""
    rounds = []
    for size in sorted({len(batch.classes) for batch in batches}, reverse=True):
        equal = [batch for batch in batches if len(batch.classes) == size]
        rounds += [equal[first : first + at_once] for first in range(0, len(equal), at_once)]
    return rounds


class SRe2LLoss:
    """Cross entropy (mean over the batch) + r_bn · Σ_l w_l (‖σ²_l − running‖₂ + ‖μ_l − running‖₂), over the inputs of
    the batch norms, w = ``first_bn`` for the first of them and else 1, + tv · TV + l2 · mean norm of an image.

    Args:
        net: the teacher's network, frozen, in eval mode, behind ``inputs``, which must be open.
        labels: the class of each image (G, B).
    """

    def __init__(self, net: nn.Module, inputs: BatchNormInputs, labels: Tensor, config: SRe2L.Config):
        from bench.kit.recovery import Distances

        self.net, self.inputs, self.labels, self.config = net, inputs, labels, config
        weights = [config.first_bn] + [1.0] * (len(inputs.modules) - 1)
        means = [module.running_mean for module in inputs.modules]
        variances = [module.running_var for module in inputs.modules]
        self.distances = Distances([*means, *variances], weights * 2)  # type: ignore[list-item]  # inputs checks them

    def __call__(self, views: Tensor, iteration: int) -> Tensor:
        """The losses (G,) of normalised views (G, B, 3, S, S)."""
        import torch
        from torch.nn import functional as F

        logits = self.net(views.flatten(0, 1))
        loss = F.cross_entropy(logits, self.labels.flatten(), reduction="none").view(self.labels.shape).mean(1)
        means, variances = zip(*self.inputs.take(), strict=True)
        loss = loss + self.config.r_bn * self.distances([*means, *variances])
        if self.config.tv:
            loss = loss + self.config.tv * total_variation(views)
        if self.config.l2:
            loss = loss + self.config.l2 * torch.linalg.vector_norm(views, dim=(2, 3, 4)).mean(1)
        return loss


def total_variation(views: Tensor) -> Tensor:
    """Sum (G,) of the L2 norms, over a whole group (G, B, 3, S, S), of the differences between horizontal, vertical
    and both diagonal neighbours (SRe2L, ``recover/utils.py``)."""
    from torch.linalg import vector_norm

    differences = (
        views[..., :, :-1] - views[..., :, 1:],
        views[..., :-1, :] - views[..., 1:, :],
        views[..., :-1, :-1] - views[..., 1:, 1:],
        views[..., :-1, 1:] - views[..., 1:, :-1],
    )
    horizontal, vertical, falling, rising = (vector_norm(found, dim=(1, 2, 3, 4)) for found in differences)
    total: Tensor = horizontal + vertical + falling + rising
    return total


def _refuse_without_batch_norms(inputs: BatchNormInputs, arch: str) -> None:
    if not inputs.modules:
        raise UserError(
            f"sre2l matches the statistics of batch norms, and {arch} has none; choose another --teacher, e.g. resnet18"
        )
