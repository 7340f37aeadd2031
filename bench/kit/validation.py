"""The one place where what a plug-in made is checked: the worker, the conformance suite, import and the Python API."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from bench.api import DatasetInfo, Images, LabelSource


class InvalidResult(Exception):
    """A plug-in made something else than was requested; the message is one line that says what."""


class Diverged(Exception):
    """Training left the finite numbers: "diverged at epoch 7"."""


def check_images(images: object, info: DatasetInfo, ipc: int, who: str) -> Images:
    """Return images that are uint8, of the data set's size, with IPC per class in class order; refuse others.

    Args:
        who: whose images these are, for the message.

    Raises:
        InvalidResult: the first thing that is wrong.
    """
    if problem := _wrong_images(images, info, ipc):
        raise InvalidResult(f"{who} returned {problem}")
    return cast(Images, images)


def _wrong_images(images: object, info: DatasetInfo, ipc: int) -> str:
    """Say the first thing that is wrong with images; empty where nothing is."""
    if not isinstance(images, Images):
        return f"{type(images).__name__}, expected Images or an iterator of ImageBlock"
    pixels, labels = images.pixels, images.labels
    wanted = (ipc * info.classes, 3, info.image_size, info.image_size)
    for name, tensor in (("pixels", pixels), ("labels", labels)):
        if not isinstance(tensor, Tensor):
            return f"{name} of type {type(tensor).__name__}, expected a tensor"
    if pixels.dtype != torch.uint8:
        odd = " that are not finite" if pixels.is_floating_point() and not bool(pixels.isfinite().all()) else ""
        return f"{_dtype(pixels)} pixels{odd}, expected uint8; bench.kit.images.quantise makes it of pixels in [0, 1]"
    if labels.dtype != torch.int64 or labels.ndim != 1:
        return f"{_dtype(labels)} labels {tuple(labels.shape)}, expected int64 (N,)"
    if len(pixels) != wanted[0] or len(labels) != wanted[0]:
        found = f"{len(pixels)} images and {len(labels)} labels of {len(labels.unique())} classes"
        return f"{found} for IPC {ipc}; expected {wanted[0]}, class by class"
    if tuple(pixels.shape) != wanted:
        return f"pixels of shape {tuple(pixels.shape)}, expected {wanted}"
    if not torch.equal(labels.cpu(), torch.arange(info.classes).repeat_interleave(ipc)):
        counts = labels.cpu().clamp(0, info.classes).bincount(minlength=info.classes)[: info.classes]
        wrong = (counts != ipc).nonzero().flatten().tolist()
        what = f"{int(counts[wrong[0]])} images of class {wrong[0]}" if wrong else "classes out of order"
        return f"{what}; expected {ipc} of each class, class by class"
    for name, extra in images.extras.items():
        if len(extra) != wanted[0]:
            return f"{len(extra)} rows of the extra {name!r}, expected {wanted[0]}"
    return ""


def check_labels(source: object, who: str) -> LabelSource:
    """Return a label source; refuse what is none.

    Raises:
        InvalidResult: what it is instead.
    """
    if not isinstance(source, LabelSource):
        raise InvalidResult(f"{who} returned {type(source).__name__} as its label model, expected a LabelSource")
    return source


def check_logits(logits: object, count: int, width: int, who: str) -> None:
    """Refuse soft labels that are not finite float32 logits ``(count, width)`` without gradient.

    Raises:
        InvalidResult: the first thing that is wrong.
    """
    if not isinstance(logits, Tensor):
        raise InvalidResult(f"{who} labels with {type(logits).__name__}, expected a tensor of logits")
    if logits.dtype != torch.float32 or tuple(logits.shape) != (count, width):
        raise InvalidResult(
            f"{who} labels with {_dtype(logits)} of shape {tuple(logits.shape)}, expected float32 {(count, width)}"
        )
    if logits.requires_grad:
        raise InvalidResult(f"{who} labels with logits that carry a gradient")
    if not bool(logits.isfinite().all()):
        raise InvalidResult(f"{who} labels with logits that are not finite")


def check_finite(tensors: Mapping[str, Tensor], whose: str) -> None:
    """Refuse tensors that hold what is no finite number.

    Raises:
        InvalidResult: the first such tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InvalidResult(f"{whose} holds {name} that are not finite")


def check_training(epoch: int, loss: Tensor | float, parameters: Iterable[nn.Parameter] = ()) -> None:
    """Refuse to go on with a loss or weights that are not finite; it waits for the device, so once an epoch.

    Args:
        epoch: from 1.

    Raises:
        Diverged: it names the epoch.
    """
    finite = [parameter.detach().isfinite().all() for parameter in parameters]
    if not math.isfinite(float(loss)) or (finite and not bool(torch.stack(finite).all())):
        raise Diverged(f"diverged at epoch {epoch}: the loss is {float(loss):.3g}")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
