"""The loop that trains whoever labels masks, on the whole training split: the teacher towards the exact masks, the
projector towards the teacher's.

It is resumable at every step to the same bits: order, crops and flips come from counter-based streams, so the weights,
their moments and the step are all there is to keep.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.api import Task
from bench.kit.checkpoint import Checkpoint, restore_training, training_state
from bench.kit.optim import decay_groups, lr_factor, set_lr
from bench.kit.segmentation.masks import click_plane, mask_loss
from bench.kit.views import AugmentationConfig, AugmentedBatch
from methods.promptable import MaskTraining


def train(
    model: nn.Module, task: Task, recipe: MaskTraining, target: Callable[[AugmentedBatch], Tensor], seed: int, name: str
) -> None:
    """Train what of ``model`` is not frozen, in place, and leave it in eval mode: AdamW, cosine to zero by the step.

    Args:
        target: of a batch of views, what its masks should be: shares (B, s, s) in [0, 1].
        seed: of the views.
        name: of the checkpoint in ``task.work``.
    """
    split = task.data.train
    plan = AugmentationConfig(
        size=task.dataset.image_size, min_scale=recipe.min_scale, flip=task.dataset.flip, seed=seed
    )
    optimizer = torch.optim.AdamW(decay_groups(model, recipe.weight_decay), recipe.lr, fused=True)
    checkpoint, done = Checkpoint(task.work, name), 0  # steps
    if found := checkpoint.load():
        restore_training(model, optimizer, found[0])
        done = found[1]["steps"]
    steps = -(-len(split) // recipe.batch_size)
    total = recipe.epochs * steps
    model.train()
    for epoch in range(done // steps, recipe.epochs):
        batches = split.views(plan, epoch, recipe.batch_size, task.device, first=done - epoch * steps)
        for step, views in enumerate(batches, done):
            set_lr(optimizer, recipe.lr * lr_factor("cosine", step, total))
            loss = mask_loss(model(views.pixels, click_plane(views)), target(views), recipe.dice_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done = step + 1
            task.progress(done, total)
            if checkpoint.due():
                checkpoint.save(training_state(model, optimizer), steps=done)
    model.eval()
