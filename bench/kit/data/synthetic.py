"""``made-up``: images of nothing, for measuring what work costs where no data lies.

Every class has colours of its own in a grid of squares, every image noise on top; all of it follows from a seed. Images
are kept smaller than they are used, as real ones are kept larger: it is the enlarged views that work costs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.api import Dataset, DatasetInfo
from bench.api.seeds import seed_for
from bench.kit.data.dataset import Resident

SIDE = 32  # pixels
SQUARES = 4  # a side
NOISE = 64  # at most, of 255


def make_up(info: DatasetInfo) -> Dataset:
    """As many classes and images of each as ``info`` says, uint8 (N, 3, 32, 32), class-major."""
    generator = torch.Generator().manual_seed(seed_for("made-up", info.name))
    colours = torch.randint(0, 256 - NOISE, (info.classes, 3, SQUARES, SQUARES), generator=generator)
    colours = colours.to(torch.uint8).repeat_interleave(SIDE // SQUARES, 2).repeat_interleave(SIDE // SQUARES, 3)

    def split(images: int) -> Resident:
        labels = torch.arange(info.classes).repeat_interleave(images // info.classes)
        return Resident(colours[labels] + _noise(len(labels), generator), labels)

    ids = tuple(f"{label:04d}" for label in range(info.classes))
    words = tuple(f"made-up thing {name}" for name in ids)
    return Dataset(info, words, ids, split(info.train_images), split(info.test_images))


def _noise(images: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, NOISE, (images, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
