"""MNIST and Fashion-MNIST: four IDX files, plain or gzipped."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.api import Dataset, DatasetInfo
from bench.errors import UserError
from bench.kit.data import names
from bench.kit.data.dataset import Resident

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTES = 8  # IDX's code for the type of its elements


def read_array(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes (yann.lecun.com/exdb/mnist, "the IDX file format").

    Raises:
        UserError: the file is no whole IDX file with so many dimensions.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw
        zero, kind, found, *shape = struct.unpack_from(f">HBB{dimensions}i", raw)
        if (zero, kind, found) != (0, UNSIGNED_BYTES, dimensions):
            raise ValueError("its header is of another kind")
        return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"{path}: not a whole IDX file of {dimensions} dimensions ({error}); fetch it again") from error


def read_idx(info: DatasetInfo, place: Path) -> Dataset:
    """The data set ``info`` out of the four files in ``place``; grey is handed out as RGB.

    Raises:
        UserError: a file is missing or broken, or images and labels do not fit together.
    """
    splits = []
    for split in ("train", "t10k"):
        images = read_array(_file(place, f"{split}-images-idx3-ubyte"), 3)
        labels = read_array(_file(place, f"{split}-labels-idx1-ubyte"), 1)
        if len(images) != len(labels) or (len(labels) and labels.max() >= info.classes):
            raise UserError(
                f"{place}: {split} has {len(images)} images and {len(labels)} labels; expected as many of "
                f"both and labels below {info.classes}; fetch the four files again"
            )
        grey = torch.from_numpy(images.copy())[:, None]
        rgb = grey.expand(-1, 3, -1, -1).contiguous()
        splits.append(Resident(rgb, torch.from_numpy(labels.astype(np.int64))))
    words = names.FASHION if info.name == "fashion-mnist" else names.DIGITS
    ids = words if info.name == "fashion-mnist" else tuple(str(digit) for digit in range(info.classes))
    return Dataset(info, words, ids, *splits)


def _file(place: Path, name: str) -> Path:
    for path in (place / name, place / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{place}: holds neither {name} nor {name}.gz; fetch it again")
