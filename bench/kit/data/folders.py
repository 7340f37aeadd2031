"""Data sets of image files: ImageNet and its subsets, Tiny-ImageNet, Places365, icons-100, and users' folders.

Each reader finds the files of both splits in class order, and raises UserError where a class or a file is missing,
empty or broken. Small sets are read or checked whole, so that a broken file stops a run before it computes anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from bench.api import Dataset, DatasetInfo, Split
from bench.errors import UserError
from bench.kit.data import names
from bench.kit.data.dataset import Files, Resident
from bench.kit.data.decoding import check_all, check_varied, decode_all, opened
from bench.kit.data.image_folders import fingerprint
from bench.kit.data.listing import Listing, list_classes, list_folder

MOST_RESIDENT = 4 * 2**30  # bytes of uint8; Tiny-ImageNet has 1.4e9
MOST_CHECKED = 100_000  # files; from here on a broken one is found when it is read


def read_listings(info: DatasetInfo, train: Listing, val: Listing, words: Iterable[str]) -> Dataset:
    """Make a data set of two listings with the same classes; ``words`` are their names in that order.

    Images that are all squares of one size are read into memory where they fit; others are read per batch.

    Raises:
        UserError: a file cannot be decoded, or the images of a class are all constant.
    """
    every = [*val.paths, *train.paths]
    side = _side_in_memory(every)
    if not side and len(every) < MOST_CHECKED:
        check_all(every)
    for part in (train, val):
        check_varied({name: [part.root / path for path in files] for name, files in part.files.items()})
    splits: list[Split] = []
    for part in (train, val):
        counts = torch.tensor([len(files) for files in part.files.values()])
        labels = torch.arange(len(counts)).repeat_interleave(counts)
        splits.append(Resident(decode_all(part.paths, side), labels) if side else Files(part.paths, labels))
    return Dataset(info, tuple(words), tuple(train.files), *splits)


def _side_in_memory(paths: list[Path]) -> int:
    """Return the side in pixels of all images; 0 where they are not squares of one size, or too large for memory."""
    side = 0
    for path in paths:
        with opened(path) as image:
            side = side or image.width
            if image.size != (side, side) or len(paths) * 3 * side**2 > MOST_RESIDENT:
                return 0
    return side


def _read(info: DatasetInfo, place: Path, folders: dict[str, str], words: Iterable[str]) -> Dataset:
    """Read both splits of class id -> folder, in class order."""
    train, val = (list_classes(place / split, folders) for split in ("train", "val"))
    return read_listings(info, train, val, words)


def read_own(info: DatasetInfo, place: Path) -> Dataset:
    """Read ``folder:PATH``: classes in the sorted order of their folders."""
    train, val = list_folder(place)
    if fingerprint(train, val) != info.fingerprint:
        raise UserError(f"{place}: its files are not those that were planned with; start the run again")
    return read_listings(info, train, val, map(names.of_folder, train.files))


def read_subset(info: DatasetInfo, place: Path) -> Dataset:
    """Read Imagenette or Imagewoof: all wnids found, in sorted order."""
    return _by_wnid(info, place, tuple(list_classes(place / "train").files))


def read_imagenet(info: DatasetInfo, place: Path) -> Dataset:
    """Read ImageNet-1K: its wnids in sorted order, as torchvision's models have them."""
    return _by_wnid(info, place, tuple(names.imagenet()))


def imagenet100_ids() -> tuple[str, ...]:
    """Return the 100 wnids in the order of IDC (Kim et al., ICML 2022; ``misc/class100.txt``): not sorted."""
    return tuple(_list_file("imagenet100.txt"))


def read_imagenet100(info: DatasetInfo, place: Path) -> Dataset:
    """Read ImageNet-100 from its own folder or from ImageNet-1K."""
    return _by_wnid(info, place, imagenet100_ids())


def _by_wnid(info: DatasetInfo, place: Path, wnids: tuple[str, ...]) -> Dataset:
    return _read(info, place, {wnid: wnid for wnid in wnids}, map(names.of_folder, wnids))


def read_tiny(info: DatasetInfo, place: Path) -> Dataset:
    """Read Tiny-ImageNet as published, or with ``val/`` sorted into a folder per wnid.

    The class order is that of ``wnids.txt``, as in SRe2L's images, labels and teachers; RDED's are in sorted
    order, so a checkpoint of RDED's does not fit.
    """
    order, words = _required(place / "wnids.txt"), _required(place / "words.txt")
    folders = {wnid: wnid for wnid in order.read_text(encoding="utf-8").split()}
    train = list_classes(place / "train", folders)
    annotations = place / "val" / "val_annotations.txt"
    val = _annotated(annotations, tuple(folders)) if annotations.is_file() else list_classes(place / "val", folders)
    in_words = names.of_words_file(words)
    return read_listings(info, train, val, (in_words.get(wnid, wnid) for wnid in folders))


def _annotated(annotations: Path, wnids: tuple[str, ...]) -> Listing:
    """List the images of ``val_annotations.txt`` (name, wnid and a box, tab-separated) by class."""
    files: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    for line in annotations.read_text(encoding="utf-8").splitlines():
        name, wnid = line.split("\t")[:2]
        if wnid not in files:
            raise UserError(f"{annotations}: {name} is of class {wnid!r}, which is not in wnids.txt; unpack it again")
        files[wnid].append(name)
    empty = [wnid for wnid in wnids if not files[wnid]]
    if empty:
        raise UserError(f"{annotations}: class {empty[0]!r} has no image; unpack the archive again")
    return Listing(annotations.parent / "images", {wnid: tuple(sorted(found)) for wnid, found in files.items()})


def read_places(info: DatasetInfo, place: Path) -> Dataset:
    """Read Places365-Standard, in the order of ``categories_places365.txt``.

    The folder of ``/a/apartment_building/outdoor`` may be called so or ``apartment_building-outdoor``.
    """
    ids = _list_file("places365.txt")
    folders = {}
    for name in ids:
        nested = f"{name[0]}/{name}"
        folders[name] = nested if (place / "train" / nested).is_dir() else name.replace("/", "-")
    return _read(info, place, folders, map(names.of_place, ids))


def read_icons(info: DatasetInfo, place: Path) -> Dataset:
    """Read ``icons-100`` as its builder writes it; a build without its ``icons-100.json`` is not whole."""
    _required(place / "icons-100.json")
    folders = {name: name for name in _list_file("icons_100.txt")}
    return _read(info, place, folders, map(names.spaced, folders))


def _list_file(name: str) -> list[str]:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").split()


def _required(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: no such file, but it is part of the data set; unpack or build it again")
    return path
