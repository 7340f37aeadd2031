"""Number formats of stored labels, and whole numbers of a byte or half a byte."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api.stored.codec import NumberFormat

Parts = dict[str, Tensor]  # by the names of bench.api.stored.columns, each (B, width)

LEVELS = {"int8": 127, "int4": 7}  # of each sign
_LARGEST = torch.finfo(torch.float16).max
_SMALLEST_STEP = torch.finfo(torch.float16).tiny  # the smallest fp16 that is rounded as finely as the larger ones


class Codec(ABC):
    """Encodes logits (B, C) float32 and decodes them, on any device, without waiting for it.

    ``images`` int64 (B,) are the places of the views' images in their set, which some codecs fit something for.
    """

    @abstractmethod
    def encode(self, logits: Tensor, images: Tensor | None = None) -> Parts:
        """Return the parts to store, each with B rows."""

    @abstractmethod
    def decode(self, parts: Parts, images: Tensor | None = None) -> Tensor:
        """Return logits (B, C), float32."""


@final
class Fp32(Codec):
    """The logits as they are."""

    def encode(self, logits: Tensor, images: Tensor | None = None) -> Parts:
        return {"logits": logits.float()}

    def decode(self, parts: Parts, images: Tensor | None = None) -> Tensor:
        return parts["logits"]


@final
class Fp16(Codec):
    """Half precision, clamped to what it can hold."""

    def encode(self, logits: Tensor, images: Tensor | None = None) -> Parts:
        return {"logits": logits.clamp(-_LARGEST, _LARGEST).half()}

    def decode(self, parts: Parts, images: Tensor | None = None) -> Tensor:
        return parts["logits"].float()


@final
class Whole(Codec):
    """Whole numbers from ``-levels`` to ``levels``, and for each row of ``width`` an offset and a step in fp16.

    127 levels take a byte each (int8), 7 half a byte (int4). The error is at most half a step, of which there are
    ``2 * levels`` in a row's range: the offset is rounded first and the step made to fit.
    """

    def __init__(self, levels: int, width: int):
        self.levels, self.width = levels, width

    def encode(self, logits: Tensor, images: Tensor | None = None) -> Parts:
        logits = logits.clamp(-_LARGEST, _LARGEST)
        low, high = logits.amin(1, keepdim=True), logits.amax(1, keepdim=True)
        offset = ((low + high) / 2).half()
        reach = torch.maximum(high - offset.float(), offset.float() - low)
        step = (reach / self.levels).clamp(min=_SMALLEST_STEP).half()
        levels = ((logits - offset.float()) / step.float()).round().clamp(-self.levels, self.levels)
        return {"logits": pack(levels, self.levels), "range": torch.cat([offset, step], 1)}

    def decode(self, parts: Parts, images: Tensor | None = None) -> Tensor:
        offset, step = parts["range"].float().split(1, 1)
        return torch.addcmul(offset, unpack(parts["logits"], self.width), step)


@final
class OfPlugin(Codec):
    """Rows of ``width`` logits in a number format of another package."""

    def __init__(self, numbers: NumberFormat, width: int):
        self.numbers, self.width = numbers, width

    def encode(self, logits: Tensor, images: Tensor | None = None) -> Parts:
        return dict(self.numbers.encode(logits.float()))

    def decode(self, parts: Parts, images: Tensor | None = None) -> Tensor:
        return self.numbers.decode(parts, self.width)


def pack(levels: Tensor, most: int) -> Tensor:
    """Write whole numbers from ``-most`` to ``most`` (…, n) as int8, or up to 7 two a byte as uint8 (…, ceil(n/2))."""
    if most > 7:
        return levels.to(torch.int8)
    odd = levels.shape[-1] % 2
    nibbles = F.pad(levels + 8, (0, odd)).to(torch.uint8)
    return nibbles[..., 0::2] | nibbles[..., 1::2] << 4


def unpack(packed: Tensor, width: int) -> Tensor:
    """Return what :func:`pack` wrote: float32 (…, width)."""
    if packed.dtype == torch.int8:
        return packed.float()
    return torch.stack([packed & 15, packed >> 4], -1).flatten(-2)[..., :width].float() - 8
