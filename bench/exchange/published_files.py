"""Label files as others publish them: those of FKD and SRe2L, G_VBSM, LPLD, LPQLD and HALD.

All are one file per batch, ``epoch_3/batch_17.tar``, of ``torch.save`` and a list: for each view a crop (top, left,
height and width as fractions of the image), a flip, the place of the mix partner in the batch and the label, and one
weight and box of the mix. Their order in the list, their types and what a label is differ; each is recognised by its
type and shape. Files are read without running code from them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError

# what numpy's numbers are pickled with (the weight of a mix); they hold no code
_HARMLESS = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64))]
_SCALAR = np.float64(0).__reduce__()[0]
Parts = dict[str, Tensor]  # of a batch, as bench.kit.labels.published stores them


def label_files(folder: Path) -> dict[int, dict[int, Path]]:
    """Return the files of each epoch and batch, both in the order of their numbers.

    Raises:
        UserError: there are none, or some that can't be told apart.
    """
    found = list(folder.glob("epoch_*/batch_*.*"))
    if not found:
        raise UserError(
            f"{folder} holds no epoch_E/batch_B.tar; expected the label files of SRe2L, LPLD, LPQLD or HALD"
        )
    numbered: dict[tuple[int, int], Path] = {}
    for path in found:
        if not (match := re.fullmatch(r"epoch_(\d+)/batch_(\d+)", f"{path.parent.name}/{path.stem}")):
            raise UserError(f"{path} is none of the files epoch_E/batch_B.tar of numbers E and B; move it elsewhere")
        if (other := numbered.setdefault((int(match[1]), int(match[2])), path)) is not path:
            raise UserError(f"{other} and {path} are the same batch; move one elsewhere")
    epochs: dict[int, dict[int, Path]] = {}
    for (epoch, batch), path in sorted(numbered.items()):
        epochs.setdefault(epoch, {})[batch] = path
    return epochs


def _content(path: Path) -> list[Any]:
    safe: list[Any] = [*_HARMLESS, _SCALAR, (_SCALAR, "numpy.core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals(safe):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} can't be read as tensors and numbers: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from None
    if not isinstance(content, list | tuple):
        raise UserError(
            f"{path} holds a {type(content).__name__}, expected the list of a batch's labels and coordinates"
        )
    return list(content)


def read_batch(path: Path, classes: int, side: int) -> Parts:
    """Read the labels, of so many classes, and coordinates of a batch, of images of ``side`` pixels.

    Raises:
        UserError: they can't be read without running code, or are none.
    """
    content = _content(path)
    tensors = [one for one in content if isinstance(one, Tensor) and one.dim()]
    flips = next((one for one in tensors if one.dtype == torch.bool and one.dim() == 1), None)
    if flips is None:
        raise UserError(f"{path} holds no flips (bool), expected labels and coordinates of a batch")
    of_views = [one for one in tensors if len(one) == len(flips)]
    floats = [one for one in of_views if one.dim() == 2 and one.is_floating_point()]
    chosen = next((one for one in of_views if one.dim() == 2 and not one.is_floating_point()), None)
    whole = [one for one in of_views if one.dim() == 1 and one.dtype in (torch.int64, torch.uint8, torch.int32)]
    width = classes if chosen is None else chosen.shape[1]
    crops = next((one for one in floats if one.shape[1] == 4 and bool(((one >= 0) & (one <= 1)).all())), None)
    try:
        mixes = _mixes(content, len(flips))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} holds something else beside its tensors ({error}); expected numbers of a mix"
        ) from None
    labels = next((one for one in floats if one is not crops and one.shape[1] == width), None)
    if crops is None or labels is None or not whole:
        shapes = ", ".join(f"{str(one.dtype)[6:]} {tuple(one.shape)}" for one in tensors)
        raise UserError(
            f"{path} holds {shapes}; expected crops (B, 4), partners (B,) and labels (B, {classes}) of a batch"
        )
    if wrong := _impossible(crops.double(), whole[0].long(), mixes, side):
        raise UserError(f"{path} has {wrong}; it is damaged, or of images of another size: get it again")
    found = {"labels": labels, "crops": crops, "flips": flips, "partners": whole[0], "mixes": mixes}
    return found | ({} if chosen is None else {"classes": chosen}) | ({"images": whole[1]} if len(whole) > 1 else {})


def _mixes(content: list[Any], views: int) -> Tensor:
    """Return the numbers of the mix: none, the weight, or that and rows and columns from, rows and columns to (FKD)."""
    numbers: list[float] = []
    for one in content:
        if isinstance(one, list | tuple) or (isinstance(one, Tensor) and one.shape == (4,) and views != 4):
            numbers += [float(part) for part in one]
        elif one is not None and (not isinstance(one, Tensor) or not one.dim()):
            numbers.append(float(one))
    return torch.tensor(numbers[: 5 if len(numbers) > 4 else 1], dtype=torch.float64)


def _impossible(crops: Tensor, partners: Tensor, mixes: Tensor, side: int) -> str:
    """Say which coordinates no view can have, empty where all can; fractions may be rounded to fp16."""
    if bool((crops[:, 2:] <= 0).any() or (crops[:, :2] + crops[:, 2:] > 1.002).any()):
        return "crops without area, or beyond their image"
    if not torch.equal(partners.sort().values, torch.arange(len(partners))):
        return "mix partners that are no permutation of the batch"
    weight, box = mixes[:1], mixes[1:]
    if not bool(((weight >= 0) & (weight <= 1)).all() and ((box >= 0) & (box <= side)).all()):
        return f"a mix beyond its images; expected a weight of 0 to 1 and pixels of 0 to {side}"
    # a centre on the border leaves half of a box, whose share is, before it is clipped or after, 1 - weight
    if len(box) and float((box[2:] - box[:2]).min()) + 1 < int(side * math.sqrt(1 - float(weight))) // 2:
        return f"a mix box of pixels {[*map(int, box.tolist())]}, too small for the weight {float(weight):.3g}"
    return ""
