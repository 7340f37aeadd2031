"""A synthetic data set on which plug-ins are tested."""

from __future__ import annotations

import torch

from bench.api import Dataset, DatasetInfo, TeacherSpec
from bench.kit.data.dataset import Resident

CLASSES, SIDE = 4, 16
TRAIN, TEST = 12, 6  # images per class


def stripes() -> Dataset:
    """Four classes of 16-px stripes that differ in direction, a data set whose teacher trains in a second."""
    info = DatasetInfo(
        name="stripes",
        title="Synthetic stripes",
        classes=CLASSES,
        image_size=SIDE,
        smallest_class=TRAIN,
        train_images=TRAIN * CLASSES,
        test_images=TEST * CLASSES,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        teacher=TeacherSpec(
            arch="convnet2-w8", image_size=SIDE, epochs=4, batch_size=8, lr=0.05, schedule="cosine", augment="none",
            checkpoints=4,
        ),
        clip="icon-clip",
        student="convnet2-w8",
    )  # fmt: skip
    stream = torch.Generator().manual_seed(0)

    def split(each: int) -> Resident:
        labels = torch.arange(CLASSES).repeat_interleave(each)
        noise = torch.randint(0, 60, (len(labels), 3, SIDE, SIDE), generator=stream)
        place = torch.arange(SIDE).expand(SIDE, SIDE)
        masks = torch.stack([place % 4, place.T % 4, (place + place.T) % 8, (place - place.T) % 8]) < 2
        return Resident((noise + 180 * masks[labels][:, None]).to(torch.uint8), labels)

    names = ("vertical", "horizontal", "falling", "rising")
    return Dataset(info, names, names, split(TRAIN), split(TEST))
