"""The plug-in: which networks, statistics, images and labels G_VBSM asks for, and how they are made.

G_VBSM (arXiv 2311.17950): a pool of networks takes turns in recovering images, by the statistics of their batch norms
and convolutions on real data; all of them label together.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api import CellSpec, DatasetInfo, Distiller, GridPoint, Images, MethodInfo, Task, TeacherSpec
from bench.errors import UserError
from methods.g_vbsm import config

if TYPE_CHECKING:
    from methods.g_vbsm.ensemble import Ensemble


class GVBSM(Distiller):
    """Images: recovered by the pool in turns. Labels: the ensemble of the pool, stored."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="g_vbsm", title="G_VBSM", version=1, paper="arXiv 2311.17950", labels="ensemble", stored="fp16",
        label_files="fkd+index",
        needs="a pool of networks", shared=("prepare",),
    )  # fmt: skip
    Config = config.Config
    label_kinds: ClassVar[dict[str, str]] = {"ensemble": "methods.g_vbsm.ensemble:Ensemble"}

    config: config.Config

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        return cls(config.Config(**{**config.settings_for(dataset), **overrides}))

    def check(self, setting: GridPoint) -> None:
        blocks = self.config.blocks
        if setting.ipc % blocks:
            raise UserError(
                f"g_vbsm on {setting.dataset.name} takes an IPC that is a multiple of its {blocks} blocks, not "
                f"{setting.ipc}; choose one or --set g_vbsm.blocks=1"
            )
        if self.config.groups > 1 and not self.config.independent():
            raise UserError(
                f"g_vbsm.groups {self.config.groups}: batches build on one another; expected ema_reset=per_batch, "
                "backbone=round-robin and iterations that are a multiple of the pool; or choose groups=1"
            )

    def teachers(self, setting: GridPoint) -> tuple[TeacherSpec, ...]:
        return self.config.pool_specs(setting.dataset.teacher)

    def prepare_recipe(self, setting: GridPoint) -> CellSpec:
        """One pass over the real data serves all IPC and seeds."""
        return CellSpec(
            self.info.name, self.info.version, self.config.statistics_fields(), self.config.non_default_fields()
        )

    def image_recipe(self, setting: GridPoint) -> CellSpec:
        fields = {**self.config.image_fields(), "ipc": setting.ipc, "seed": setting.seed}
        return CellSpec(self.info.name, self.info.version, fields, self.config.non_default_fields())

    def label_recipe(self, setting: GridPoint) -> CellSpec:
        """The pool alone decides them, so they are shared by all IPC and seeds."""
        return CellSpec(self.info.name, self.info.version, self.config.label_fields(), self.config.non_default_fields())

    def prepare(self, task: Task, folder: Path) -> None:
        from methods.g_vbsm.conv_statistics import save_statistics

        save_statistics(task, self.config, folder)

    def distill(self, task: Task) -> Images:
        from methods.g_vbsm.recover import recover_images

        return recover_images(task, self.config)

    def label(self, task: Task, images: Images | None) -> Ensemble:
        from methods.g_vbsm.ensemble import Ensemble

        return Ensemble.of(task.teachers, self.config.norm_weighting)
