"""Codecs between logits and the tensors of a file, a row per view: all logits or the largest, at some precision."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from bench.api.stored.codec import FORMATS, LabelCodec, NumberFormat
from bench.api.stored.layout import index_dtype, stored_width

Parts = dict[str, Tensor]  # by the names of bench.api.stored.layout, each (B, width)

_INDEX = {"U8": torch.uint8, "I16": torch.int16, "I32": torch.int32}
_LARGEST = torch.finfo(torch.float16).max
_SMALLEST_STEP = torch.finfo(torch.float16).tiny  # the smallest fp16 that is rounded as finely as the larger ones

# Below the largest logit: a probability of zero at every temperature up to 90 (exp(-104) is no float32), and finite,
# so that zero times its logarithm is zero.
_FLOOR = 1e4


class Codec(ABC):
    """Encodes logits (B, C) float32 and decodes them, on any device, without waiting for it."""

    @abstractmethod
    def encode(self, logits: Tensor) -> Parts:
        """Return the parts to store, each with B rows."""

    @abstractmethod
    def decode(self, parts: Parts) -> Tensor:
        """Return logits (B, C), float32."""


@final
class Fp32(Codec):
    """The logits as they are."""

    def encode(self, logits: Tensor) -> Parts:
        return {"logits": logits.float()}

    def decode(self, parts: Parts) -> Tensor:
        return parts["logits"]


@final
class Fp16(Codec):
    """Half precision, clamped to what it can hold."""

    def encode(self, logits: Tensor) -> Parts:
        return {"logits": logits.clamp(-_LARGEST, _LARGEST).half()}

    def decode(self, parts: Parts) -> Tensor:
        return parts["logits"].float()


@final
class Int8(Codec):
    """One byte per logit, and for each row an offset and a step in fp16.

    The error is at most half a step, of which there are 254 in a row's range: the offset is rounded first and the
    step made to fit.
    """

    def encode(self, logits: Tensor) -> Parts:
        logits = logits.clamp(-_LARGEST, _LARGEST)
        low, high = logits.amin(1, keepdim=True), logits.amax(1, keepdim=True)
        offset = ((low + high) / 2).half()
        reach = torch.maximum(high - offset.float(), offset.float() - low)
        step = (reach / 127).clamp(min=_SMALLEST_STEP).half()
        levels = ((logits - offset.float()) / step.float()).round().clamp(-127, 127)
        return {"logits": levels.to(torch.int8), "range": torch.cat([offset, step], 1)}

    def decode(self, parts: Parts) -> Tensor:
        offset, step = parts["range"].float().split(1, 1)
        return torch.addcmul(offset, parts["logits"].float(), step)


@final
class OfPlugin(Codec):
    """Rows of ``width`` logits in a number format of another package."""

    def __init__(self, numbers: NumberFormat, width: int):
        self.numbers, self.width = numbers, width

    def encode(self, logits: Tensor) -> Parts:
        return dict(self.numbers.encode(logits.float()))

    def decode(self, parts: Parts) -> Tensor:
        return self.numbers.decode(parts, self.width)


@final
class Largest(Codec):
    """The ``keep`` largest logits of C, with their classes.

    The other classes share their probability evenly, by one more logit (FKD's marginal smoothing), or with ``renorm``
    get none (LPQLD's marginal re-normalisation, MR-k).
    """

    def __init__(self, keep: int, classes: int, numbers: Codec, renorm: bool):
        self.keep, self.classes, self.numbers, self.renorm = keep, classes, numbers, renorm
        self.dtype = _INDEX[index_dtype(classes)]

    def encode(self, logits: Tensor) -> Parts:
        logits = logits.float()
        values, indexes = logits.topk(self.keep, 1)
        if not self.renorm and self.keep < self.classes:
            others = logits.scatter(1, indexes, -math.inf).logsumexp(1, keepdim=True)
            values = torch.cat([values, others - math.log(self.classes - self.keep)], 1)
        return self.numbers.encode(values) | {"indexes": indexes.to(self.dtype)}

    def decode(self, parts: Parts) -> Tensor:
        values, indexes = self.numbers.decode(parts), parts["indexes"].long()
        if self.dtype == torch.int16:
            indexes = indexes & 0xFFFF
        rest = values.amax(1, keepdim=True) - _FLOOR if self.renorm else values[:, -1:]
        return rest.expand(-1, self.classes).scatter(1, indexes, values[:, : self.keep])


_NUMBERS: dict[str, type[Codec]] = {"fp32": Fp32, "fp16": Fp16, "int8": Int8}


def codec_for(spec: LabelCodec, classes: int) -> Codec:
    """Return the codec of a specification for ``classes`` logits."""
    if spec.numbers in _NUMBERS:
        numbers: Codec = _NUMBERS[spec.numbers]()
    else:
        numbers = OfPlugin(FORMATS.get(spec.numbers)(), stored_width(spec, classes))
    return Largest(spec.keep, classes, numbers, spec.renorm) if spec.keep else numbers


def is_complete(spec: LabelCodec, classes: int) -> bool:
    """Return whether every class comes back with a logit of its own or a share of the rest."""
    return not spec.renorm or spec.keep in (0, classes)
