"""Images and label sources from a user's own tensors or arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, final

import torch
from torch import Tensor

from bench.api import AugmentedBatch, DatasetInfo, Images, LabelSource
from bench.api.stored.codec import LabelCodec
from bench.errors import UserError
from bench.kit.labels.codecs import codec_for
from bench.kit.labels.static import StaticLabels
from bench.kit.labels.stored import MadeFor
from bench.kit.validation import InvalidResult, check_images, check_logits

Soft = Literal["logits", "probabilities"]
_TOLERANCE = 1e-3  # of values outside a stated range, and of sums of probabilities
_LEAST = 0.01  # of a stated range that images fill


def images_of(
    pixels: Any, classes: Any, info: DatasetInfo, ipc: int | None, value_range: tuple[float, float] | None, who: str
) -> tuple[Images, Tensor]:
    """Sort images by class, bring them to uint8 and check them; return them and their places in ``pixels`` (N,).

    Args:
        pixels: (N, 3, S, S), uint8 or float with ``value_range``.
        classes: int (N,); None: the images are class by class already.
        ipc: None: N divided by the number of classes.

    Raises:
        UserError: floats without a range or outside it, or classes that are no integers (N,).
        InvalidResult: as of :func:`bench.kit.validation.check_images`.
    """
    pixels = _bytes(torch.as_tensor(pixels).detach().cpu(), value_range)
    ipc = max(1, len(pixels) // info.classes) if ipc is None else ipc
    labels = torch.as_tensor(torch.arange(info.classes).repeat_interleave(ipc) if classes is None else classes)
    labels = labels.detach().cpu()
    if labels.is_floating_point() or (classes is not None and labels.shape != pixels.shape[:1]):
        raise UserError(f"classes are {labels.dtype} {tuple(labels.shape)}, expected integers ({len(pixels)},)")
    order = torch.arange(len(pixels)) if classes is None else labels.argsort(stable=True)
    return check_images(
        Images(pixels[order], labels.long() if classes is None else labels.long()[order]), info, ipc, who
    ), order


def _bytes(pixels: Tensor, value_range: tuple[float, float] | None) -> Tensor:
    if not pixels.is_floating_point():
        if value_range not in (None, (0, 255)):
            raise UserError(f"images are {pixels.dtype}, whose black and white are 0 and 255; leave out value_range")
        return pixels
    if value_range is None:
        raise UserError("images are float; say which values are black and white, e.g. value_range=(0, 1)")
    low, high = value_range
    if not low < high:
        raise UserError(f"value_range ({low:g}, {high:g}) is no range; expected black, then white, e.g. (0, 1)")
    scaled = (pixels.double() - low) / (high - low)
    if not bool(((scaled >= -_TOLERANCE) & (scaled <= 1 + _TOLERANCE)).all()):
        raise UserError(
            f"images hold values from {float(pixels.min()):.4g} to {float(pixels.max()):.4g}, outside value_range "
            f"({low:g}, {high:g}); undo the normalisation, or state the range that they have"
        )
    if len(scaled) and float(scaled.max() - scaled.min()) < _LEAST:
        raise UserError(
            f"images hold values from {float(pixels.min()):.4g} to {float(pixels.max()):.4g}, next to nothing of "
            f"value_range ({low:g}, {high:g}); state the range that they have"
        )
    return scaled.mul(255).round().clamp(0, 255).to(torch.uint8)


def static_source(
    labels: Tensor, soft: Soft | None, info: DatasetInfo, made_for: MadeFor, device: torch.device
) -> StaticLabels:
    """Return a label source of one soft label per image, in fp16 where ``labels`` are half precision, else in fp32.

    Args:
        labels: (N, C) in the order of the images.
        soft: None: logits, unless they could be probabilities, which is an error.

    Raises:
        UserError: another shape, values that are not finite, or rows that could be either.
    """
    if tuple(labels.shape) != (len(labels), info.classes) or not labels.is_floating_point():
        raise UserError(f"soft labels are {labels.dtype} {tuple(labels.shape)}, expected float (N, {info.classes})")
    values = labels.detach().float().cpu()
    if not bool(values.isfinite().all()):
        raise UserError("soft labels are not finite")
    distributions = _distributions(values)
    if soft is None and bool(((values >= 0) & (values <= 1)).all()):  # perhaps cut off or rounded ones
        raise UserError(
            "soft labels look like probabilities; say soft='probabilities', or soft='logits' if they are not"
        )
    if soft == "probabilities":
        if not distributions:
            raise UserError("soft labels are not probabilities: rows must be at least 0 and sum to 1")
        values = values.clamp(min=torch.finfo(torch.float32).tiny).log()
    codec = LabelCodec.parse("fp16" if labels.dtype == torch.float16 else "fp32")
    return StaticLabels(codec_for(codec, info.classes).encode(values), codec, info.classes, made_for, device)


def _distributions(values: Tensor) -> bool:
    return bool((values >= 0).all() and ((values.sum(1) - 1).abs() < _TOLERANCE).all())


@final
class CallableLabels(LabelSource):
    """Labels from a function of the views: float pixels (B, 3, S, S) in [0, 1] → logits (B, C)."""

    kind: ClassVar[str] = "callable"

    def __init__(self, function: Callable[[Tensor], Tensor], classes: int, who: str):
        self.function, self.classes, self.who = function, classes, who

    @torch.no_grad()
    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        """Call the function.

        Raises:
            InvalidResult: it returned something else than finite float32 logits, or probabilities.
        """
        logits = self.function(views.pixels)
        check_logits(logits, len(views), self.classes, self.who)
        if _distributions(logits):
            raise InvalidResult(
                f"{self.who} labels with what look like probabilities; return logits, or their logarithm"
            )
        return logits

    def save(self, folder: Path) -> None:
        raise NotImplementedError("a function cannot be stored")

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError("a function cannot be stored")
