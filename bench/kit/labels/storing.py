"""Storing labels: every view of a schedule is made, shown to a label source, encoded and written, shard by shard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from bench import stopping
from bench.api import Images, LabelSource, Progress
from bench.api.augmentation import AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.api.stored.columns import FITTED
from bench.api.stored.layout import SHARD_BYTES, LabelLayout, shard_name
from bench.errors import UserError
from bench.kit.checkpoint import Checkpoint
from bench.kit.data.dataset import Resident
from bench.kit.labels import fidelity
from bench.kit.labels.codecs import codec_for
from bench.kit.labels.fitting import features_of, fit
from bench.kit.labels.numbers import Codec, Parts
from bench.kit.labels.stored import MadeFor, StoredLabels, shard_problem
from bench.kit.validation import InvalidResult, check_finite
from bench.kit.views import AugmentationStream, AugmentedBatch
from bench.kit.views.table import BOX, FLIP

_Encoding = Generator[int, tuple[Tensor, Tensor, Tensor, Callable[[], Parts]], None]
_FAULTS = (UserError, InvalidResult, OSError)  # of one codec


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
    along: Mapping[Path, LabelCodec] | None = None,
) -> StoredLabels:
    """Store the answers of ``label_model`` to the views of ``schedule``.

    Each shard is written at once and then renamed, and of the one in work the batches so far are kept now and then, so
    that a call after a kill goes on to the same bits. Shards are left in ``work``, from where
    :meth:`StoredLabels.save` links them; ``order_hash`` is the SHA-256 of the class ids that the label model knows.

    Args:
        along: further codecs of the same :attr:`~LabelCodec.batches`, by their work folders: each answer is encoded for
            them too, and a call of theirs finds the shards. What is wrong with one is left to that call to say.

    Raises:
        UserError: the codec asks for what the schedule or the logits do not have, or the disk is too small.
        OSError: the disk is full after all.
    """
    resident = Resident(images.pixels, images.labels, channels=label_model.channels(images))
    pixels, labels = resident.on(device)
    stream, batch_size = AugmentationStream(schedule.plan, schedule.images), schedule.batch_size
    classes = label_model.soft_labels(stream.again(pixels, labels, 0, 0, batch_size), 0).shape[1]

    def views_of(epoch: int, batch: int) -> AugmentedBatch:
        if codec.prune > 1:
            return stream.again(pixels, labels, epoch, batch, batch_size)
        rows = schedule.rows(batch)
        return stream.make(pixels, labels, stream.order(epoch)[rows.start : rows.stop], epoch, batch)

    def encoding(codec: LabelCodec, work: Path, progress: Progress) -> tuple[LabelLayout, _Encoding]:
        codec.check(classes, schedule.epochs, "this image set", schedule.plan.mix)
        layout = LabelLayout(schedule, codec, classes, shard_bytes)
        missing = [
            shard
            for shard in range(layout.shards)
            if shard_problem(work, layout, shard) or not _measured(work, shard).is_file()
        ]
        _check_space(layout, missing, work)
        fitted: Parts = {}
        if codec.fit:
            fitted = fit(label_model, layout, views_of, partial(stream.make, pixels, labels), work, device)
            save_file({name: fitted[name].cpu() for name in layout.fitted}, work / FITTED)
        encoder = codec_for(codec, classes, fitted, schedule.images)
        said = f"what {label_model.kind} labels give, stored as {codec},"
        return layout, _encode(layout, missing, encoder, work, device, progress, said)

    layout, own = encoding(codec, work, progress)
    encodings = [own]
    for folder, other in (along or {}).items():
        with suppress(*_FAULTS):
            encodings.append(encoding(other, folder, lambda done, total, **_: None)[1])
    wanted = {one: place for one in encodings if (place := next(one, None)) is not None}
    for place, (epoch, batch) in enumerate(pair for shard in range(layout.shards) for pair in layout.kept(shard)):
        if not (takers := [one for one, wants in wanted.items() if wants == place]):
            continue
        views, step, stopped = views_of(epoch, batch), epoch * schedule.batches + batch, False
        if codec.fit == "features":
            answer, weight, bias = features_of(label_model, views, step, codec.size)
            logits = F.linear(answer, weight, bias)
        else:
            answer = logits = label_model.soft_labels(views, step)
        where = partial(coordinates, stream, epoch, batch, batch_size, *images.pixels.shape[2:])
        for one in takers:
            try:
                wanted[one] = one.send((answer, logits, views.indices, where))
            except StopIteration:
                del wanted[one]
            except stopping.Stopped:
                stopped = True  # once the others have kept theirs
            except _FAULTS:
                if one is own:
                    raise
                del wanted[one]
        if stopped:
            raise stopping.Stopped
    stored = StoredLabels(work, layout, MadeFor.of(images, order_hash, label_model), device)
    measured = [load_file(_measured(work, shard)) for shard in range(layout.shards)]
    stored.fidelity = fidelity.means(_joined([found for found in measured if found]))
    return stored


def _encode(
    layout: LabelLayout, missing: list[int], encoder: Codec, work: Path, device: torch.device, progress: Progress,
    said: str,
) -> _Encoding:  # fmt: skip
    """Write the missing shards.

    Yields:
        The number of the next batch among those that are kept. It takes the answers (B, n) to its views, what they are
        as logits, the images (B,), and what returns :func:`coordinates`.
    """
    compared, counts = fidelity.sampled(layout), [len(layout.kept(shard)) for shard in range(layout.shards)]
    done = len(layout) - sum(counts[shard] for shard in missing)
    checkpoint = Checkpoint(work, "encoding")
    begun = checkpoint.load()
    for shard in missing:
        parts, scores = list[Parts](), list[Parts]()
        first, largest = 0, torch.zeros((), device=device)
        if begun is not None and begun[1]["shard"] == shard:
            parts, first = [_named(begun[0], "part.")], begun[1]["batches"]
            scores = [found] if (found := _named(begun[0], "score.")) else []
            done += first
        before = sum(counts[:shard])
        for batches, pair in enumerate(layout.kept(shard)[first:], first + 1):
            answer, logits, indices, where = yield before + batches - 1
            largest = torch.maximum(largest, answer.abs().amax())
            encoded = encoder.encode(answer, indices)
            if pair in compared:
                scores.append(fidelity.scores(logits, encoder.decode(encoded, indices), encoded))
            if layout.codec.coords:
                encoded |= where()
            parts.append(encoded)
            done += 1
            progress(done, len(layout))
            if checkpoint.due():
                check_finite({"logits": largest}, said)  # what goes on from here doesn't see these again
                kept = {f"part.{name}": tensor for name, tensor in _joined(parts).items()}
                kept |= {f"score.{name}": tensor for name, tensor in _joined(scores).items()}
                checkpoint.save(kept, shard=shard, batches=batches)
        joined = _joined(parts)
        check_finite({"logits": largest}, said)
        tensors = (joined[column.name] for column in layout.columns)
        save_file(_joined(scores), _measured(work, shard))
        _write(work / shard_name(shard), layout.header(shard), tensors)


def _measured(work: Path, shard: int) -> Path:
    return work / f"fidelity-{shard}.safetensors"


def coordinates(
    stream: AugmentationStream, epoch: int, batch: int, batch_size: int, height: int, width: int
) -> dict[str, Tensor]:
    """Return the coordinates of a batch that FKD's files hold (SRe2L, relabel/utils_fkd.py), on the host.

    Our views are made again from their config, so nothing reads these; they are written for a fair comparison of sizes.
    Images have ``height`` x ``width`` pixels, and names are those of :mod:`bench.api.stored.layout`:

    ``coords`` float32 (B, 4), the crop's top, left, height and width as fractions of the image; ``flip`` bool (B, 1);
    ``partner`` int64 (B, 1), the place in the batch of what is mixed in; ``weight`` float64 (1, 1) of the base image;
    ``box`` int32 (1, 4), CutMix's top, left, bottom and right pixel. Shifts and patch shuffles have no place there.
    """
    indices = stream.order(epoch)[batch * batch_size : (batch + 1) * batch_size]
    table = stream.table(epoch, indices, height, width, torch.device("cpu"))
    sides = torch.tensor([height, width, height, width])
    partners, weight, box = torch.arange(len(indices)), 1.0, (0, 0, 0, 0)
    if (mixture := stream.mixture(epoch, batch)) is not None:
        partners, weight = table.partners(None), mixture.weight
        if mixture.box is not None:
            top, bottom, left, right = mixture.box
            box = top, left, bottom, right
    return {
        "coords": table.columns[:, BOX:FLIP] / sides,
        "flip": table.columns[:, FLIP + 1, None] != 0,
        "partner": partners[:, None],
        "weight": torch.tensor([[weight]], dtype=torch.float64),
        "box": torch.tensor([box], dtype=torch.int32),
    }


def _joined(parts: list[Parts]) -> Parts:
    """Concatenate the tensors of batches or shards, on the host; of none there are none."""
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in (parts[0] if parts else ())}


def _named(tensors: Mapping[str, Tensor], prefix: str) -> Parts:
    """Pick the tensors of a checkpoint whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


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
