"""Classes that arrive one group after the other: their order, the images of those that have arrived, and the labels
that are left of a source which knows them all."""

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
from bench.kit.views import AugmentedBatch
from bench.kit.views.draws import Purpose, permutation, uniforms


def class_order(classes: int, order_seed: int, student_seed: int) -> list[int]:
    """The classes 0..classes-1 in the order in which they arrive, which nothing but these three numbers decides."""
    draws = uniforms(seed_for("class-order", order_seed, student_seed), Purpose.ORDER, 0, 1, classes)
    return [int(index) for index in permutation(draws[0])]


class Arrivals:
    """The images of a split, sorted by when their classes arrive, those of one class as they were; their labels become
    the places of their classes in the order.

    ``indices`` int64 (N,) are their places in the split, ``labels`` int64 (N,) never fall.
    """

    def __init__(self, split: Split, order: Sequence[int]):
        places = torch.tensor(order).argsort()[split.labels]
        self.split = split
        self.indices = places.argsort(stable=True)
        self.labels = places[self.indices]

    def count(self, classes: int) -> int:
        """The number of images of the first ``classes`` classes."""
        return int((self.labels < classes).sum())

    def first(self, classes: int) -> Split:
        """The images of the first ``classes`` classes; those of the classes before are the first of them."""
        count = self.count(classes)
        indices, labels = self.indices[:count], self.labels[:count]
        if isinstance(self.split, Resident):
            return Resident(self.split.pixels[indices], labels)
        assert isinstance(self.split, Files)
        return Files([self.split.paths[index] for index in indices.tolist()], labels, self.split.workers)


@final
class SeenLabels(LabelSource):
    """The labels of a source for images of :class:`Arrivals`, without the logits of the classes that are yet to come.
    What is left is not scaled: a softmax over it is the source's own, given that the class is one of these."""

    kind: ClassVar[str] = "seen"

    def __init__(
        self, source: LabelSource, arrivals: Arrivals, order: Sequence[int], classes: int, device: torch.device
    ):
        """
        Args:
            source: it labels any view, and knows the logits of all classes.
            arrivals: of the images that the source was made for.
        """
        self.source = source
        self.indices = arrivals.indices.to(device)
        self.order = torch.tensor(order, device=device)
        self.columns = self.order[:classes]

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        asked = replace(
            views,
            indices=self.indices[views.indices],
            partner_indices=self.indices[views.partner_indices],
            labels=self.order[views.labels],
            partner_labels=self.order[views.partner_labels],
        )
        return self.source.soft_labels(asked, step).index_select(1, self.columns)

    def save(self, folder: Path) -> None:
        self.source.save(folder)  # a learner that meets more classes later needs all of it

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError("it is made again at every step, from the source that is kept")

    def public(self) -> tuple[FrozenBackbone, ...]:
        return self.source.public()
