"""Data sets that come as arrays: scikit-learn's digits, MNIST's IDX files, CIFAR's archives, and synthetic images.

Each reader raises UserError where a file is missing, broken or not the published one.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench.api import Dataset, DatasetInfo
from bench.api.seeds import seed_for
from bench.errors import UserError
from bench.kit.data import names
from bench.kit.data.dataset import Resident

DIGITS_SIDE, DIGITS_BRIGHTEST = 8, 16  # a value counts the ink dots in a block of 4x4
GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTES = 8  # IDX's code for the type of its elements
SYNTHETIC_SIDE, SQUARES, NOISE = 32, 4, 64  # pixels, squares per side, and the range of the noise, of 255


def read_digits(info: DatasetInfo, place: Path) -> Dataset:
    """Read scikit-learn's digits, enlarged bilinearly from 8x8 to ``info.image_size``: white ink on black.

    The split is written down in ``digits_test.txt``.
    """
    table = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=",", dtype=np.float32))
    ink = table[:, :-1].view(-1, 1, DIGITS_SIDE, DIGITS_SIDE) * (255 / DIGITS_BRIGHTEST)
    enlarged = functional.interpolate(ink, size=info.image_size, mode="bilinear").round().to(torch.uint8)
    pixels, labels = enlarged.expand(-1, 3, -1, -1).contiguous(), table[:, -1].long()
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[list(digits_test_indices())] = True
    train, test_split = (Resident(pixels[part], labels[part]) for part in (~test, test))
    return Dataset(info, names.DIGITS, tuple(map(str, range(info.classes))), train, test_split)


def digits_test_indices() -> tuple[int, ...]:
    """Return the lines of scikit-learn's file that are the test split, from 0, ascending."""
    lines = Path(__file__).with_name("digits_test.txt").read_text(encoding="utf-8").splitlines()
    return tuple(int(line) for line in lines if not line.startswith("#"))


def _digits_file() -> Path:
    """Find the file within scikit-learn; importing that package would cost every process a second."""
    package = find_spec("sklearn")
    if package and package.origin:
        path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise UserError("digits comes with scikit-learn, which is not installed whole; install scikit-learn again")


def read_idx(info: DatasetInfo, place: Path) -> Dataset:
    """Read MNIST or Fashion-MNIST from four IDX files, plain or gzipped; grey is handed out as RGB."""
    fashion = info.name == "fashion-mnist"
    splits = []
    for split in ("train", "t10k"):
        images = read_array(_idx_file(place, f"{split}-images-idx3-ubyte"), 3)
        labels = read_array(_idx_file(place, f"{split}-labels-idx1-ubyte"), 1)
        if len(images) != len(labels) or (len(labels) and labels.max() >= info.classes):
            raise UserError(
                f"{place}: {split} has {len(images)} images and {len(labels)} labels; expected as many of "
                f"both and labels below {info.classes}; fetch the four files again"
            )
        rgb = torch.from_numpy(images.copy())[:, None].expand(-1, 3, -1, -1).contiguous()
        splits.append(Resident(rgb, torch.from_numpy(labels.astype(np.int64))))
    words = names.FASHION if fashion else names.DIGITS
    return Dataset(info, words, words if fashion else tuple(map(str, range(info.classes))), *splits)


def read_array(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes (yann.lecun.com/exdb/mnist, "the IDX file format")."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw
        zero, kind, found, *shape = struct.unpack_from(f">HBB{dimensions}i", raw)
        if (zero, kind, found) != (0, UNSIGNED_BYTES, dimensions):
            raise ValueError("its header is of another kind")
        return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{path}: not a whole IDX file of {dimensions} dimensions ({error}); fetch it again") from error


def _idx_file(place: Path, name: str) -> Path:
    for path in (place / name, place / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{place}: holds neither {name} nor {name}.gz; fetch it again")


def read_cifar(info: DatasetInfo, place: Path) -> Dataset:
    """Read CIFAR-10 or CIFAR-100 from the unpacked archive, which torchvision checks by MD5 before unpickling it."""
    from torchvision.datasets import CIFAR10, CIFAR100  # here: it takes two seconds that other sets need not wait

    reader = CIFAR100 if info.name == "cifar100" else CIFAR10
    try:
        parts = [reader(place.parent, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise UserError(
            f"{place}: a file is missing or not the published one (its MD5 differs); unpack the archive again"
        ) from error
    splits = [
        Resident(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in parts
    ]
    ids = tuple(parts[0].classes)
    return Dataset(info, tuple(map(names.spaced, ids)), ids, *splits)


def make_synthetic(info: DatasetInfo, place: Path) -> Dataset:
    """Make images without content to measure costs by: coloured squares per class, and noise per image.

    They follow from a seed and are uint8 (N, 3, 32, 32), class-major: smaller than they are used, as real ones are
    larger, because the costs are those of the resized views.
    """
    generator = torch.Generator().manual_seed(seed_for("synthetic", info.name))
    colours = torch.randint(0, 256 - NOISE, (info.classes, 3, SQUARES, SQUARES), generator=generator)
    grid = colours.to(torch.uint8)
    for axis in (2, 3):
        grid = grid.repeat_interleave(SYNTHETIC_SIDE // SQUARES, axis)

    def noise(images: int) -> Tensor:
        shape = (images, 3, SYNTHETIC_SIDE, SYNTHETIC_SIDE)
        return torch.randint(0, NOISE, shape, generator=generator, dtype=torch.uint8)

    def split(images: int) -> Resident:
        labels = torch.arange(info.classes).repeat_interleave(images // info.classes)
        return Resident(grid[labels] + noise(len(labels)), labels)

    ids = tuple(f"{label:04d}" for label in range(info.classes))
    words = tuple(f"synthetic thing {name}" for name in ids)
    return Dataset(info, words, ids, split(info.train_images), split(info.test_images))
