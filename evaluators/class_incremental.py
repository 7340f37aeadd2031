"""Classes that arrive in groups: their order, the images of the classes seen so far, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from bench.api import FrozenBackbone, LabelSource, Split
from bench.api.seeds import seed_for
from bench.kit.data.dataset import Files, Resident
from bench.kit.data.reading import some
from bench.kit.views import AugmentedBatch
from bench.kit.views.draws import Purpose, permutation, uniforms


def class_order(classes: int, order_seed: int, student_seed: int) -> list[int]:
    """Return the order in which the classes 0..classes-1 arrive, a function of these three numbers."""
    draws = uniforms(seed_for("class-order", order_seed, student_seed), Purpose.ORDER, 0, 1, classes)
    return [int(index) for index in permutation(draws[0])]


class ClassIncrementalSplit:
    """The images of a split, sorted by the arrival of their classes and stable within a class.

    ``indices`` int64 (N,) are the images' places in the split; ``labels`` int64 (N,) are places in the class order,
    non-decreasing.
    """

    def __init__(self, split: Split, order: Sequence[int]):
        places = torch.tensor(order).argsort()[split.labels]
        self.split = split
        self.indices = places.argsort(stable=True)
        self.labels = places[self.indices]

    def count(self, classes: int) -> int:
        """Return the number of images of the first ``classes`` classes."""
        return int((self.labels < classes).sum())

    def first(self, classes: int) -> Split:
        """Return the images of the first ``classes`` classes, a prefix of those of more classes."""
        count = self.count(classes)
        indices, labels = self.indices[:count], self.labels[:count]
        if isinstance(self.split, Resident):
            return Resident(self.split.pixels[indices], labels)
        assert isinstance(self.split, Files)
        return Files(some(self.split.paths, indices), labels, self.split.workers)


@final
class SeenLabels(LabelSource):
    """The labels of a source for a :class:`ClassIncrementalSplit`, without the logits of classes not yet seen.

    The other logits are not rescaled: their softmax is the source's own, given that the class is one of them.
    """

    kind: ClassVar[str] = "seen"

    def __init__(
        self,
        source: LabelSource,
        split: ClassIncrementalSplit,
        order: Sequence[int],
        classes: int,
        device: torch.device,
    ):
        """Keep the logits of the first ``classes`` classes of a source made for the images of ``split``."""
        self.source = source
        self.indices = split.indices.to(device)
        self.order = torch.tensor(order, device=device)
        self.columns = self.order[:classes]

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        original = replace(
            views,
            indices=self.indices[views.indices],
            partner_indices=self.indices[views.partner_indices],
            labels=self.order[views.labels],
            partner_labels=self.order[views.partner_labels],
        )
        return self.source.soft_labels(original, step).index_select(1, self.columns)

    def save(self, folder: Path) -> None:
        self.source.save(folder)  # later steps need the other logits

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError("the labels of a step are made from the saved source")

    def public(self) -> tuple[FrozenBackbone, ...]:
        return self.source.public()
