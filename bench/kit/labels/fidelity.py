"""Numbers on how near labels are to those of the model that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api.stored.layout import LabelLayout
from bench.kit.labels.codecs import kept_classes
from bench.kit.labels.numbers import Parts

VIEWS = 10_000  # at most, evenly spaced
TEMPERATURE = 20.0  # the usual one of students


def compare(wanted: Tensor, found: Tensor) -> dict[str, Tensor]:
    """Compare logits (B, C) with those of a label model; each number per view (B,).

    ``kl`` is the divergence from the label model at temperature 1, ``kl_20`` that at 20, ``agreement`` whether the
    largest logit is of the same class.
    """
    values = {"agreement": (wanted.argmax(1) == found.argmax(1)).float()}
    for name, by in (("kl", 1.0), ("kl_20", TEMPERATURE)):
        target = F.log_softmax(wanted / by, 1)
        values[name] = F.kl_div(F.log_softmax(found / by, 1), target, reduction="none", log_target=True).sum(1)
    return values


def sampled(layout: LabelLayout) -> set[tuple[int, int]]:
    """Return the epochs and batches of the views that are compared."""
    kept = [pair for shard in range(layout.shards) for pair in layout.kept(shard)]
    return set(kept[:: -(-layout.total_rows // VIEWS)])


def scores(wanted: Tensor, found: Tensor, parts: Parts) -> Parts:
    """Compare a label model's logits with those that come back from ``parts``, see :func:`compare`, for :func:`means`.

    ``mass`` is the label model's probability of the classes that are kept, ``codes`` are those of vqM.
    """
    values = compare(wanted, found)
    if "indexes" in parts:
        values["mass"] = wanted.softmax(1).gather(1, kept_classes(parts)).sum(1)
    return values | {name: parts[name] for name in parts if name == "codes"}


def means(values: Parts) -> dict[str, float]:
    """Return the means of :func:`scores` of all views compared, and the perplexity of codes."""
    found = {"mass": 1.0} | {name: float(tensor.mean()) for name, tensor in values.items() if name != "codes"}
    if "codes" in values:
        share = F.one_hot(values["codes"].long(), 256).float().mean(0)  # (M, K)
        found["perplexity"] = float(torch.special.entr(share).sum(1).exp().mean())
    return found
