"""Folders of images: ``train/`` and ``val/`` with a folder per class in each, and the data set ``folder:PATH``.

Torch-free, for planning: reads listings, file sizes and, of ``folder:PATH``, the header of the first image per class.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.api import DatasetInfo, TeacherSpec
from bench.api.catalogue import DatasetPlugin
from bench.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from bench.api import Dataset

# torchvision's IMG_EXTENSIONS
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))
FOLDER_SIZES = (32, 64, 128, 224)  # the sizes at which the field works
SMALL = 64  # up to this size networks have a 3x3 stem and icon-clip is the base
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Listing:
    """The images below ``root`` by class: class -> sorted relative paths."""

    root: Path
    files: dict[str, tuple[str, ...]]

    @property
    def paths(self) -> list[Path]:
        """The files, class by class."""
        return [self.root / path for files in self.files.values() for path in files]


def list_images(folder: Path) -> tuple[str, ...]:
    """List the images below ``folder``, at any depth, as sorted relative paths; hidden files are left out."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = os.path.relpath(parent, folder)
        for name in files:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):  # noqa: PTH122
                found.append(name if inner == "." else f"{inner}/{name}")
    return tuple(sorted(found))


def list_classes(split: Path, classes: dict[str, str] | None = None) -> Listing:
    """List the images of ``split`` by class.

    Args:
        classes: class id -> its folder, in class order; all folders in sorted order where it is None.

    Raises:
        UserError: the folder is missing or has no class; a class has no folder or no image.
    """
    if not split.is_dir():
        raise UserError(f"{split}: no such folder; expected train/ and val/, with a folder per class in each")
    if classes is None:
        classes = {path.name: path.name for path in sorted(split.iterdir()) if path.is_dir()}
        classes = {name: folder for name, folder in classes.items() if not name.startswith(".")}
    if not classes:
        raise UserError(f"{split}: holds no folder; expected a folder of images per class")
    files = {}
    for name, folder in classes.items():
        if not (split / folder).is_dir():
            raise UserError(f"{split}: class {name!r} has no folder there; expected {split / folder}")
        files[name] = tuple(f"{folder}/{path}" for path in list_images(split / folder))
        if not files[name]:
            raise UserError(
                f"{split / folder}: class {name!r} is empty; "
                f"expected images ({', '.join(sorted(IMAGE_SUFFIXES))}); fill the folder or remove it"
            )
    return Listing(split, files)


def list_folder(folder: Path) -> tuple[Listing, Listing]:
    """List ``train/`` and ``val/`` of a user's data set; classes are in sorted order.

    Raises:
        UserError: either is missing, a class is empty, val's classes are not train's, or there is one class.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected one that holds train/ and val/, a folder per class in each"
        )
    train, val = list_classes(folder / "train"), list_classes(folder / "val")
    if train.files.keys() != val.files.keys():
        missing, extra = train.files.keys() - val.files.keys(), val.files.keys() - train.files.keys()
        wrong = [
            f"{what} {', '.join(sorted(names)[:3])}" for what, names in (("lacks", missing), ("adds", extra)) if names
        ]
        raise UserError(
            f"{folder / 'val'}: its classes are not those of train/: it {' and '.join(wrong)}; "
            "expected the same folders in both"
        )
    if len(train.files) < 2:
        raise UserError(f"{folder / 'train'}: holds one class; expected at least two class folders")
    return train, val


def fingerprint(train: Listing, val: Listing) -> str:
    """Digest class names, file names and file sizes: BLAKE2b (hex, 128 bit).

    It does not depend on the place of the folder, nor on the contents of the files: planning must stay quick.
    """
    digest = hashlib.blake2b(digest_size=16)
    for split, listing in (("train", train), ("val", val)):
        for name, files in listing.files.items():
            sizes = [[path, (listing.root / path).stat().st_size] for path in files]
            digest.update(json.dumps([split, name, sizes]).encode())
    return digest.hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open the image at ``path``.

    Raises:
        UserError: it cannot be opened, or not be decoded within the block; the file is named.
    """
    from PIL import Image  # here, since most plans need no PIL

    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(path), "").strip(" ':") or type(error).__name__
        raise UserError(
            f"{path}: not a readable image ({reason}); put a whole copy in its place or remove it"
        ) from error


def _image_size(train: Listing) -> int:
    """Return the largest of ``FOLDER_SIZES`` within the median short side of the first image per class."""
    sides = []
    for files in train.files.values():
        with opened(train.root / files[0]) as image:
            sides.append(min(image.size))
    median = statistics.median_low(sides)
    return max((size for size in FOLDER_SIZES if size <= median), default=FOLDER_SIZES[0])


class Folder(DatasetPlugin):
    """A folder of the user's that holds ``train/`` and ``val/``."""

    argument: ClassVar[str] = "PATH"
    title: ClassVar[str] = "train/ and val/ with a folder per class"

    def info(self) -> DatasetInfo:
        """Return the facts of the folder; its name is ``folder-`` and the folder's own name.

        Raises:
            UserError: as :func:`list_folder`; or the first image of a class cannot be read.
        """
        folder = self.root(None)
        train, val = list_folder(folder)
        size = _image_size(train)
        arch, clip = ("resnet18-small", "icon-clip") if size <= SMALL else ("resnet18", "RN50:openai")
        title = folder.resolve().name
        return DatasetInfo(
            name="folder-" + (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "unnamed"),
            title=title,
            classes=len(train.files),
            image_size=size,
            smallest_class=min(map(len, train.files.values())),
            train_images=len(train.paths),
            test_images=len(val.paths),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            teacher=TeacherSpec(arch=arch, image_size=size),
            clip=clip,
            student=arch,
            fingerprint=fingerprint(train, val),
        )

    def root(self, data_root: Path | None) -> Path:
        return Path(self.name.partition(":")[2]).expanduser()

    def locate(self, root: Path) -> str:
        return str(root)

    def load(self, info: DatasetInfo, root: Path) -> Dataset:
        from bench.kit.data.folders import read_own

        return read_own(info, root)
