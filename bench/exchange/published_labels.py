"""Label files as others publish them: those of FKD and SRe2L, G_VBSM, LPLD, LPQLD and HALD.

All are one file per batch, ``epoch_3/batch_17.tar``, of ``torch.save`` and a list: for each view a crop (top, left,
height and width as fractions of the image), a flip, the place of the mix partner in the batch and the label, and one
weight and box of the mix. Their order in the list, their types and what a label is differ; each is told by its type and
shape. Files are read without running code from them. What is not in them is the images: those of a batch are listed by
G_VBSM alone; SRe2L draws them again from a seed, LPLD and HALD list them beside the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import UserError
from bench.kit.views.mixing import Mixture, mix

HALD_TEMPERATURE = 20.0  # HALD stores softmax(logits / 20)
_FLOOR = 1e4  # below the largest logit, of classes that LPQLD leaves out
# what numpy's numbers are pickled with (the weight of a mix); they hold no code
_HARMLESS = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64))]
_SCALAR = np.float64(0).__reduce__()[0]


@dataclass(frozen=True)
class PublishedBatch:
    """The labels of a batch as logits (B, C), up to a shift, and the coordinates of its views.

    ``coords`` (B, 4) are fractions, ``flips`` bool (B,), ``partners`` int64 (B,) places in the batch, ``images`` int64
    (B,) where the file says which they are.
    """

    epoch: int
    batch: int
    logits: Tensor
    coords: Tensor
    flips: Tensor
    partners: Tensor
    mixture: Mixture | None
    images: Tensor | None

    def views(self, pixels: Tensor, size: int) -> Tensor:
        """Make the views (B, 3, size, size) in [0, 1] of the batch's images uint8 (B, 3, H, W)."""
        height, width = pixels.shape[2:]
        made = []
        for image, box, flip in zip(pixels, self.coords.double(), self.flips.tolist(), strict=True):
            top, left, high, wide = (
                round(float(part) * side) for part, side in zip(box, [height, width] * 2, strict=True)
            )
            part = image[None, :, top : top + high, left : left + wide].float() / 255
            view = F.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]
            made.append(view.flip(2) if flip else view)
        views = torch.stack(made)
        return views if self.mixture is None else mix(views, self.partners, self.mixture)


def read_labels(folder: Path, classes: int) -> Iterator[PublishedBatch]:
    """Yield the batches of a folder of label files, epoch by epoch.

    Raises:
        UserError: there are none, or one that is no list of labels and coordinates of so many classes.
    """
    found = []
    for path in folder.glob("epoch_*/batch_*.*"):
        numbers = re.findall(r"\d+", f"{path.parent.name} {path.stem}")
        found.append((int(numbers[0]), int(numbers[1]), path))
    if not found:
        raise UserError(
            f"{folder} holds no epoch_E/batch_B.tar; expected the label files of SRe2L, LPLD, LPQLD or HALD"
        )
    for epoch, batch, path in sorted(found):
        yield _batch(epoch, batch, _content(path), classes, path)


def _content(path: Path) -> list[Any]:
    safe: list[Any] = [*_HARMLESS, _SCALAR, (_SCALAR, "numpy.core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals(safe):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} can't be read as tensors and numbers: {str(error).splitlines()[0]}") from None
    if not isinstance(content, list | tuple):
        raise UserError(
            f"{path} holds a {type(content).__name__}, expected the list of a batch's labels and coordinates"
        )
    return list(content)


def _batch(epoch: int, batch: int, content: list[Any], classes: int, path: Path) -> PublishedBatch:
    tensors = [one for one in content if isinstance(one, Tensor) and one.dim()]
    flips = next((one for one in tensors if one.dtype == torch.bool and one.dim() == 1), None)
    if flips is None:
        raise UserError(f"{path} holds no flips (bool), expected labels and coordinates of a batch")
    of_views = [one for one in tensors if len(one) == len(flips)]
    floats = [one.float() for one in of_views if one.dim() == 2 and one.is_floating_point()]
    chosen = next((one.long() & 0xFFFF for one in of_views if one.dim() == 2 and not one.is_floating_point()), None)
    whole = [one.long() for one in of_views if one.dim() == 1 and one.dtype in (torch.int64, torch.uint8, torch.int32)]
    width = classes if chosen is None else chosen.shape[1]
    boxes = [one for one in floats if one.shape[1] == 4 and bool(((one >= 0) & (one <= 1)).all())]
    coords = boxes[0] if boxes else None
    labels = next((one for one in floats if one is not coords and one.shape[1] == width), None)
    if coords is None or labels is None or not whole:
        shapes = ", ".join(f"{str(one.dtype)[6:]} {tuple(one.shape)}" for one in tensors)
        raise UserError(
            f"{path} holds {shapes}; expected crops (B, 4), partners (B,) and labels (B, {classes}) of a batch"
        )
    if chosen is not None:
        floor = (labels.amax(1, keepdim=True) - _FLOOR).expand(-1, classes)
        logits = floor.scatter(1, chosen, labels)
    elif bool((labels >= 0).all() and ((labels.sum(1) - 1).abs() < 1e-2).all()):
        logits = HALD_TEMPERATURE * labels.clamp(min=torch.finfo(torch.float16).tiny).log()
    else:
        logits = labels
    images = whole[1] if len(whole) > 1 else None
    return PublishedBatch(epoch, batch, logits, coords, flips, whole[0], _mixture(content, len(flips)), images)


def _mixture(content: list[Any], views: int) -> Mixture | None:
    """Return the mix of a batch; its box has four numbers: rows and columns from, rows and columns to (FKD)."""
    numbers: list[float] = []
    for one in content:
        if isinstance(one, list | tuple) or (isinstance(one, Tensor) and one.shape == (4,) and views != 4):
            numbers += [float(part) for part in one]
        elif one is not None and (not isinstance(one, Tensor) or not one.dim()):
            numbers.append(float(one))
    if len(numbers) < 5:
        return Mixture(numbers[0]) if numbers else None
    top, left, bottom, right = (int(part) for part in numbers[1:5])
    return Mixture(numbers[0], (top, bottom, left, right))
