"""Bytes of label files by arithmetic: ours to the byte, the format of FKD to a thousandth. Torch-free."""

from __future__ import annotations

import math

from bench.api.stored.codec import LabelCodec
from bench.api.stored.columns import file_bytes, label_columns

# A batch file of FKD is what `torch.save` makes of a list (SRe2L, relabel/generate_soft_label.py): for each view a
# box of four float32, a flip, the place of the mix partner (int64) and the logits in fp16.
FKD_VIEW_BYTES = 16 + 1 + 8
FKD_INDEX_BYTES = 8  # G_VBSM stores the number of the image too

# The zip container and the pickle of one such file. It depends on torch's version and on whether the weight and box
# are numpy's: 2.2 KB (torch 2.15, Python numbers) to 2.75 KB; another tensor is another entry.
FKD_FILE_BYTES = 2600
FKD_INDEX_ENTRY_BYTES = 200


def static_bytes(images: int, classes: int, codec: LabelCodec) -> int:
    """Return the size of the file of static labels, one row per image, without ``source.json`` (some hundred bytes)."""
    columns = label_columns(codec, classes)
    return file_bytes((column.name, column.dtype, (images, column.width)) for column in columns)


def logit_bytes(images: int, classes: int, epochs: int) -> int:
    """Return the fp16 logits of every view alone, as papers state label sizes."""
    return epochs * images * classes * 2


def fkd_bytes(images: int, classes: int, epochs: int, batch_size: int, *, index: bool = False) -> int:
    """Return the size of all batch files that SRe2L's relabelling writes (``index``: G_VBSM's, with image numbers)."""
    views = epochs * images * (FKD_VIEW_BYTES + (FKD_INDEX_BYTES if index else 0))
    files = epochs * math.ceil(images / batch_size)
    container = FKD_FILE_BYTES + (FKD_INDEX_ENTRY_BYTES if index else 0)
    return logit_bytes(images, classes, epochs) + views + files * container
