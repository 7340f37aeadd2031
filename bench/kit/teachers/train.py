"""Squeeze: train a teacher and keep its trajectory, or take over a foreign checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from bench.api import Dataset, DatasetInfo, Progress, TeacherSpec
from bench.api.seeds import seed_for
from bench.errors import UserError
from bench.kit import distributed
from bench.kit.accuracy import TestImages
from bench.kit.checkpoint import Checkpoint
from bench.kit.models import Classifier
from bench.kit.optim import lr_factor, sgd
from bench.kit.teachers import accuracy_check, foreign, trajectory
from bench.kit.training import train
from bench.kit.views import AugmentationConfig


def augmentation(spec: TeacherSpec) -> AugmentationConfig:
    """Return the augmentation of a teacher's training."""
    crop, _, flip = spec.augment.partition("-")
    assert crop in ("rrc", "shift", "none")
    seed = seed_for("teacher-views", spec.seed)
    return AugmentationConfig(size=spec.image_size, crop=crop, min_scale=spec.min_scale, flip=flip == "flip", seed=seed)


def network_of(spec: TeacherSpec, info: DatasetInfo) -> trajectory.Network:
    """Describe the network of a teacher on a data set."""
    return trajectory.Network(
        arch=spec.arch, classes=info.classes, image_size=spec.image_size,
        mean=spec.mean or info.mean, std=spec.std or info.std,
    )  # fmt: skip


def train_trajectory(
    spec: TeacherSpec, dataset: Dataset, folder: Path, work: Path, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """Make the trajectory of ``spec`` in ``folder`` and return the numbers for its record.

    Raises:
        UserError: a checkpoint from elsewhere can't be used.
        Diverged: the training left the finite numbers.
    """
    info = dataset.info
    torch.manual_seed(seed_for("teacher-init", spec.seed))
    network = network_of(spec, info)
    model: Classifier = network.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if spec.files:
        states = foreign.imported(spec, network, dataset)
    else:
        _train(spec, dataset, model, work, device, progress)
        states = {epoch: load_file(work / trajectory.file_name(epoch)) for epoch in spec.kept_epochs()}
    tests, accuracy = TestImages(dataset.test, spec.image_size, device), {}
    for epoch, state in states.items():
        model.net.load_state_dict(state)
        accuracy[epoch] = tests.top1(model)
    if spec.files:
        accuracy_check.check_foreign(spec, network, states[max(states)], dataset, device, accuracy[max(states)])
    shown = TestImages(dataset.test, spec.image_size, device, trajectory.CHECK_IMAGES).top1(model)
    if distributed.is_main():
        trajectory.save(folder, network, dataset.order_hash, states, accuracy, shown)
    return {"top1": accuracy[max(states)], "accuracy": {str(epoch): top1 for epoch, top1 in accuracy.items()}}


def _train(
    spec: TeacherSpec, dataset: Dataset, model: Classifier, work: Path, device: torch.device, progress: Progress
) -> None:
    """Train ``model`` and leave the weights of the kept epochs in ``work``."""
    images = len(dataset.train)
    if 0 < images % spec.batch_size < distributed.size():
        _refuse_empty_shares(spec, model, device)
    kept, steps = spec.kept_epochs(), -(-images // spec.batch_size)

    def keep(epoch: int) -> None:
        if epoch in kept:
            state = {name: tensor.contiguous() for name, tensor in model.net.state_dict().items()}
            save_file(state, work / trajectory.file_name(epoch))

    train(
        model.train(),
        sgd(model, spec.lr, spec.momentum, spec.weight_decay, spec.nesterov),
        lambda step: spec.lr * lr_factor(spec.schedule, step // steps, spec.epochs),
        lambda views: F.cross_entropy(model(views.pixels), views.labels),
        dataset.train,
        augmentation(spec),
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        device=device,
        checkpoint=Checkpoint(work, shared=True),
        progress=progress,
        after_epoch=keep,
    )
    distributed.wait()  # for the files of the main process


@torch.no_grad()
def _refuse_empty_shares(spec: TeacherSpec, model: Classifier, device: torch.device) -> None:
    """Refuse a network that can't take a batch of no images, which some process will have at the end of an epoch."""
    try:
        model.eval()(torch.empty(0, 3, spec.image_size, spec.image_size, device=device))
    except RuntimeError:
        raise UserError(
            f"the last batch of an epoch has fewer images than there are processes, and {spec.arch} can't take a batch "
            "of none; train it in fewer processes"
        ) from None
