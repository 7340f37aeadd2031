"""Squeeze: train a teacher and keep its trajectory, or take over a foreign checkpoint.

Several processes (:mod:`bench.kit.distributed`) share the rows of each batch; the result is that of one up to rounding
and the noise of dropout.

The loop is resumable at every step to the same bits: orders, crops and flips come from counter-based streams, so
weights, moments, the place, and the global stream that dropout draws from are all there is to keep.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from bench.api import Progress, TeacherSpec
from bench.errors import UserError
from bench.kit import distributed
from bench.kit.accuracy import TestImages
from bench.kit.checkpoint import Checkpoint, restore_training, training_state
from bench.kit.data.dataset import Dataset
from bench.kit.models import Classifier
from bench.kit.optim import lr_factor, set_lr, sgd
from bench.kit.seeds import seed_for, seed_streams
from bench.kit.sync_norm import synchronise
from bench.kit.teachers import foreign, trajectory
from bench.kit.views import AugmentationConfig, AugmentationStream

_FOREIGN_TOLERANCE = 0.01


def kept_epochs(epochs: int, checkpoints: int) -> tuple[int, ...]:
    """The epochs (from 1) whose checkpoints are kept: evenly spaced, the last always among them.

    90 epochs and 9 checkpoints: 10, 20, …, 90.
    """
    return tuple(sorted({round(epochs * (index + 1) / checkpoints) for index in range(checkpoints)} - {0}))


def view_plan(spec: TeacherSpec) -> AugmentationConfig:
    """The augmentation of a teacher's training."""
    crop, _, flip = spec.augment.partition("-")
    if crop not in ("rrc", "shift", "none") or flip not in ("", "flip"):
        raise UserError(f"unknown augmentation {spec.augment!r} of a teacher; known: rrc, shift, none, each + -flip")
    seed = seed_for("teacher-views", spec.seed)
    return AugmentationConfig(size=spec.image_size, crop=crop, min_scale=spec.min_scale, flip=flip == "flip", seed=seed)


def train_trajectory(
    spec: TeacherSpec, dataset: Dataset, folder: Path, work: Path, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """Make the trajectory ``spec`` asks for in ``folder``; returns the numbers for its record.

    Raises:
        UserError: a foreign checkpoint can't be used.
    """
    info = dataset.info
    torch.manual_seed(seed_for("teacher-init", spec.seed))
    network = trajectory.Network(
        arch=spec.arch, classes=info.classes, image_size=spec.image_size, mean=info.mean, std=info.std
    )
    model: Classifier = network.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    tests = TestImages(dataset.test, spec.image_size, device)
    gate_images = TestImages(dataset.test, spec.image_size, device, trajectory.GATE_IMAGES)
    if spec.file is not None:
        path = Path(spec.file)
        foreign.load_into(model.net, foreign.read_state(path), info.classes, path)
        accuracy = {spec.epochs: tests.top1(model)}
        _believe(spec, dataset, accuracy[spec.epochs])
        kept = [spec.epochs]
    else:
        accuracy = _train(spec, dataset, model, tests, work, device, progress)
        kept = list(kept_epochs(spec.epochs, spec.checkpoints))
    gate = gate_images.top1(model)
    if distributed.is_main():
        states = {epoch: load_file(work / trajectory.file_name(epoch)) for epoch in kept if spec.file is None}
        if spec.file is not None:
            states = {spec.epochs: model.net.state_dict()}
        trajectory.save(folder, network, dataset.order_hash, states, accuracy, gate)
    return {"top1": accuracy[kept[-1]], "accuracy": {str(epoch): top1 for epoch, top1 in accuracy.items()}}


def _believe(spec: TeacherSpec, dataset: Dataset, top1: float) -> None:
    """A foreign checkpoint comes without a record of ours: it must reach the accuracy the user states, or at least
    be far from guessing."""
    name, chance = dataset.info.name, 1 / dataset.info.classes
    if spec.accuracy is not None and abs(top1 - spec.accuracy) > _FOREIGN_TOLERANCE:
        raise UserError(
            f"the teacher file {spec.file} reaches {top1:.1%} on the test images of {name}, not the stated "
            f"{spec.accuracy:.1%}: class order?"
        )
    if top1 < 3 * chance and chance < 1 / 4:
        raise UserError(
            f"the teacher file {spec.file} reaches {top1:.1%} on the test images of {name}, which is close to "
            f"guessing ({chance:.1%}): class order?"
        )


def _train(
    spec: TeacherSpec,
    dataset: Dataset,
    model: Classifier,
    tests: TestImages,
    work: Path,
    device: torch.device,
    progress: Progress,
) -> dict[int, float]:
    """The loop; leaves the kept epochs' weights in ``work`` and returns their test accuracy."""
    stream = AugmentationStream(view_plan(spec), len(dataset.train))
    optimizer = sgd(model, spec.lr, spec.momentum, spec.weight_decay, spec.nesterov)
    checkpoint = Checkpoint(work)
    accuracy: dict[int, float] = {}
    first, done = 0, 0  # the epoch to go on with, and how many of its batches were shown
    if found := distributed.broadcast_object(checkpoint.load() if distributed.is_main() else None):
        tensors, facts = found
        restore_training(model, optimizer, tensors)
        first, done = facts["epoch"], facts["batches"]
        accuracy = {int(epoch): top1 for epoch, top1 in facts["accuracy"].items()}
    distributed.broadcast(model.state_dict().values())
    images = len(dataset.train)
    if 0 < images % spec.batch_size < distributed.size():
        _refuse_if_nothing_is_too_little(spec, model, device)
    synchronise(model)
    trained = list(model.parameters())
    kept = kept_epochs(spec.epochs, spec.checkpoints)
    steps = -(-images // spec.batch_size)
    for epoch in range(first, spec.epochs):
        model.train()
        set_lr(optimizer, spec.lr * lr_factor(spec.schedule, epoch, spec.epochs))
        shown = dataset.train.views(stream, epoch, spec.batch_size, device, first=done, rows=distributed.share)
        for batches, views in enumerate(shown, done + 1):
            if (
                distributed.size() > 1
            ):  # ranks have other rows, which want other masks of dropout, whatever was drawn before
                seed_streams(seed_for("teacher-noise", spec.seed, epoch, views.batch, distributed.rank()), device)
            loss = F.cross_entropy(model(views.pixels), views.labels)
            optimizer.zero_grad(set_to_none=True)
            distributed.backward(
                loss, trained, len(views) / min(spec.batch_size, images - views.batch * spec.batch_size)
            )
            optimizer.step()
            progress(epoch * steps + batches, spec.epochs * steps)
            if distributed.is_main() and checkpoint.due():
                checkpoint.save(training_state(model, optimizer), epoch=epoch, batches=batches, accuracy=accuracy)
        done = 0
        if epoch + 1 in kept:
            accuracy[epoch + 1] = tests.top1(model)
            if distributed.is_main():
                state = {name: t.contiguous() for name, t in model.net.state_dict().items()}
                save_file(state, work / trajectory.file_name(epoch + 1))
    return accuracy


@torch.no_grad()
def _refuse_if_nothing_is_too_little(spec: TeacherSpec, model: Classifier, device: torch.device) -> None:
    """Some rank will have none of the last batch of an epoch: can the network take no images at all?"""
    try:
        model.eval()(torch.empty(0, 3, spec.image_size, spec.image_size, device=device))
    except RuntimeError:
        raise UserError(
            f"the last batch of an epoch has fewer images than there are processes, and {spec.arch} can't take a batch "
            "of none; train it in fewer processes"
        ) from None
