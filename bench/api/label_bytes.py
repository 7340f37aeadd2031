"""What stored labels weigh, by arithmetic: our files to the byte, and the official format to a thousandth."""

from __future__ import annotations

import math

from bench.api.augmentation import AugmentationSchedule
from bench.api.label_codec import LabelCodec
from bench.api.label_layout import LabelLayout

# A batch file of FKD is what `torch.save` makes of a list (SRe2L, relabel/generate_soft_label.py): for each view a
# box of four float32, a flip, the place of the mix partner (int64) and the logits in fp16.
FKD_VIEW_BYTES = 16 + 1 + 8
FKD_INDEX_BYTES = 8  # G_VBSM stores the number of the image too

# The zip container and the pickle of one such file. It depends on torch's version and on whether the weight and box
# are numpy's: 2.2 KB (torch 2.15, Python numbers) to 2.75 KB; another tensor is another entry.
FKD_FILE_BYTES = 2600
FKD_INDEX_ENTRY_BYTES = 200


def stored_bytes(schedule: AugmentationSchedule, classes: int, codec: LabelCodec) -> int:
    """The bytes of all shards that :func:`bench.kit.labels.storing.store` writes; ``source.json``, some hundred
    bytes, is not among them."""
    return LabelLayout(schedule, codec, classes).total


def logit_bytes(images: int, classes: int, epochs: int) -> int:
    """The fp16 logits of every view alone, as papers state label sizes."""
    return epochs * images * classes * 2


def fkd_bytes(images: int, classes: int, epochs: int, batch_size: int, *, index: bool = False) -> int:
    """The bytes of all batch files that SRe2L's relabelling writes (``index``: G_VBSM's, with image numbers)."""
    views = epochs * images * (FKD_VIEW_BYTES + (FKD_INDEX_BYTES if index else 0))
    files = epochs * math.ceil(images / batch_size)
    container = FKD_FILE_BYTES + (FKD_INDEX_ENTRY_BYTES if index else 0)
    return logit_bytes(images, classes, epochs) + views + files * container
