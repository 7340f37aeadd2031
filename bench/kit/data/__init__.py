"""Real data: ``load`` reads a data set of the catalogue or a user's folder, ``describe`` looks at one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.api import Dataset, DatasetInfo, catalogue
from bench.errors import UserError
from bench.kit.data.cifar import read_cifar
from bench.kit.data.description import Description, describe_loaded
from bench.kit.data.embedded import read_digits
from bench.kit.data.folders import (
    read_icons,
    read_imagenet,
    read_imagenet100,
    read_own,
    read_places,
    read_subset,
    read_tiny,
)
from bench.kit.data.icon_scenes import read_icon_scenes
from bench.kit.data.idx import read_idx
from bench.kit.data.synthetic import make_up

__all__ = ["Description", "describe", "load"]

EMBEDDED: dict[str, Callable[[DatasetInfo], Dataset]] = {
    "digits": read_digits,
    "made-up": make_up,
    "made-up-imagenet-1k": make_up,
}
READERS: dict[str, Callable[[DatasetInfo, Path], Dataset]] = {
    "fashion-mnist": read_idx,
    "mnist": read_idx,
    "cifar10": read_cifar,
    "cifar100": read_cifar,
    "tiny-imagenet": read_tiny,
    "imagenette": read_subset,
    "imagewoof": read_subset,
    "imagenet-100": read_imagenet100,
    "imagenet-1k": read_imagenet,
    "places365": read_places,
    "icons-100": read_icons,
    "icon-scenes": read_icon_scenes,
}


def load(info: DatasetInfo, data_root: Path | None = None) -> Dataset:
    """Read a data set, or list its files where it is too large to be held in memory.

    Args:
        data_root: what :func:`bench.api.catalogue.root_of` says for the name the user gave: the folder that holds
            data sets (None: :func:`bench.api.catalogue.default_data_root`), of ``folder:PATH`` the folder itself.

    Raises:
        UserError: the data is missing (where to get it and where to put it), incomplete or broken (which
            file), or a folder has changed since ``info`` was made.
    """
    if info.fingerprint is not None:
        if data_root is None:
            raise ValueError(f"{info.name} is a folder of the user's: data_root must be that folder")
        return read_own(info, data_root)
    if info.name in EMBEDDED:
        return _complete(EMBEDDED[info.name](info), catalogue.source(info.name).page)
    place = catalogue.locate(info.name, data_root)
    return _complete(READERS[info.name](info, place), str(place))


def _complete(dataset: Dataset, place: str) -> Dataset:
    info = dataset.info
    found = {"classes": len(dataset.ids)}
    wanted = {"classes": info.classes}
    if catalogue.source(info.name).exact:
        found |= {"training images": len(dataset.train), "test images": len(dataset.test)}
        wanted |= {"training images": info.train_images, "test images": info.test_images}
    if found != wanted:
        has, lacks = (", ".join(f"{n} {kind}" for kind, n in counts.items()) for counts in (found, wanted))
        raise UserError(f"{place}: holds {has}, expected {lacks} of {info.name}; unpack it again")
    return dataset


def describe(name: str, data_root: Path | None = None) -> Description:
    """What there is of the data set ``name``; that it is missing or broken is part of the answer.

    Raises:
        UserError: the name is unknown, or the folder of ``folder:PATH`` is no data set.
    """
    info, root = catalogue.dataset(name, data_root), catalogue.root_of(name, data_root)
    try:
        if info.fingerprint is not None:
            place = str(root)
        else:
            place = catalogue.source(name).page if name in EMBEDDED else str(catalogue.locate(name, data_root))
        return describe_loaded(load(info, root), place)
    except UserError as problem:
        return Description(info, None, str(problem))
