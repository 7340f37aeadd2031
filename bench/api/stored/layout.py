"""The layout of stored labels on disk: the batches of a schedule that are kept, their shards and bytes.

Everything follows from the schedule, the codec and the number of classes, so the size of every file is known before
a label is made, and a damaged file is found before training. Torch-free: grids are planned with it.

A shard is one safetensors file (a length of 8 bytes, a JSON header padded to 8, then the tensors): one tensor per part
of the labels with one row per view, in the order of the schedule, so that a batch is one contiguous slice.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bench.api.augmentation import AugmentationSchedule
from bench.api.seeds import seed_for
from bench.api.stored.codec import LabelCodec
from bench.api.stored.columns import (
    BATCH_COORDS,
    ITEM_BYTES,
    VIEW_COORDS,
    Column,
    file_bytes,
    fitted_tensors,
    label_columns,
    tensor_header,
)

SHARD_BYTES = 64 * 2**20  # memory that writing or reading a shard may take


class LabelLayout:
    """The stored labels of a schedule.

    Of a pruned store, one full batch in ``codec.prune`` is kept (rounded up), drawn at random from all epochs (LPLD),
    and in the same way one of the smaller batches that end an epoch, if there are any: so every epoch of a replay
    has the images and steps that an epoch of the schedule has. Of a pool, the first ``codec.pool`` epochs are kept.

    A shard holds as many whole epochs' worth of batches as fit into ``shard_bytes``; where not even one does, as many
    whole batches, at least one.
    """

    def __init__(self, schedule: AugmentationSchedule, codec: LabelCodec, classes: int, shard_bytes: int = SHARD_BYTES):
        self.schedule, self.codec, self.classes, self.shard_bytes = schedule, codec, classes, shard_bytes
        self.of_views = label_columns(codec, classes) + (VIEW_COORDS if codec.coords else ())
        self.of_batches = BATCH_COORDS if codec.coords else ()
        self.fitted = fitted_tensors(codec, classes, schedule.images)
        self._full, self._short = _kept(schedule, codec)
        self._keys = np.sort(np.concatenate([self._full, self._short]))
        full = self._keys % schedule.batches < schedule.images // schedule.batch_size
        rows = np.where(full, schedule.batch_size, schedule.images % schedule.batch_size)
        self._first = np.concatenate([[0], np.cumsum(rows)])  # row of each kept batch, and the end
        epochs = shard_bytes // (self.view_bytes * schedule.images)
        alone = max(1, shard_bytes // (self.view_bytes * schedule.batch_size))
        self._per_shard = epochs * schedule.batches or alone

    def __len__(self) -> int:
        """Batches kept."""
        return len(self._keys)

    @property
    def shards(self) -> int:
        """Files."""
        return math.ceil(len(self) / self._per_shard)

    @property
    def total(self) -> int:
        """Bytes of all files together."""
        fitted = file_bytes((name, *facts) for name, facts in self.fitted.items()) if self.fitted else 0
        return fitted + sum(self.size(shard) for shard in range(self.shards))

    @property
    def payload(self) -> int:
        """Bytes of all tensors alone, without the headers of the files."""
        return (
            self.once_bytes
            + self.total_rows * self.view_bytes
            + len(self) * sum(one.row_bytes for one in self.of_batches)
        )

    @property
    def once_bytes(self) -> int:
        """Bytes of what the codec fits, stored once."""
        return sum(ITEM_BYTES[dtype] * math.prod(shape) for dtype, shape in self.fitted.values())

    @property
    def view_bytes(self) -> int:
        """Bytes per kept view."""
        return sum(column.row_bytes for column in self.of_views)

    @property
    def total_rows(self) -> int:
        """Views kept."""
        return int(self._first[-1])

    def kept(self, shard: int) -> list[tuple[int, int]]:
        """Return the (epoch, batch) pairs of a shard, in its order."""
        batches = self._batches(shard)
        return self._pairs(self._keys[batches.start : batches.stop])

    def place(self, epoch: int, batch: int) -> tuple[int, int, int]:
        """Return the place of a batch: its shard, its first row there and the row after its last.

        Raises:
            ValueError: it was not kept, or is none of the schedule's.
        """
        key = epoch * self.schedule.batches + batch
        at = int(np.searchsorted(self._keys, key))
        if at == len(self) or self._keys[at] != key or not 0 <= batch < self.schedule.batches:
            raise ValueError(f"there are no stored labels for batch {batch} of epoch {epoch}")
        shard = at // self._per_shard
        start = self._first[shard * self._per_shard]
        return shard, int(self._first[at] - start), int(self._first[at + 1] - start)

    def replay(self, epoch: int) -> list[tuple[int, int]] | None:
        """Return the (epoch, batch) pairs that a student sees in its epoch; None: those of that epoch, all kept.

        They are drawn from the kept ones without replacement, the smaller batch last; of a pool until all were shown.
        """
        if self.codec.prune == 1 and not self.codec.pool:
            return None
        seed, full = self.schedule.plan.seed, self.schedule.images // self.schedule.batch_size
        turn, part = divmod(epoch, self.codec.pool or 1)
        drawn = [
            shuffled(keys, f"label-replay-{size}", seed, turn)[part * count : (part + 1) * count]
            for size, keys, count in (("full", self._full, full), ("short", self._short, self.schedule.batches - full))
        ]
        return self._pairs(np.concatenate(drawn))

    def header(self, shard: int) -> bytes:
        """Return the beginning of a shard's file, the length of the header included."""
        rows, batches = self._rows(shard), len(self._batches(shard))
        return tensor_header((column.name, column.dtype, (rows if column in self.of_views else batches, column.width))
                             for column in self.columns)  # fmt: skip

    def size(self, shard: int) -> int:
        """Bytes of a shard's file."""
        of_views = self._rows(shard) * self.view_bytes
        of_batches = len(self._batches(shard)) * sum(column.row_bytes for column in self.of_batches)
        return len(self.header(shard)) + of_views + of_batches

    @property
    def columns(self) -> list[Column]:
        """The tensors of a shard in the order of the file: wide numbers first, so that each is aligned."""
        return sorted(self.of_views + self.of_batches, key=lambda column: -ITEM_BYTES[column.dtype])

    def _batches(self, shard: int) -> range:
        """Return the kept batches of a shard, as positions among all that are kept."""
        return range(shard * self._per_shard, min((shard + 1) * self._per_shard, len(self)))

    def _rows(self, shard: int) -> int:
        batches = self._batches(shard)
        return int(self._first[batches.stop] - self._first[batches.start])

    def _pairs(self, keys: NDArray[np.int64]) -> list[tuple[int, int]]:
        epochs, batches = np.divmod(keys, self.schedule.batches)
        return list(zip(epochs.tolist(), batches.tolist(), strict=True))


def shard_name(shard: int) -> str:
    """``labels-00003.safetensors``."""
    return f"labels-{shard:05d}.safetensors"


def _kept(schedule: AugmentationSchedule, codec: LabelCodec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the kept full batches and the kept smaller ones, each as epoch * batches + batch."""
    keys, prune = np.arange((codec.pool or schedule.epochs) * schedule.batches), codec.prune
    full = keys % schedule.batches < schedule.images // schedule.batch_size
    if prune == 1:
        return keys[full], keys[~full]
    seed = schedule.plan.seed
    fulls, shorts = shuffled(keys[full], "label-prune-full", seed), shuffled(keys[~full], "label-prune-short", seed)
    return fulls[: math.ceil(len(fulls) / prune)], shorts[: math.ceil(len(shorts) / prune)]


def shuffled(keys: NDArray[np.int64], purpose: str, *parts: int) -> NDArray[np.int64]:
    """Return keys in a random order that follows from a purpose and numbers."""
    # raw words of Philox are fixed by its algorithm; numpy may change what its Generator makes of them
    words = np.random.Philox(key=seed_for(purpose, *parts)).random_raw(len(keys))
    return keys[np.argsort(words, kind="stable")]
