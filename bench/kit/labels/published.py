"""Labels that others published, with the coordinates of the views that they belong to.

On disk: ``source.json``, and for each label epoch a file of one row per view, batch by batch, in the types of the
published files: ``labels`` (V, K), with ``classes`` (V, K) where only some are kept, ``crops`` (V, 4) as fractions of
the image (top, left, height, width), ``flips`` bool (V,), ``partners`` (V,), places in the batch, and ``images`` (V,);
``mixes`` float64 (batches, 1 or 5) holds the weight of the base image and CutMix's top, left, bottom and right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bench.api import AugmentationConfig, AugmentedBatch, Images, LabelSource, Split
from bench.api.augmentation import AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.api.stored.layout import shard_name, shuffled
from bench.kit.data.dataset import Resident
from bench.kit.images import link
from bench.kit.labels.codecs import codec_for
from bench.kit.labels.stored import MadeFor, mapped, moved
from bench.kit.views.geometry import mirrored, resized_crop
from bench.kit.views.mixing import Mixture, mix

HALD_TEMPERATURE = 20.0  # of the softmax that HALD stores


class PublishedLabels(LabelSource):
    """Labels of the published views of a set: of ``epochs`` label epochs of ``views`` views each.

    ``form`` of the labels: "logits", "probabilities" (HALD's), or "kept", logits of the likeliest classes (LPQLD).
    """

    kind: ClassVar[str] = "published"

    def __init__(self, folder: Path, facts: dict[str, Any], device: torch.device):
        self.folder, self.facts, self.device = folder, facts, device
        self.classes, self.made_for = facts["classes"], MadeFor.read(facts)
        self.complete = facts["form"] != "kept"
        self._schedule = AugmentationSchedule(**facts["schedule"])
        size = self._schedule.batch_size
        self.rows = [slice(first, min(first + size, facts["views"])) for first in range(0, facts["views"], size)]
        self._epoch = lru_cache(2)(partial(mapped, folder, facts["tensors"]))
        self.batch = lru_cache(1)(self._batch)  # the views of a batch are asked for before its labels
        self._order = lru_cache(2)(partial(shuffled, np.arange(facts["epochs"] * len(self.rows)), "published-order"))

    def schedule(self) -> AugmentationSchedule:
        return self._schedule

    def check(self, images: Images, order_hash: str) -> None:
        self.made_for.check(images, order_hash)

    def views_of(self, images: Split) -> Split:
        assert isinstance(images, Resident)
        return PublishedViews(images, self)

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        """Return logits (B, C) of published views.

        Raises:
            ValueError: the views are not those that the labels came with.
        """
        part = self.batch(views.epoch, views.batch)
        # once per label epoch, since it waits for the device
        if not views.batch and not torch.equal(part["images"].long(), views.indices):
            raise ValueError(f"{self.kind} labels belong to their own views alone")
        if self.facts["form"] == "probabilities":
            tiny = torch.finfo(torch.float16).tiny
            return HALD_TEMPERATURE * part["labels"].float().clamp(min=tiny).log()
        keep = 0 if self.complete else part["labels"].shape[1]
        parts = {"logits": part["labels"], "indexes": part.get("classes", part["labels"])}
        return codec_for(LabelCodec(keep=keep, renorm=True), self.classes).decode(parts)

    def place(self, number: int) -> tuple[int, int]:
        """Return the label epoch and batch that is shown as batch ``number`` of a training.

        Those there are come in their order, then again and again in another one (LPQLD, HALD).
        """
        turn, at = divmod(number, self.facts["epochs"] * len(self.rows))
        return divmod(int(self._order(turn)[at]) if turn else at, len(self.rows))

    def _batch(self, epoch: int, batch: int) -> dict[str, Tensor]:
        """Return what is stored of a batch; ``mixes`` stays on the host."""
        tensors, rows = self._epoch(epoch), self.rows[batch]
        found = {name: moved(tensor[rows], self.device) for name, tensor in tensors.items() if name != "mixes"}
        return found | {"mixes": tensors["mixes"][batch].clone()}

    def save(self, folder: Path) -> None:
        (folder / "source.json").write_text(json.dumps({"kind": self.kind, **self.facts}) + "\n", encoding="utf-8")
        for epoch in range(self.facts["epochs"]):
            link(self.folder / shard_name(epoch), folder / shard_name(epoch))

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        facts: dict[str, Any] = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        return cls(folder, {name: value for name, value in facts.items() if name != "kind"}, device)


class PublishedViews(Split):
    """Images in the views that came with their labels."""

    def __init__(self, images: Resident, source: PublishedLabels):
        super().__init__(images.labels)
        self.images, self.source = images, source

    def views(
        self, config: AugmentationConfig, epoch: int, batch_size: int, device: torch.device | str,
        replay: object = None, first: int = 0, last: int | None = None, rows: Callable[[int], slice] | None = None,
    ) -> Iterator[AugmentedBatch]:  # fmt: skip
        (pixels, labels), batches = self.images.on(device), -(-len(self) // batch_size)
        for number in range(epoch * batches + first, epoch * batches + (batches if last is None else last)):
            yield self._made(pixels, labels, config.size, *self.source.place(number))

    def centered(self, *arguments: Any, **named: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return self.images.centered(*arguments, **named)

    def crops(self, *arguments: Any) -> Tensor:
        return self.images.crops(*arguments)

    def image(self, index: int) -> Tensor:
        return self.images.image(index)

    def _made(self, pixels: Tensor, labels: Tensor, size: int, epoch: int, batch: int) -> AugmentedBatch:
        part = self.source.batch(epoch, batch)
        indices, partners = part["images"].long(), part["partners"].long()
        side = pixels.shape[2]  # images are squares
        boxes = (part["crops"].double() * side).round().long()  # fractions in fp16 may end a pixel outside
        boxes[:, 2:] = torch.minimum(boxes[:, 2:], side - boxes[:, :2]).clamp(min=1)
        views = mirrored(resized_crop(pixels[indices].float() / 255, boxes, size), part["flips"].int())
        numbers = part["mixes"].tolist()
        if numbers:
            top, left, bottom, right = map(int, numbers[1:] or [0] * 4)
            views = mix(views, partners, Mixture(numbers[0], (top, bottom, left, right) if numbers[1:] else None))
        return AugmentedBatch(
            views, indices, labels[indices], labels[indices[partners]], indices[partners],
            numbers[0] if numbers else 1.0, epoch, batch,
        )  # fmt: skip
