"""CIFAR-10 and CIFAR-100 through torchvision.

The archive's files are pickles; torchvision compares them with their published MD5 before it opens them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from bench.api import Dataset, DatasetInfo
from bench.errors import UserError
from bench.kit.data import names
from bench.kit.data.dataset import Resident


def read_cifar(info: DatasetInfo, place: Path) -> Dataset:
    """The data set ``info`` from the unpacked archive ``place``.

    Raises:
        UserError: a file is missing or not the published one.
    """
    from torchvision.datasets import CIFAR10, CIFAR100  # here: it takes two seconds that other sets need not wait

    reader = CIFAR100 if info.name == "cifar100" else CIFAR10
    try:
        parts = [reader(place.parent, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise UserError(
            f"{place}: a file is missing or not the published one (its MD5 differs); unpack the archive again"
        ) from error
    splits = []
    for part in parts:
        pixels = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        splits.append(Resident(pixels, torch.tensor(part.targets)))
    ids = tuple(parts[0].classes)
    return Dataset(info, tuple(map(names.spaced, ids)), ids, *splits)
