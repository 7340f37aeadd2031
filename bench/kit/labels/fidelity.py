"""Numbers on how near labels are to those of the model that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api import AugmentedBatch, LabelSource
from bench.kit.labels.codecs import kept_classes
from bench.kit.labels.stored import StoredLabels

VIEWS = 10_000  # at most, evenly spaced
TEMPERATURE = 20.0  # the usual one of students


def compare(wanted: Tensor, found: Tensor) -> dict[str, Tensor]:
    """Compare logits (B, C) with those of a label model; each number per view (B,).

    ``kl`` is the divergence from the label model at temperature 1, ``kl_20`` that at 20, ``agreement`` whether the
    largest logit is of the same class.
    """
    scores = {"agreement": (wanted.argmax(1) == found.argmax(1)).float()}
    for name, by in (("kl", 1.0), ("kl_20", TEMPERATURE)):
        target = F.log_softmax(wanted / by, 1)
        scores[name] = F.kl_div(F.log_softmax(found / by, 1), target, reduction="none", log_target=True).sum(1)
    return scores


@torch.no_grad()
def measure(
    label_model: LabelSource, stored: StoredLabels, views_of: Callable[[int, int], AugmentedBatch]
) -> Mapping[str, float]:
    """Return the means of :func:`compare` over stored views, and what else tells their quality.

    ``mass`` is the label model's probability of the classes that are kept, ``perplexity`` that of the codes of vqM.
    """
    layout, scores, codes = stored.layout, dict[str, list[Tensor]](), list[Tensor]()
    kept = [pair for shard in range(layout.shards) for pair in layout.kept(shard)]
    for epoch, batch in kept[:: -(-layout.total_rows // VIEWS)]:
        views = views_of(epoch, batch)
        wanted = label_model.soft_labels(views, epoch * layout.schedule.batches + batch)
        parts = stored.parts(views)
        found = compare(wanted, stored.codec.decode(parts, views.indices))
        if "indexes" in parts:
            found["mass"] = wanted.softmax(1).gather(1, kept_classes(parts)).sum(1)
        for name, values in found.items():
            scores.setdefault(name, []).append(values)
        if "codes" in parts:
            codes.append(parts["codes"])
    means = {name: float(torch.cat(values).mean()) for name, values in scores.items()}
    if codes:
        share = F.one_hot(torch.cat(codes).long(), 256).float().mean(0)  # (M, K)
        means["perplexity"] = float(torch.special.entr(share).sum(1).exp().mean())
    return {"mass": 1.0, **means}
