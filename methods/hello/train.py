"""Training the projector on the whole real training set, towards the mean logits of weak teachers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api import AugmentationConfig, AugmentedBatch, Classifier, FrozenBackbone, Task
from bench.kit.clip.loading import load_clip
from bench.kit.optim import lr_factor
from bench.kit.training import train
from methods.hello.config import Config
from methods.hello.projector import Projector, build


def train_projector(task: Task, config: Config, clip_name: str) -> tuple[Projector, FrozenBackbone]:
    """Build and train the projector of a task; return it with its adapters unmerged, and the public CLIP's identity.

    AdamW on what the settings train, 20 epochs in batches of 256 at 5e-4 by default (paper, Sec. 4). Resumable.

    Raises:
        UserError: the public CLIP is not available.
        Diverged: the training left the finite numbers.
    """
    clip, tokenizer, base = load_clip(clip_name, task.device)
    projector = build(clip, tokenizer, task.data.names, config, task.seed_for("hello-init"))
    del clip  # with it goes the text tower
    epochs = config.checkpoints(task.ipc, task.teacher.epochs) if task.teachers else ()
    teachers = [task.teacher.model(epoch) for epoch in epochs]
    total = config.epochs * -(-len(task.data.train) // config.batch_size)

    def loss(views: AugmentedBatch) -> Tensor:
        logits = projector(views.pixels)
        if not teachers:
            return F.cross_entropy(logits, views.labels)
        return projector_loss(logits, mean_logits(teachers, views.pixels), views.labels, config.ce_weight, config.mse)

    trained = [p for p in projector.parameters() if p.requires_grad]
    train(
        projector,
        torch.optim.AdamW(trained, config.lr, weight_decay=config.weight_decay, fused=True),
        lambda step: config.lr * lr_factor(config.schedule, step, total),
        loss,
        task.data.train,
        augmentation(task, config),
        epochs=config.epochs,
        batch_size=config.batch_size,
        device=task.device,
        checkpoint=task.checkpoint,
        progress=task.progress,
    )
    return projector, base


def augmentation(task: Task, config: Config) -> AugmentationConfig:
    """Return the augmentation under which teachers and projector are compared: crops, and flips that keep the class."""
    return AugmentationConfig(
        size=task.dataset.teacher.image_size,
        crop="rrc",
        min_scale=config.min_scale or task.dataset.teacher.min_scale,
        flip=task.dataset.flip,
        seed=task.seed_for("hello-views"),
    )


@torch.no_grad()
def mean_logits(teachers: Sequence[Classifier], pixels: Tensor) -> Tensor:
    """Return the mean of the weak teachers' logits (B, C) on the same view."""
    total: Tensor = teachers[0](pixels)
    for teacher in teachers[1:]:
        total = total + teacher(pixels)
    return total / len(teachers)


def projector_loss(logits: Tensor, target: Tensor, labels: Tensor, ce_weight: float, over: str = "mean") -> Tensor:
    """Return the loss: squared error to the target logits, + ``ce_weight`` times cross entropy to the hard label.

    The squared error is a mean over images, and over classes their mean or sum (the paper does not say which).
    """
    classes = logits.shape[1] if over == "sum" else 1
    return classes * F.mse_loss(logits, target) + ce_weight * F.cross_entropy(logits, labels)
