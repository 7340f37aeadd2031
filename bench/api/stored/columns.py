"""The tensors that store labels: their names, dtypes and widths, and the bytes of their files. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.api.stored.codec import FORMATS, NUMBERS, LabelCodec

FITTED = "codec.safetensors"  # the file of the tensors that a codec fits
WHOLE = ("int8", "int4")  # formats of whole numbers, which have a scale
VQ_CODES = 256  # of a codebook, so that an index is a byte
_DTYPES = {"fp32": "F32", "fp16": "F16", "int8": "I8", "int4": "U8"}

ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
# safetensors sorts tensors by dtype in this order, then by name (its Rust code, `prepare`)
_ORDER = ("I64", "F64", "F32", "I32", "F16", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True)
class Column:
    """A tensor of a shard: ``width`` numbers per row, of a safetensors ``dtype``."""

    name: str
    dtype: str
    width: int

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return ITEM_BYTES[self.dtype] * self.width


def label_columns(codec: LabelCodec, classes: int) -> tuple[Column, ...]:
    """Return the columns that store the labels of a view."""
    width = stored_width(codec, classes)
    if codec.fit == "vq":
        return (Column("codes", "U8", width),)
    if codec.numbers in NUMBERS:
        columns = [Column("logits", _DTYPES[codec.numbers], -(-width // 2) if codec.numbers == "int4" else width)]
    else:
        facts = FORMATS.get(codec.numbers)().columns(width)
        columns = [Column(name, dtype, count) for name, (dtype, count) in facts.items()]
    if codec.numbers in WHOLE and not codec.fit:
        columns.append(Column("range", "F16", 2))
    if codec.keep:
        columns.append(Column("indexes", index_dtype(classes), codec.keep))
    return tuple(columns)


def stored_width(codec: LabelCodec, classes: int) -> int:
    """Return the numbers stored per view: the kept logits, and one that the others share; or those of a fitted code."""
    if codec.fit:
        return codec.size
    return codec.keep + (codec.keep < classes and not codec.renorm) if codec.keep else classes


def fitted_tensors(codec: LabelCodec, classes: int, images: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the tensors that decode what a codec fits, stored once: name -> (safetensors dtype, shape)."""
    size, dtype = codec.size, "F32" if codec.numbers == "fp32" else "F16"
    if codec.fit == "vq":
        hidden, depth = vq_widths(size, classes)
        shapes = {
            "codebooks": (size, VQ_CODES, depth), "hidden.weight": (hidden, size * depth), "hidden.bias": (hidden,),
            "out.weight": (classes, hidden), "out.bias": (classes,),
        }  # fmt: skip
        return {name: ("F16", shape) for name, shape in shapes.items()}
    if not codec.fit:
        return {}
    bases = {"": 1, "class": classes, "image": images}[codec.per]
    found: dict[str, tuple[str, tuple[int, ...]]] = {"basis": (dtype, (bases, size, classes))}
    if codec.fit == "features":
        found["offset"] = (dtype, (classes,))
    if codec.numbers in WHOLE:
        found["scale"] = ("F16", (bases, size))
    return found


def vq_widths(codes: int, classes: int) -> tuple[int, int]:
    """Return the width of the hidden layer of vqM, and of a code (assumed: arXiv 2603.03808 gives neither)."""
    return min(512, 4 * classes), 16 if codes <= 16 else 8


def index_dtype(classes: int) -> str:
    """Return the smallest type for a class number; numbers from 2^15 on wrap around in 16 bits."""
    return "U8" if classes <= 2**8 else "I16" if classes <= 2**16 else "I32"


# FKD's coordinates, 25 bytes per view: the box as fractions of the image, the flip, the place of the mix partner in
# the batch; and for each batch the weight and the box of the mix (SRe2L, relabel/utils_fkd.py)
VIEW_COORDS = (Column("coords", "F32", 4), Column("flip", "BOOL", 1), Column("partner", "I64", 1))
BATCH_COORDS = (Column("weight", "F64", 1), Column("box", "I32", 4))


def tensor_header(tensors: Iterable[tuple[str, str, Sequence[int]]]) -> bytes:
    """Return the beginning of a safetensors file that holds tensors of a name, dtype and shape in this order."""
    described, end = {}, 0
    for name, dtype, shape in tensors:
        start, end = end, end + ITEM_BYTES[dtype] * math.prod(shape)
        described[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def file_bytes(tensors: Iterable[tuple[str, str, Sequence[int]]]) -> int:
    """Return the size of a file that safetensors writes, from the name, dtype and shape of each tensor."""
    ordered = sorted(tensors, key=lambda one: (_ORDER.index(one[1]), one[0]))
    return len(tensor_header(ordered)) + sum(ITEM_BYTES[dtype] * math.prod(shape) for _, dtype, shape in ordered)
