"""Data sets of image files: ImageNet and its subsets, Tiny-ImageNet, Places365, icons-100, and users' folders.

Each reader lists the files of both splits in class order, and raises UserError where a class or a file is missing.
Torch-free, for planning: reads listings, the files' bytes, and the header of the first image per class.
"""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from bench.api import DatasetInfo, TeacherSpec
from bench.api.catalogue import DatasetPlugin, ImageFiles, Listing
from bench.errors import UserError
from bench.kit.data import names
from bench.kit.data.contents import contents_of
from bench.kit.data.decoding import counting_broken, opened
from bench.kit.data.listing import list_classes, list_folder
from bench.kit.data.packing import packed_files, packed_info

FOLDER_SIZES = (32, 64, 128, 224)  # the sizes at which the field works
SMALL = 64  # up to this size networks have a 3x3 stem and icon-clip is the base
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _list(place: Path, folders: dict[str, str], words: Iterable[str]) -> ImageFiles:
    """List both splits of class id -> folder, in class order."""
    train, val = (list_classes(place / split, folders) for split in ("train", "val"))
    return ImageFiles(train, val, tuple(words))


def read_subset(place: Path) -> ImageFiles:
    """Read Imagenette or Imagewoof: all wnids found, in sorted order."""
    return _by_wnid(place, tuple(list_classes(place / "train").files))


def read_imagenet(place: Path) -> ImageFiles:
    """Read ImageNet-1K: its wnids in sorted order, as torchvision's models have them."""
    return _by_wnid(place, tuple(names.imagenet()))


def imagenet100_ids() -> tuple[str, ...]:
    """Return the 100 wnids in the order of IDC (Kim et al., ICML 2022; ``misc/class100.txt``): not sorted."""
    return tuple(_list_file("imagenet100.txt"))


def read_imagenet100(place: Path) -> ImageFiles:
    """Read ImageNet-100 from its own folder or from ImageNet-1K."""
    return _by_wnid(place, imagenet100_ids())


def _by_wnid(place: Path, wnids: tuple[str, ...]) -> ImageFiles:
    return _list(place, {wnid: wnid for wnid in wnids}, map(names.of_folder, wnids))


def read_tiny(place: Path) -> ImageFiles:
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
    return ImageFiles(train, val, tuple(in_words.get(wnid, wnid) for wnid in folders))


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


def read_places(place: Path) -> ImageFiles:
    """Read Places365-Standard, in the order of ``categories_places365.txt``.

    The folder of ``/a/apartment_building/outdoor`` may be called so or ``apartment_building-outdoor``.
    """
    ids = _list_file("places365.txt")
    folders = {}
    for name in ids:
        nested = f"{name[0]}/{name}"
        folders[name] = nested if (place / "train" / nested).is_dir() else name.replace("/", "-")
    return _list(place, folders, map(names.of_place, ids))


def icons_100() -> tuple[str, ...]:
    """Return the classes of icons-100, in order."""
    return tuple(_list_file("icons_100.txt"))


def read_icons(place: Path) -> ImageFiles:
    """Read ``icons-100`` as ``examples/icons_100`` writes it; without its ``icons-100.json`` it is not whole."""
    _required(place / "icons-100.json")
    folders = {name: name for name in icons_100()}
    return _list(place, folders, map(names.spaced, folders))


def _list_file(name: str) -> list[str]:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").split()


def _required(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: no such file, but it is part of the data set; unpack or build it again")
    return path


def _image_size(train: Listing) -> int:
    """Return the largest of ``FOLDER_SIZES`` within the median short side of the first image per class."""
    sides = []
    paths = (train.root / file for files in train.files.values() for file in files)
    with counting_broken(paths):
        for files in train.files.values():
            with opened(train.root / files[0]) as image:
                sides.append(min(image.size))
    median = statistics.median_low(sides)
    return max((size for size in FOLDER_SIZES if size <= median), default=FOLDER_SIZES[0])


class Folder(DatasetPlugin):
    """A folder of the user's that holds ``train/`` and ``val/``, or what ``bench data --pack`` made."""

    argument: ClassVar[str] = "PATH"
    title: ClassVar[str] = "train/ and val/ with a folder per class"

    def info(self) -> DatasetInfo:
        """Return the facts of the folder; its name is ``folder-`` and the folder's own name.

        Raises:
            UserError: as :func:`list_folder`; or the first image of a class cannot be read.
        """
        folder = self.root(None)
        if packed := packed_files(folder):
            return packed_info(folder, packed)
        files = self.files(folder)
        train, val = files.train, files.val
        size = _image_size(train)
        arch, clip = ("resnet18-small", "icon-clip") if size <= SMALL else ("resnet18", "RN50:openai")
        title = folder.resolve().name
        return DatasetInfo(
            name="folder-" + (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "unnamed"),
            title=title,
            classes=len(train.files),
            image_size=size,
            smallest_class=min(map(len, train.files.values())),
            train_images=sum(map(len, train.files.values())),
            test_images=sum(map(len, val.files.values())),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            teacher=TeacherSpec(arch=arch, image_size=size),
            clip=clip,
            student=arch,
            fingerprint=contents_of(files).digest,
        )

    def root(self, data_root: Path | None) -> Path:
        return Path(os.path.expanduser(self.name.partition(":")[2]))  # noqa: PTH111 - Path's own fails without a home

    def locate(self, root: Path) -> str:
        return str(root)

    def files(self, root: Path) -> ImageFiles:
        if packed := packed_files(root):
            return packed
        train, val = list_folder(root)
        return ImageFiles(train, val, tuple(map(names.of_folder, train.files)))
