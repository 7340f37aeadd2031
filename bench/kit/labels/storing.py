"""Storing labels: every view of a schedule is made, shown to a label source, encoded and written, shard by shard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from bench.api import Images, LabelSource, Progress
from bench.api.augmentation import AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.api.stored.layout import BATCH_COORDS, SHARD_BYTES, VIEW_COORDS, LabelLayout, shard_name
from bench.errors import UserError
from bench.kit.checkpoint import Checkpoint
from bench.kit.data.dataset import Resident
from bench.kit.labels.codecs import Parts, codec_for
from bench.kit.labels.coordinates import coordinates
from bench.kit.labels.stored import MadeFor, StoredLabels, shard_problem
from bench.kit.views import AugmentationStream

_COORDINATES = {column.name for column in VIEW_COORDS + BATCH_COORDS}


@torch.no_grad()
def store(
    label_model: LabelSource,
    images: Images,
    schedule: AugmentationSchedule,
    codec: LabelCodec,
    order_hash: str,
    work: Path,
    device: torch.device,
    progress: Progress,
    shard_bytes: int = SHARD_BYTES,
) -> StoredLabels:
    """Store the answers of ``label_model`` to the views of ``schedule``.

    Each shard is written at once and then renamed, and of the one in work the batches so far are kept now and then, so
    that a call after a kill goes on to the same bits. ``progress`` is told once a batch.

    Args:
        order_hash: SHA-256 of the class ids that the label_model knows.
        work: where the shards are left; :meth:`StoredLabels.save` links them from there.

    Raises:
        UserError: the codec asks for what the schedule or the logits do not have, or the disk is too small.
        OSError: the disk is full after all.
    """
    resident = Resident(images.pixels, images.labels, channels=label_model.channels(images))
    pixels, labels = resident.on(device)
    stream, batch_size = AugmentationStream(schedule.plan, schedule.images), schedule.batch_size
    classes = label_model.soft_labels(stream.again(pixels, labels, 0, 0, batch_size), 0).shape[1]
    codec.check(classes, schedule.epochs, "this image set")
    layout = LabelLayout(schedule, codec, classes, shard_bytes)
    missing = [shard for shard in range(layout.shards) if shard_problem(work, layout, shard)]
    _check_space(layout, missing, work)
    encoder, done = codec_for(codec, classes), len(layout) - sum(len(layout.kept(shard)) for shard in missing)
    checkpoint = Checkpoint(work)
    begun = checkpoint.load()
    for shard in missing:
        parts: list[Parts] = []
        first = 0
        if begun is not None and begun[1]["shard"] == shard:
            parts, first = [_as_encoded(begun[0], device)], begun[1]["batches"]
            done += first
        for batches, (epoch, batch) in enumerate(layout.kept(shard)[first:], first + 1):
            if codec.prune > 1:
                views = stream.again(pixels, labels, epoch, batch, batch_size)
            else:
                rows = schedule.rows(batch)
                views = stream.make(pixels, labels, stream.order(epoch)[rows.start : rows.stop], epoch, batch)
            encoded = encoder.encode(label_model.soft_labels(views, epoch * schedule.batches + batch))
            if codec.coords:
                encoded |= coordinates(stream, epoch, batch, batch_size, images.pixels.shape[2], images.pixels.shape[3])
            parts.append(encoded)
            done += 1
            progress(done, len(layout))
            if checkpoint.due():
                checkpoint.save(_joined(parts), shard=shard, batches=batches)
        joined = _joined(parts)
        tensors = (joined[column.name] for column in layout.columns)
        _write(work / shard_name(shard), layout.header(shard), tensors)
    return StoredLabels(work, layout, MadeFor.of(images, order_hash, label_model), device)


def _joined(parts: list[Parts]) -> Parts:
    """Concatenate encoded batches, on the host."""
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _as_encoded(joined: Parts, device: torch.device) -> Parts:
    """Move what :func:`_joined` made to where single batches are: coordinates stay on the host."""
    return {name: tensor if name in _COORDINATES else tensor.to(device) for name, tensor in joined.items()}


def _check_space(layout: LabelLayout, missing: list[int], work: Path) -> None:
    needed, free = sum(layout.size(shard) for shard in missing), shutil.disk_usage(work).free
    if needed > free:
        raise UserError(
            f"these labels take {needed / 2**30:,.2f} GiB but {work} has {free / 2**30:,.2f} GiB left; make room, or "
            "store less (prune10, topk10, int8)"
        )


def _write(path: Path, header: bytes, tensors: Iterable[Tensor]) -> None:
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as stream:
        stream.write(header)
        for tensor in tensors:
            stream.write(tensor.contiguous().numpy().data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
