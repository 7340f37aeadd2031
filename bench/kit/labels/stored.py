"""Stored labels: the logits of every view of a schedule, read from memory-mapped shards batch by batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from bench.api import Images, LabelSource
from bench.api.augmentation import AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.api.stored.columns import FITTED, file_bytes, label_columns
from bench.api.stored.layout import LabelLayout, shard_name
from bench.errors import UserError
from bench.kit.images import link
from bench.kit.labels.codecs import codec_for
from bench.kit.views import AugmentedBatch

_OPEN = 2  # shards that are mapped at a time: memory stays flat however many there are


@dataclass(frozen=True)
class MadeFor:
    """The images and the model that labels belong to, apart from their views.

    The images (:func:`images_digest`) with the extras that the label model answered by, the class order (SHA-256 of the
    class ids), and the kind of the label model.
    """

    images: str
    order_hash: str
    label_model: str
    extras: tuple[str, ...] = ()

    @classmethod
    def of(cls, images: Images, order_hash: str, source: LabelSource) -> Self:
        """Describe the images that a source labels."""
        return cls(images_digest(images), order_hash, source.kind)

    def facts(self) -> dict[str, Any]:
        """Return what is written of it into a ``source.json``, whose bytes count."""
        facts = {"images": self.images, "order_hash": self.order_hash, "labeller": self.label_model}
        return {**facts, "extras": self.extras} if self.extras else facts

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Self:
        """Read back what :meth:`facts` returned."""
        return cls(facts["images"], facts["order_hash"], facts["labeller"], tuple(facts.get("extras", ())))

    def check(self, images: Images, order_hash: str) -> None:
        """Refuse other images or another class order.

        Raises:
            UserError: what differs.
        """
        if self.order_hash != order_hash:
            raise UserError(
                f"these labels have another class order (sha256 {self.order_hash[:12]}, expected {order_hash[:12]}); "
                "label the images again with this data set's teacher"
            )
        if self.images != (found := images_digest(images)):
            raise UserError(
                f"these labels were made for another image set (sha256 {self.images[:12]}, this one has {found[:12]}); "
                "use the images they were made for, or label these again"
            )


class StoredLabels(LabelSource):
    """Logits of the views of a schedule in a folder of shards, see :class:`bench.api.stored.layout.LabelLayout`."""

    kind: ClassVar[str] = "stored"

    def __init__(self, folder: Path, layout: LabelLayout, made_for: MadeFor, device: torch.device):
        """Take the labels in a folder, which holds whole shards."""
        self.folder, self.layout, self.made_for, self.device = folder, layout, made_for, device
        fitted = load_file(folder / FITTED, device.type) if layout.fitted else {}
        self.classes = layout.classes
        self.codec = codec_for(layout.codec, layout.classes, fitted, layout.schedule.images)
        self.fidelity: Mapping[str, float] = {}  # to the label model, where the labels were just stored
        self.complete = layout.codec.complete(layout.classes)
        self._names = [column.name for column in label_columns(layout.codec, layout.classes)]
        self._shard = lru_cache(_OPEN)(partial(mapped, folder, self._names))

    def schedule(self) -> AugmentationSchedule:
        return self.layout.schedule

    def replayed_batches(self, epoch: int) -> Sequence[tuple[int, int]] | None:
        return self.layout.replay(epoch)

    def check(self, images: Images, order_hash: str) -> None:
        self.made_for.check(images, order_hash)

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        """Return logits (B, C) of the batch ``views.batch`` of ``views.epoch``.

        Raises:
            ValueError: that batch is not stored, or is of another size.
        """
        return self.codec.decode(self.parts(views), views.indices)

    def parts(self, views: AugmentedBatch) -> dict[str, Tensor]:
        """Return what is stored for a batch, as :meth:`soft_labels` decodes it."""
        shard, start, stop = self.layout.place(views.epoch, views.batch)
        if stop - start != len(views):
            raise ValueError(
                f"batch {views.batch} of epoch {views.epoch} has {len(views)} views but {stop - start} stored labels"
            )
        tensors = self._shard(shard)
        return {name: moved(tensors[name][start:stop], self.device) for name in self._names}

    def save(self, folder: Path) -> None:
        layout = self.layout
        # first epoch, last epoch and bytes of each; for people, since it follows from the rest
        kept = [layout.kept(shard) for shard in range(layout.shards)]
        shards = [[batches[0][0], batches[-1][0], layout.size(shard)] for shard, batches in enumerate(kept)]
        facts = {
            "kind": self.kind,
            "schedule": layout.schedule.model_dump(mode="json"),
            "codec": layout.codec.facts(),
            "classes": layout.classes,
            **self.made_for.facts(),
            "shard_bytes": layout.shard_bytes,
            "shards": shards,
        }
        (folder / "source.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        for shard in range(layout.shards):
            link(self.folder / shard_name(shard), folder / shard_name(shard))
        if layout.fitted:
            link(self.folder / FITTED, folder / FITTED)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        """Read back what :meth:`save` wrote; every shard's header and size are compared with what they must be.

        Raises:
            UserError: a shard is missing, cut short or another one; it is named.
        """
        facts: dict[str, Any] = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        schedule, codec = AugmentationSchedule(**facts["schedule"]), LabelCodec(**facts["codec"])
        layout = LabelLayout(schedule, codec, facts["classes"], facts["shard_bytes"])
        for shard in range(layout.shards):
            if problem := shard_problem(folder, layout, shard):
                raise UserError(f"{folder / shard_name(shard)} {problem}; label the images again")
        if layout.fitted and (problem := _fitted_problem(folder / FITTED, layout)):
            raise UserError(f"{folder / FITTED} {problem}; label the images again")
        return cls(folder, layout, MadeFor.read(facts), device)


def shard_problem(folder: Path, layout: LabelLayout, shard: int) -> str:
    """Say what is wrong with a shard's file, by its size and header; empty where nothing is."""
    path, header, size = folder / shard_name(shard), layout.header(shard), layout.size(shard)
    try:
        found = path.stat().st_size
        with path.open("rb") as stream:
            begins = stream.read(len(header))
    except FileNotFoundError:
        return "is missing"
    if found != size:
        return f"holds {found:,} bytes instead of {size:,}"
    return "" if begins == header else "holds labels of another shape than source.json says"


def _fitted_problem(path: Path, layout: LabelLayout) -> str:
    wanted = file_bytes((name, *facts) for name, facts in layout.fitted.items())
    if not path.is_file():
        return "is missing"
    found = path.stat().st_size
    return "" if found == wanted else f"holds {found:,} bytes instead of {wanted:,}"


def images_digest(images: Images) -> str:
    """SHA-256 (hex) of the shape, pixels and labels of images and of their extras that are input, as loaded from files.

    Dense hard labels are no part of it: a student of other labels does without.
    """
    digest = hashlib.sha256(str(tuple(images.pixels.shape)).encode())
    rows = [extra for _, extra in sorted(images.extras.items()) if extra.dim() == 2]
    for tensor in (images.pixels, images.labels, *rows):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def moved(rows: Tensor, device: torch.device) -> Tensor:
    """Copy mapped rows to a device, without waiting for it; no copy keeps a shard mapped."""
    return rows.clone() if device.type == "cpu" else rows.pin_memory().to(device, non_blocking=True)


def mapped(folder: Path, names: Sequence[str], shard: int) -> dict[str, Tensor]:
    """Map the tensors of a shard: pages are read when they are touched and unmapped with the last tensor."""
    with safe_open(folder / shard_name(shard), framework="pt") as file:
        return {name: file.get_tensor(name) for name in names}
