"""Training the projector on the whole real training set, towards the mean logits of weak teachers.

Several processes (:mod:`bench.kit.distributed`) share the rows of each batch; the result is that of one up to rounding.

The loop is resumable at every step to the same bits: order, crops and flips come from counter-based streams,
so the adapters, their moments and the step are all there is to keep (``projector.ckpt`` in the work folder).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import FrozenBackbone, Task
from bench.kit import distributed
from bench.kit.checkpoint import Checkpoint, restore_training, training_state
from bench.kit.clip.loading import load_clip
from bench.kit.optim import lr_factor, set_lr
from bench.kit.seeds import seed_for
from bench.kit.views import AugmentationConfig, AugmentationStream
from methods.hello.config import Config
from methods.hello.projector import Projector, build


def train_projector(task: Task, config: Config, clip_name: str) -> tuple[Projector, FrozenBackbone]:
    """Make and train the projector for a task: with its adapters unmerged, and the public CLIP's identity.

    AdamW on what the settings train, 20 epochs in batches of 256 at 5e-4 by default (paper, Sec. 4).

    Raises:
        UserError: the public CLIP is not to be had.
    """
    clip, tokenizer, base = load_clip(clip_name, task.device)
    projector = build(clip, tokenizer, task.data.names, config, seed_for("hello-init", task.seed))
    del clip  # with it goes the text tower
    teachers = [task.teacher.model(epoch) for epoch in config.checkpoints(task.ipc, task.teacher.epochs)]
    train = task.data.train
    stream = AugmentationStream(view_plan(task, config), len(train))
    trained = [p for p in projector.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, config.lr, weight_decay=config.weight_decay, fused=True)
    checkpoint = Checkpoint(task.work, "projector")
    done = 0  # steps
    if found := distributed.broadcast_object(checkpoint.load() if distributed.is_main() else None):
        tensors, facts = found
        restore_training(projector, optimizer, tensors)
        done = facts["steps"]
    distributed.broadcast(projector.state_dict().values())
    steps = -(-len(train) // config.batch_size)
    total = config.epochs * steps
    for epoch in range(done // steps, config.epochs):
        loss = torch.zeros(())  # of this rank's rows of the last batch
        batches = train.views(
            stream, epoch, config.batch_size, task.device, first=done - epoch * steps, rows=distributed.share
        )
        for step, views in enumerate(batches, done):
            set_lr(optimizer, config.lr * lr_factor(config.schedule, step, total))
            target = mean_logits(teachers, views.pixels)
            loss = projector_loss(projector(views.pixels), target, views.labels, config.ce_weight)
            optimizer.zero_grad(set_to_none=True)
            distributed.backward(
                loss, trained, len(views) / min(config.batch_size, len(train) - views.batch * config.batch_size)
            )
            optimizer.step()
            done = step + 1
            task.progress(done, total)
            if distributed.is_main() and checkpoint.due():
                checkpoint.save(training_state(projector, optimizer), steps=done)
        task.progress(done, total, loss=float(loss.detach()))
    return projector, base


def view_plan(task: Task, config: Config) -> AugmentationConfig:
    """The views on which teachers and projector are compared: the teacher's size, random resized crops, and
    flips where a flip keeps the class."""
    spec = task.teacher.network
    return AugmentationConfig(
        size=spec.image_size,
        crop="rrc",
        min_scale=config.min_scale or task.dataset.teacher.min_scale,
        flip=task.dataset.flip,
        seed=seed_for("hello-views", task.seed),
    )


@torch.no_grad()
def mean_logits(teachers: Sequence[nn.Module], pixels: Tensor) -> Tensor:
    """The target: the mean of the weak teachers' logits (B, C) on the same view."""
    total: Tensor = teachers[0](pixels)
    for teacher in teachers[1:]:
        total = total + teacher(pixels)
    return total / len(teachers)


def projector_loss(logits: Tensor, target: Tensor, labels: Tensor, ce_weight: float) -> Tensor:
    """Squared error to the target logits, its mean over images and classes (assumed: the paper does not say
    whether classes are summed), + ``ce_weight`` times cross entropy to the hard label."""
    return F.mse_loss(logits, target) + ce_weight * F.cross_entropy(logits, labels)
