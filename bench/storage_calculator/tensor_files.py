"""The bytes of a safetensors file that ``safetensors.torch.save_file`` writes, from the shapes of its tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import NamedTuple

from bench.api.label_codec import LabelCodec
from bench.api.label_layout import ITEM_BYTES, label_columns

# Tensors lie by type in this order, those of a type by name (safetensors' own Rust code, `prepare`).
_ORDER = ("I64", "F64", "F32", "I32", "F16", "I16", "I8", "U8", "BOOL")


class Tensor(NamedTuple):
    """A tensor of a file: a ``dtype`` of safetensors and a shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of its numbers."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


def file_bytes(tensors: Iterable[Tensor]) -> int:
    """A length of 8 bytes, the JSON header padded to 8, and the numbers."""
    described, end = {}, 0
    for one in sorted(tensors, key=lambda one: (_ORDER.index(one.dtype), one.name)):
        start, end = end, end + one.bytes
        described[one.name] = {"dtype": one.dtype, "shape": one.shape, "data_offsets": (start, end)}
    header = len(json.dumps(described, separators=(",", ":")).encode())
    return 8 + header + -header % 8 + end


def static_bytes(images: int, classes: int, codec: LabelCodec) -> int:
    """The file of static labels, a row an image; ``source.json``, some hundred bytes, is not in it."""
    columns = label_columns(codec, classes)
    return file_bytes(Tensor(column.name, column.dtype, (images, column.width)) for column in columns)
