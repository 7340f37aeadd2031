"""Data sets, read once in the life of a process, test images among training images, and facts for the command line."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch

from bench.api import Dataset, DatasetInfo, Split, catalogue
from bench.errors import Unusable, UserError
from bench.kit import data
from bench.kit.data import packing
from bench.kit.data.contents import DataChanged
from bench.kit.data.dataset import FileDataset, Resident
from bench.kit.data.packing import Progress
from bench.kit.overlap import Leakage
from bench.kit.validation import InvalidResult
from bench.store.artifacts import Store
from bench.store.locks import lease
from bench.store.record import Record

_FEW = 20  # classes that are all named
SAMPLE = 500  # images that sizes and statistics are taken of, evenly spread over the training split


@lru_cache(maxsize=2)
def load_data(info: DatasetInfo, data_root: Path | None, kept: Path | None) -> Dataset:
    """Read a data set, once in the life of a process."""
    try:
        return data.load(info, data_root, kept)
    except UserError as error:
        raise Unusable(str(error)) from None


def check_untouched(real: Dataset, by: str) -> None:
    """Refuse what wrote into data in memory, and forget these: later cells of this process would see it.

    Raises:
        InvalidResult: it did.
    """
    read = [vars(real).get(split) for split in ("train", "test")]
    if any(isinstance(split, Resident) and split.written for split in read):
        load_data.cache_clear()
        raise InvalidResult(f"{by} wrote into the real images or labels that it was handed; it should work on copies")


def check_leakage(store: Store, real: Dataset, allow: bool) -> Leakage:
    """Look for test images among the training images, once per store.

    Raises:
        Unusable: there are too many, or an image can't be decoded.
        DataChanged: an image is not what the run was planned with.
    """
    path = store.root / "datasets" / f"{real.info.name}-{real.digest}.overlap.npz"
    try:
        while (found := Leakage.load(path)) is None:
            with lease(store.root, path.stem) as ours:
                if ours:
                    Leakage.of(real).save(path)
                else:
                    time.sleep(1)
    except DataChanged:
        raise
    except UserError as error:
        raise Unusable(str(error)) from None
    if found.refusal and not allow:
        raise Unusable(f"{real.info.name}: {found.refusal}")
    return found


def check_same_data(parents: Iterable[Record], real: Dataset) -> None:
    """Refuse to mix cells of two states of a data set."""
    for parent in parents:
        if parent.data_digest != real.digest:
            raise DataChanged(
                f"{parent.id} was made of other images of {real.info.name} than are here now (digest "
                f"{parent.data_digest[:12]}, here {real.digest[:12]}); put those back, or --force {parent.cell.stage}"
            )


def describe(name: str, data_root: Path | None) -> dict[str, str]:
    """Read a data set and describe it line by line; ``problem`` is among the keys where it is not there, or leaks.

    Raises:
        UserError: the name is unknown, or what is there is no data set.
    """
    info, root = catalogue.dataset(name), catalogue.root_of(name, data_root)
    lines = {"data set": f"{info.name}: {info.title}"}
    try:
        place = catalogue.locate(name, data_root)
    except UserError as problem:
        return {**lines, "problem": str(problem)}
    found = data.load(info, root)
    (low, high), mean, std = _sample(found.train)
    copies = Leakage.of(found)
    smallest = int(torch.bincount(found.train.labels, minlength=info.classes).min())
    sizes = f"{low[0]} x {low[1]}" if low == high else f"{low[0]} x {low[1]} to {high[0]} x {high[1]}"
    held = "in memory" if isinstance(found.train, Resident) else "read per batch"
    count, again = copies.counts.tolist()
    names = ", ".join(found.names) if len(found.names) <= _FEW else f"{found.names[0]} … {found.names[-1]}"
    return {
        **lines,
        "found in": place,
        "images": f"{len(found.train):,} train, {len(found.test):,} test; {smallest:,} in the smallest class",
        "classes": f"{len(found.names)}, in this order: {names}",
        "class order": found.order_hash,
        "digest": found.digest,
        "overlap": f"{again:,} of {count:,} test images are training images, too",
        "pixels": f"{sizes}, used at {info.image_size}; {held}",
        "mean, std": " ".join(f"{value:.4f}" for value in (*mean, *std)),
        **({"problem": copies.refusal} if copies.refusal else {}),
    }


def pack(name: str, data_root: Path | None, size: int, progress: Progress) -> Path:
    """Write a data set of image files as squares of ``size`` pixels below the data root, and return their folder.

    Raises:
        UserError: it is none of files that are read per batch, the size is too small, or so is the disk.
    """
    info, root = catalogue.dataset(name), catalogue.root_of(name, data_root)
    found = data.load(info, root)
    if not isinstance(found, FileDataset) or isinstance(found.train, Resident):
        raise UserError(f"{info.name} is held in memory anyway; leave out --pack")
    place = (data_root or catalogue.default_data_root()).expanduser()
    return packing.pack(info, found.contents, (found.train, found.test), place, size, progress)


def _sample(split: Split) -> tuple[tuple[tuple[int, int], tuple[int, int]], list[float], list[float]]:
    """Return the smallest and the largest (height, width) by area, and mean and std per channel in [0, 1]."""
    count = min(SAMPLE, len(split))
    sizes, moments, pixels = [], torch.zeros(2, 3, dtype=torch.float64), 0
    for place in range(count):
        image = split.image(place * len(split) // count)
        sizes.append((image.shape[1], image.shape[2]))
        values = image.double().div_(255).flatten(1)
        moments += torch.stack([values.sum(1), values.square().sum(1)])
        pixels += values.shape[1]
    mean, square = moments / pixels
    sizes.sort(key=lambda size: size[0] * size[1])
    return (sizes[0], sizes[-1]), mean.tolist(), (square - mean.square()).sqrt().tolist()
