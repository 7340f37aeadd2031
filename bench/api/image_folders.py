"""Folders of images: ``train/`` and ``val/``, with a folder per class in each; torch-free, for planning.

Reads listings, file sizes and, of ``folder:PATH`` sets, the header of the first image of each class. Writes
nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from bench.api.dataset import DatasetInfo, TeacherSpec
from bench.errors import UserError

# torchvision's IMG_EXTENSIONS
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))
FOLDER_SIZES = (32, 64, 128, 224)  # the sizes at which the field works
UNREADABLE = (OSError, ValueError, SyntaxError)  # what PIL raises for files that are no whole image
SMALL = 64  # up to this size networks have a 3x3 stem and icon-clip is the base
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Listing:
    """The images of a folder that holds a folder per class: class -> sorted paths relative to ``root``."""

    root: Path
    files: dict[str, tuple[str, ...]]

    @property
    def count(self) -> int:
        """Images in all."""
        return sum(map(len, self.files.values()))

    @property
    def smallest(self) -> int:
        """Images in the smallest class."""
        return min(map(len, self.files.values()))


def list_images(folder: Path) -> tuple[str, ...]:
    """The images below ``folder``, at any depth: sorted relative paths; hidden files are passed over."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = os.path.relpath(parent, folder)
        for name in files:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):  # noqa: PTH122
                found.append(name if inner == "." else f"{inner}/{name}")
    return tuple(sorted(found))


def list_classes(split: Path, classes: dict[str, str] | None = None) -> Listing:
    """The images of ``split`` by class.

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
    """The ``train/`` and ``val/`` of a data set of the user's; classes are in sorted order.

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
    """BLAKE2b (hex, 128 bit) of class names, file names and file sizes.

    It is the same wherever the folder lies. What the files hold does not enter: planning must stay quick.
    """
    digest = hashlib.blake2b(digest_size=16)
    for split, listing in (("train", train), ("val", val)):
        for name, files in listing.files.items():
            sizes = [[path, (listing.root / path).stat().st_size] for path in files]
            digest.update(json.dumps([split, name, sizes]).encode())
    return digest.hexdigest()


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for an image file that cannot be decoded."""
    reason = str(error).replace(str(path), "").strip(" ':") or type(error).__name__
    return UserError(f"{path}: not a readable image ({reason}); put a whole copy in its place or remove it")


def folder_info(folder: Path) -> DatasetInfo:
    """The facts of ``folder:PATH``; the name becomes ``folder-`` and the folder's own name.

    Raises:
        UserError: as :func:`list_folder`; or the first image of a class cannot be read.
    """
    train, val = list_folder(folder)
    size = _image_size(train)
    small = size <= SMALL
    title = folder.resolve().name
    return DatasetInfo(
        name="folder-" + (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "unnamed"),
        title=title,
        classes=len(train.files),
        image_size=size,
        smallest_class=train.smallest,
        train_images=train.count,
        test_images=val.count,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        teacher=TeacherSpec(arch="resnet18-small" if small else "resnet18", image_size=size),
        clip="icon-clip" if small else "RN50:openai",
        student="resnet18-small" if small else "resnet18",
        fingerprint=fingerprint(train, val),
    )


def _image_size(train: Listing) -> int:
    """The largest of ``FOLDER_SIZES`` within the median short side of the first image of each class."""
    from PIL import Image  # here, since plans of other data sets need no PIL

    sides = []
    for files in train.files.values():
        path = train.root / files[0]
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except (*UNREADABLE, Image.DecompressionBombError) as error:
            raise unreadable(path, error) from error
    median = statistics.median_low(sides)
    return max((size for size in FOLDER_SIZES if size <= median), default=FOLDER_SIZES[0])
