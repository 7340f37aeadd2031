"""SRe2L (Yin et al., NeurIPS 2023): squeeze, recover, relabel.

A teacher is trained on the real images (squeeze); images are optimised from noise until the teacher is sure of their
class and its batch norms see the statistics of real images (recover); the teacher labels their views (relabel: the
harness's work). Follows the authors' repository (VILA-Lab/SRe2L, ``recover/``); ``curriculum`` is CDA's (same
repository, ``CDA/``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from bench.api import DatasetInfo, Distiller, GridPoint, ImageBlock, MethodCost, MethodInfo, StudentCost, Task, affects
from bench.errors import UserError
from bench.kit.recovery.config import RecoveryAugmentation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.kit.recovery.bn_statistics import BatchNormInputs

# recover_tiny.sh and recover_cifar.sh, whose settings are documented in CDA's appendix
_TINY: dict[str, Any] = {"lr": 0.1, "r_bn": 1.0, "roll": (-4, 4)}
_CDA_TINY = {"lr": 0.4, "r_bn": 0.05}  # CDA's own for Tiny-ImageNet; for ImageNet-1K they are SRe2L's
_CIFAR: dict[str, Any] = {"iterations": 1000, "crop": "none", "flip": False, "roll": (0, 4)}
# Not from the paper: sized for a CPU with two cores. Tiny-ImageNet's weight of the batch norms and the crops of the
# teacher's own training suit digits better than CIFAR's settings (students at IPC 10: .89 against .70 of the tests).
# icons-100 has the same, and its iterations and rate from held-out training images (docs/sweeps.md).
_SMALL_SETS: dict[str, dict[str, Any]] = {
    "digits": {"iterations": 400, "r_bn": 1.0, "min_scale": 0.5, "roll": (0, 2)},
    "fashion-mnist": {**_CIFAR, "iterations": 400, "roll": (0, 2)},
    "icons-100": {"iterations": 200, "lr": 0.5, "r_bn": 1.0, "min_scale": 0.35, "roll": (0, 4)},
}


class SRe2L(Distiller):
    """Images: recovered from a teacher's batch norms, one of each of 100 classes at a time. Labels: the teacher's."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="sre2l", title="SRe2L", version=2, look=6, paper="arXiv 2306.13092", labels="teacher", stored="fp16",
        label_files="fkd", needs="a teacher with batch norms", shared=("distill",),
        student_cost=StudentCost(batch_size=1024, seconds=0.75, mebibytes=20850),  # HeLlO, supplement, Table 6
    )  # fmt: skip

    class Config(RecoveryAugmentation):
        # recover.sh, for ImageNet-1K; so are the defaults of the augmentation
        iterations: int = Field(4000, ge=1)
        lr: float = Field(0.25, gt=0)
        r_bn: float = Field(0.01, ge=0)
        first_bn: float = Field(10.0, ge=0)  # weight of the first batch norm among the others
        tv: float = Field(0.0, ge=0)
        l2: float = Field(0.0, ge=0)
        group_classes: int = Field(100, ge=1)  # classes per batch, whose statistics are matched together
        groups: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], affects("speed")] = "auto"  # batches at once

    config: Config
    quick: ClassVar[dict[str, Any]] = {"iterations": 20}

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        """Configure it as the authors do for ImageNet-1K, Tiny-ImageNet and CIFAR.

        Assumed, because the authors give none: other sets up to 32 px are run as CIFAR, up to 64 px as Tiny-ImageNet,
        larger ones as ImageNet-1K.
        """
        settings: dict[str, Any] = {}
        if dataset.image_size <= 64:
            settings = dict(_SMALL_SETS.get(dataset.name, _CIFAR if dataset.image_size <= 32 else _TINY))
        if not dataset.flip:
            settings["flip"] = False
        if overrides.get("curriculum") and 32 < dataset.image_size <= 64:
            settings |= _CDA_TINY
        return cls(cls.Config(**{**settings, **overrides}))

    def check(self, point: GridPoint) -> None:
        if self.config.flip and not point.dataset.flip:
            raise UserError(
                f"a flipped image of {point.dataset.name} may belong to another class; leave out --set sre2l.flip"
            )

    def cost(self, point: GridPoint) -> MethodCost:
        """29 hours for ImageNet-1K at IPC 50 on one RTX 4090 (DELT, arXiv 2411.19946, Table 5)."""
        images = point.dataset.classes * point.ipc / 50_000
        return MethodCost(distill=29.0 * images * self.config.iterations / 4000)

    def distill(self, task: Task) -> Iterator[ImageBlock]:
        import torch

        from bench.kit.images import quantise
        from bench.kit.recovery.augment import GroupViews
        from bench.kit.recovery.bn_statistics import BatchNormInputs
        from bench.kit.recovery.loop import noise, recover
        from bench.kit.recovery.memory import groups_that_fit, rounds

        config, size = self.config, task.dataset.image_size
        network, net = task.teacher.network, task.teacher.model().net
        batches = official_batches(task.ipc, task.dataset.classes, config.group_classes)
        if (fit := config.groups) == "auto":
            fit = groups_that_fit(net, len(batches[0]), size, task.device)
        at_once = min(fit, -(-len(batches) // task.processes))
        for numbers in task.blocks(rounds(list(map(len, batches)), at_once), independent=True):
            seeds = [task.seed_for("sre2l", number) for number in numbers]
            labels = torch.tensor([list(batches[number]) for number in numbers])
            with BatchNormInputs(net, len(numbers)) as inputs:
                if not inputs.modules:
                    raise UserError(
                        f"sre2l matches the statistics of batch norms, and {network.arch} has none; choose another "
                        "--teacher, e.g. resnet18"
                    )
                images = recover(
                    noise(seeds, labels.shape[1], size, task.device),
                    SRe2LLoss(net, inputs, labels.to(task.device), config),
                    GroupViews(config, seeds, size, config.iterations, task.device),
                    lr=config.lr, mean=network.mean, std=network.std,
                    checkpoint=task.checkpoint, progress=task.progress,
                )  # fmt: skip
            yield ImageBlock(quantise(images.flatten(0, 1)).cpu(), labels.flatten())


def official_batches(ipc: int, classes: int, size: int) -> list[range]:
    """List the classes of each batch as the official loops order them: per image of a class, all classes in blocks.

    The last block may be smaller than ``size``, where the official code stops with an error.
    """
    blocks = [range(first, min(first + size, classes)) for first in range(0, classes, size)]
    return blocks * ipc


class SRe2LLoss:
    """Cross entropy (mean over the batch) + r_bn · distances of batch norms + tv · TV + l2 · mean norm of an image.

    The distances are Σ_l w_l (‖σ²_l − running‖₂ + ‖μ_l − running‖₂) over the inputs of the batch norms; the first has
    the weight ``first_bn``, the others 1.

    Args:
        net: the teacher's network, frozen, in eval mode, behind ``inputs``, which must be open.
        labels: the class of each image (G, B).
    """

    def __init__(self, net: nn.Module, inputs: BatchNormInputs, labels: Tensor, config: SRe2L.Config):
        from bench.kit.recovery.bn_statistics import Distances

        self.net, self.inputs, self.labels, self.config = net, inputs, labels, config
        weights = [config.first_bn] + [1.0] * (len(inputs.modules) - 1)
        means = [module.running_mean for module in inputs.modules]
        variances = [module.running_var for module in inputs.modules]
        self.distances = Distances([*means, *variances], weights * 2)  # type: ignore[list-item]  # inputs checks them

    def __call__(self, views: Tensor, iteration: int) -> Tensor:
        """Return the losses (G,) of normalised views (G, B, 3, S, S)."""
        from torch.linalg import vector_norm
        from torch.nn import functional as F

        logits = self.net(views.flatten(0, 1))
        loss = F.cross_entropy(logits, self.labels.flatten(), reduction="none").view(self.labels.shape).mean(1)
        means, variances = zip(*self.inputs.take(), strict=True)
        loss = loss + self.config.r_bn * self.distances([*means, *variances])
        if self.config.tv:
            loss = loss + self.config.tv * total_variation(views)
        if self.config.l2:
            loss = loss + self.config.l2 * vector_norm(views, dim=(2, 3, 4)).mean(1)
        return loss


def total_variation(views: Tensor) -> Tensor:
    """Return the total variation (G,) of whole groups (G, B, 3, S, S) (SRe2L, ``recover/utils.py``).

    It is the sum of the L2 norms of the differences between horizontal, vertical and both diagonal neighbours.
    """
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
