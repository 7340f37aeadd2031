"""The plug-in G_VBSM: its networks, statistics, images and labels.

G_VBSM (arXiv 2311.17950): a pool of networks takes turns in recovering images, by the statistics of their batch norms
and convolutions on real data; all of them label together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api import (
    DatasetInfo,
    Distiller,
    GridPoint,
    ImageBlock,
    MethodCost,
    MethodInfo,
    StudentCost,
    Task,
    TeacherSpec,
)
from bench.api.architectures import network_hours
from bench.api.config import Artifact
from bench.api.labels import Encoding
from bench.errors import UserError
from methods.g_vbsm import config

if TYPE_CHECKING:
    from torch import Tensor

    from methods.g_vbsm.ensemble import Ensemble


class GVBSM(Distiller):
    """Images: recovered by the pool in turns. Labels: the ensemble of the pool, stored."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="g_vbsm", title="G_VBSM", version=3, look=1, paper="arXiv 2311.17950", labels="ensemble", stored="fp16",
        label_files="fkd+index", needs="a pool of networks", shared=("prepare",),
        student_cost=StudentCost(batch_size=1024, seconds=0.77, mebibytes=23310),  # HeLlO, supplement, Table 6
    )  # fmt: skip
    Config = config.Config
    label_kinds: ClassVar[dict[str, str]] = {"ensemble": "methods.g_vbsm.ensemble:Ensemble"}
    quick: ClassVar[dict[str, Any]] = {"iterations": 10}

    config: config.Config

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        return cls(config.Config(**{**config.settings_for(dataset), **overrides}))

    def check(self, point: GridPoint) -> None:
        blocks = self.config.blocks
        if point.ipc % blocks:
            raise UserError(
                f"g_vbsm on {point.dataset.name} takes an IPC that is a multiple of its {blocks} blocks, not "
                f"{point.ipc}; choose one or --set g_vbsm.blocks=1"
            )
        if self.config.groups > 1 and not self.config.independent():
            raise UserError(
                f"g_vbsm.groups {self.config.groups}: batches build on one another; expected ema_reset=per_batch, "
                "backbone=round-robin and iterations that are a multiple of the pool; or choose groups=1"
            )

    def teachers(self, point: GridPoint) -> tuple[TeacherSpec, ...]:
        return self.config.pool_specs(point.dataset.teacher)

    def shared(self) -> tuple[str, ...]:
        return (*self.info.shared, "distill") if self.config.independent() else self.info.shared

    def cost(self, point: GridPoint) -> MethodCost:
        """114.1 hours for ImageNet-1K at IPC 50 on one RTX 4090 (DELT, arXiv 2411.19946, Table 5)."""
        images = point.dataset.classes * point.ipc / 50_000
        pool = tuple(spec.arch for spec in self.teachers(point))
        return MethodCost(
            prepare=network_hours(point.dataset.train_images, pool), label=0.0, label_networks=pool,
            distill=114.1 * images * self.config.iterations / 4000,
        )  # fmt: skip

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        """Share the statistics of the real data and the ensemble among all IPC and seeds."""
        return super().depends_on(artifact, point) if artifact == "images" else {}

    def encoding(self, point: GridPoint) -> Encoding:
        """Choose JPEG at ImageNet size and PNG for CIFAR and Tiny-ImageNet, as the authors save."""
        return "jpeg" if point.dataset.image_size > 64 else "png"

    def prepare(self, task: Task) -> Iterator[Mapping[str, Tensor]]:
        from methods.g_vbsm.conv_statistics import measure

        for number in task.blocks(range(len(task.teachers))):
            yield measure(task, task.teachers[number], self.config)

    def distill(self, task: Task) -> Iterator[ImageBlock]:
        from methods.g_vbsm.recover import recover_images

        return recover_images(task, self.config)

    def label_model(self, task: Task) -> Ensemble:
        from methods.g_vbsm.ensemble import Ensemble

        return Ensemble.of(task.teachers, self.config.norm_weighting)
