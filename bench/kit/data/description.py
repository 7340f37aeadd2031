"""What ``bench data NAME`` says of a data set: where it was found and what is in it, or what is missing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.api import Dataset, DatasetInfo, Split
from bench.kit.data.dataset import Resident

SAMPLE = 500  # images looked at for sizes and statistics, evenly spread over the training split


@dataclass(frozen=True)
class Description:
    """What was found.

    ``place``: the folder, or words where the set is embedded; None where it is missing or broken: then
    ``problem`` says in one line what to do, and all fields after it are None.

    Of a sample of the training images: ``sizes``, the smallest and the largest (height, width) by area;
    ``mean`` and ``std`` by channel, of pixels in [0, 1]. ``resident``: is the set held in memory?
    """

    info: DatasetInfo
    place: str | None
    problem: str | None = None
    train: int | None = None
    test: int | None = None
    smallest_class: int | None = None
    names: tuple[str, ...] | None = None
    order_hash: str | None = None
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resident: bool | None = None


def describe_loaded(dataset: Dataset, place: str) -> Description:
    """Look at a sample of a data set that was loaded.

    Raises:
        UserError: an image of the sample cannot be decoded.
    """
    sizes, mean, std = _look(dataset.train)
    return Description(
        info=dataset.info,
        place=place,
        train=len(dataset.train),
        test=len(dataset.test),
        smallest_class=int(torch.bincount(dataset.train.labels, minlength=dataset.info.classes).min()),
        names=dataset.names,
        order_hash=dataset.order_hash,
        sizes=sizes,
        mean=mean,
        std=std,
        resident=isinstance(dataset.train, Resident),
    )


def _look(
    split: Split,
) -> tuple[tuple[tuple[int, int], tuple[int, int]], tuple[float, ...], tuple[float, ...]]:
    count = min(SAMPLE, len(split))
    sizes, moments, pixels = [], torch.zeros(2, 3, dtype=torch.float64), 0
    for place in range(count):
        image = split.image(place * len(split) // count)
        sizes.append((image.shape[1], image.shape[2]))
        values = image.double().div_(255).flatten(1)
        moments += torch.stack([values.sum(1), values.square().sum(1)])
        pixels += values.shape[1]
    mean, square = moments / pixels
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    return (by_area[0], by_area[-1]), tuple(mean.tolist()), tuple((square - mean.square()).sqrt().tolist())
