"""The data set `icon-scenes`: what is known of it without torch; :mod:`methods.segmentation.scenes` makes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.api import DatasetInfo, TeacherSpec, catalogue
from bench.api.catalogue import DatasetPlugin
from methods.segmentation.config import SHRINKS, TASK

if TYPE_CHECKING:
    from bench.api import Dataset

SIDE = 64


class IconScenes(DatasetPlugin):
    """Scenes of icons on backgrounds, made of icons-100's icons when they are read."""

    def info(self) -> DatasetInfo:
        return DatasetInfo(
            name="icon-scenes",
            title="icon-scenes: icons on backgrounds, with a prompt and its exact mask",
            task=TASK,
            classes=10,
            label_shape=(SIDE // SHRINKS, SIDE // SHRINKS),
            image_size=SIDE,
            smallest_class=200,
            train_images=2000,
            test_images=500,
            mean=(0.488, 0.498, 0.496),  # measured on the training split
            std=(0.263, 0.263, 0.263),
            clip="icon-clip",
            student="promptable-w16",
            teacher=TeacherSpec(  # of its classes, for methods that classify
                arch="resnet10-small-w16", image_size=SIDE, epochs=20, batch_size=64, lr=0.05, weight_decay=5e-4,
                schedule="cosine", augment="rrc-flip", min_scale=0.5,
            ),
        )  # fmt: skip

    def locate(self, root: Path) -> str:
        return catalogue.plugin("icons-100").locate(root)

    def load(self, info: DatasetInfo, root: Path) -> Dataset:
        from methods.segmentation.scenes import read_scenes

        return read_scenes(info, Path(self.locate(root)))
