"""Fitting what a codec stores once: on the label model's answers to views of the images that it labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.api import AugmentedBatch, LabelSource
from bench.api.seeds import seed_for
from bench.api.stored.layout import LabelLayout
from bench.errors import UserError
from bench.kit.checkpoint import Checkpoint
from bench.kit.labels.fitted import fit_features, fit_lowrank, fit_vq
from bench.kit.labels.numbers import Parts

ROWS, NUMBERS = 2**16, 2**26  # held at once: views, and logits (256 MiB)
_FITTED = "fitted.safetensors"  # in the work folder; with what only encoding needs

MakeViews = Callable[[Tensor, int, int], AugmentedBatch]  # of images in an epoch, as part of a batch


Features = tuple[Tensor, Tensor, Tensor]  # (B, D), and the head's weight and bias


def features_of(label_model: LabelSource, views: AugmentedBatch, step: int, width: int) -> Features:
    """Return a label model's features and its linear head.

    Raises:
        UserError: it has none, or another number of features than ``width``.
    """
    asked = f"labels stored:features{width}: the label model ({label_model.kind})"
    if (found := label_model.features(views, step)) is None:
        raise UserError(f"{asked} is no single network with a linear head; choose lowrankR")
    if (has := found[0].shape[1]) != width:
        raise UserError(f"{asked} has {has} features; choose features{has}")
    return found


def fit(
    label_model: LabelSource,
    layout: LabelLayout,
    views_of: Callable[[int, int], AugmentedBatch],
    make: MakeViews,
    work: Path,
    device: torch.device,
) -> Parts:
    """Fit the codec of a layout, or take what an earlier call left in ``work``.

    Args:
        views_of: the views of a batch, by epoch and batch.
        make: the views of some images in an epoch, which are not mixed.

    Raises:
        UserError: the label model has no features.
    """
    path, codec = work / _FITTED, layout.codec
    if path.exists():
        return {name: tensor.to(device) for name, tensor in load_file(path).items()}
    if codec.fit == "features":
        _, weight, bias = features_of(label_model, views_of(*layout.kept(0)[0]), 0, codec.size)
        rows = _sample(layout, lambda e, b, step: features_of(label_model, views_of(e, b), step, codec.size)[0], work)
        fitted = fit_features(codec, rows.to(device)[None], weight, bias)
    elif codec.per:
        found = [fit_lowrank(codec, rows) for rows in _groups(label_model, layout, make)]
        fitted = {name: torch.cat([one[name] for one in found]) for name in found[0]}
    else:
        rows = _sample(layout, lambda e, b, step: label_model.soft_labels(views_of(e, b), step), work).to(device)
        seed = seed_for("label-vq", layout.schedule.plan.seed)
        fitted = fit_vq(rows, codec.size, seed) if codec.fit == "vq" else fit_lowrank(codec, rows[None])
    temporary = path.with_suffix(".part")
    save_file({name: tensor.cpu().contiguous() for name, tensor in fitted.items()}, temporary)
    temporary.replace(path)
    return fitted


def _sample(layout: LabelLayout, answer: Callable[[int, int, int], Tensor], work: Path) -> Tensor:
    """Return the answers (n, width) to evenly spaced batches, at most ``ROWS`` and ``NUMBERS``; on the host."""
    kept = [pair for shard in range(layout.shards) for pair in layout.kept(shard)]
    most = min(ROWS, NUMBERS // max(layout.classes, layout.codec.size))
    places = kept[:: -(-layout.total_rows // most)]
    checkpoint, rows, first = Checkpoint(work, "sample"), [], 0
    if found := checkpoint.load():
        rows, first = [found[0]["rows"]], found[1]["batches"]
    for count, (epoch, batch) in enumerate(places[first:], first + 1):
        rows.append(answer(epoch, batch, epoch * layout.schedule.batches + batch).cpu())
        if checkpoint.due():
            checkpoint.save({"rows": torch.cat(rows)}, batches=count)
    checkpoint.discard()
    return torch.cat(rows)


def _groups(label_model: LabelSource, layout: LabelLayout, make: MakeViews) -> Iterator[Tensor]:
    """Yield the answers (G, n, C) to all views of each image or class in the kept epochs, some groups at a time."""
    size = 1 if layout.codec.per == "image" else layout.schedule.images // layout.classes  # images of a group
    epochs = sorted({epoch for shard in range(layout.shards) for epoch, _ in layout.kept(shard)})
    at_once = max(1, NUMBERS // (size * len(epochs) * layout.classes)) * size
    for images in torch.arange(layout.schedule.images).split(at_once):
        found = [label_model.soft_labels(make(images, epoch, 0), epoch * layout.schedule.batches) for epoch in epochs]
        per_image = torch.stack(found, 1)  # (images, epochs, C)
        yield per_image.view(len(images) // size, -1, layout.classes)
