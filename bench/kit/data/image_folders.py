"""The data set ``folder:PATH``: a folder of the user's that holds ``train/`` and ``val/``.

Torch-free, for planning: reads listings, file sizes and the header of the first image per class.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.api import DatasetInfo, TeacherSpec
from bench.api.catalogue import DatasetPlugin
from bench.kit.data.decoding import opened
from bench.kit.data.listing import Listing, list_folder

if TYPE_CHECKING:
    from bench.api import Dataset

FOLDER_SIZES = (32, 64, 128, 224)  # the sizes at which the field works
SMALL = 64  # up to this size networks have a 3x3 stem and icon-clip is the base
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
