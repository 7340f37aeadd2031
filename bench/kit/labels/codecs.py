"""Codecs between logits and the tensors of a file, a row per view: all logits, the largest, or what was fitted."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from bench.api.stored.codec import FORMATS, NUMBERS, LabelCodec
from bench.api.stored.columns import index_dtype, stored_width
from bench.kit.labels.fitted import Linear, VectorQuantised
from bench.kit.labels.numbers import LEVELS, Codec, Fp16, Fp32, OfPlugin, Parts, Whole

_INDEX = {"U8": torch.uint8, "I16": torch.int16, "I32": torch.int32}

# Below the largest logit: a probability of zero at every temperature up to 90 (exp(-104) is no float32), and finite,
# so that zero times its logarithm is zero.
_FLOOR = 1e4


@final
class Largest(Codec):
    """The ``keep`` largest logits of C, with their classes.

    The other classes share their probability evenly, by one more logit (FKD's marginal smoothing), or with ``renorm``
    get none (LPQLD's marginal re-normalisation, MR-k).
    """

    def __init__(self, keep: int, classes: int, numbers: Codec, renorm: bool):
        self.keep, self.classes, self.numbers, self.renorm = keep, classes, numbers, renorm
        self.dtype = _INDEX[index_dtype(classes)]

    def encode(self, logits: Tensor, images: Tensor | None = None) -> Parts:
        logits = logits.float()
        values, indexes = logits.topk(self.keep, 1)
        if not self.renorm and self.keep < self.classes:
            others = logits.scatter(1, indexes, -math.inf).logsumexp(1, keepdim=True)
            values = torch.cat([values, others - math.log(self.classes - self.keep)], 1)
        return self.numbers.encode(values) | {"indexes": indexes.to(self.dtype)}

    def decode(self, parts: Parts, images: Tensor | None = None) -> Tensor:
        values, indexes = self.numbers.decode(parts), kept_classes(parts)
        rest = values.amax(1, keepdim=True) - _FLOOR if self.renorm else values[:, -1:]
        return rest.expand(-1, self.classes).scatter(1, indexes, values[:, : self.keep])


def kept_classes(parts: Parts) -> Tensor:
    """Return the classes (B, K) whose logits were kept, the likeliest first."""
    indexes = parts["indexes"].long()
    return indexes & 0xFFFF if parts["indexes"].dtype == torch.int16 else indexes


def codec_for(spec: LabelCodec, classes: int, fitted: Parts | None = None, images: int = 1) -> Codec:
    """Return the codec of a specification for ``classes`` logits.

    Args:
        fitted: the tensors of a codec that is fitted, on the device where it is used.
        images: how many there are.
    """
    if spec.fit == "vq":
        return VectorQuantised(fitted or {})
    width = stored_width(spec, classes)
    numbers: Codec
    if spec.numbers in LEVELS:
        numbers = Whole(LEVELS[spec.numbers], width)
    elif spec.numbers in NUMBERS:
        numbers = Fp32() if spec.numbers == "fp32" else Fp16()
    else:
        numbers = OfPlugin(FORMATS.get(spec.numbers)(), width)
    if spec.fit:
        return Linear(spec, numbers, fitted or {}, images)
    return Largest(spec.keep, classes, numbers, spec.renorm) if spec.keep else numbers
