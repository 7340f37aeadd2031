"""The predicted class of every test image, one compact safetensors file per board: a uint16 vector per cell, and the
true classes under ``labels/DIGEST``, to which each cell's metadata points."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def predicted_cells(path: Path) -> dict[str, str]:
    """The cells that a predictions file holds, each with the name of its true classes; empty where there is no file
    or it can't be read."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 1 << 26)))
    except (OSError, ValueError, struct.error):
        return {}
    pointers = header.get("__metadata__", {})
    return {cell: pointers[cell] for cell in header if cell in pointers}
