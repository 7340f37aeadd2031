"""Predicted class of every test image, one compact safetensors file per board.

A file holds a uint16 vector per cell and the true classes, each distinct vector once; its metadata say which of them a
cell's are. A class-incremental evaluation has a row per step, with :data:`UNTESTED` for classes still to come.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.store.cell import canonical

UNTESTED = 2**16 - 1
SUFFIX = ".predictions.safetensors"
FILE = "predictions.safetensors"  # of an evaluate artifact: tensors "predicted" and "labels"
LONGEST_HEADER = 1 << 26  # bytes

Predicted = tuple[NDArray[np.uint16], NDArray[np.uint16]]  # predicted and true classes


def predicted_cells(path: Path) -> dict[str, str]:
    """Cells of a predictions file, each with the name of its true classes; empty where it can't be read."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, LONGEST_HEADER)))
        pointers = json.loads(header.get("__metadata__", {}).get("labels", "{}"))
        return {cell: pointers[cell] for cell in header if cell in pointers}
    except (OSError, ValueError, AttributeError, struct.error):
        return {}


def load(path: Path, cells: Iterable[str]) -> dict[str, Predicted]:
    """Predicted and true classes by cell, of those that a board's file, or a cell's own, holds."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    pointers = predicted_cells(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return {}
    if path.name == FILE and {"predicted", "labels"} <= tensors.keys():
        return dict.fromkeys(cells, (tensors["predicted"], tensors["labels"]))
    return {cell: (tensors[cell], tensors[pointers[cell]]) for cell in cells if pointers.get(cell) in tensors}


def load_scores(path: str, cells: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """What each test image adds to the accuracy of a cell, so that the mean over images is the headline."""
    found = {}
    for cell, (predicted, labels) in load(Path(path), cells).items():
        right, seen = predicted == labels, predicted != UNTESTED
        found[cell] = (right if right.ndim == 1 else (right / seen.mean(1, keepdims=True)).mean(0)).astype(np.float64)
    return found


def save(predicted: NDArray[np.int64], labels: NDArray[np.int64], path: Path) -> None:
    """Write the file of one cell; -1 stands for what was not tested."""
    from safetensors.numpy import save_file

    save_file({"predicted": predicted.astype(np.uint16), "labels": labels.astype(np.uint16)}, path)


def pack(cells: Mapping[str, Predicted]) -> bytes:
    """Content of a board's file, the same bytes for the same cells in any order."""
    from safetensors.numpy import save

    tensors: dict[str, Any] = {}
    pointers: dict[str, str] = {}
    for cell in sorted(cells):
        predicted, labels = cells[cell]
        name = f"labels/{hashlib.sha256(labels.tobytes()).hexdigest()[:10]}"
        tensors |= {cell: np.ascontiguousarray(predicted), name: np.ascontiguousarray(labels)}
        pointers[cell] = name
    return save(tensors, metadata={"labels": canonical(pointers)})  # one entry: safetensors has no order of several
