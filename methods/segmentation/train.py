"""Training of the networks that label masks, on the whole training split: the teacher towards the exact masks, the
projector towards the teacher's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.api import AugmentationConfig, AugmentedBatch, Task
from bench.kit.optim import decay_groups, lr_factor, set_lr
from methods.segmentation.config import MaskTraining
from methods.segmentation.masks import click_maps, mask_loss


def train(
    model: nn.Module, task: Task, config: MaskTraining, target: Callable[[AugmentedBatch], Tensor], seed: int
) -> None:
    """Train the parameters of ``model`` that require gradients, in place: AdamW, cosine to zero by the step.

    Resumable. The model is left in eval mode.

    Args:
        target: maps a batch of views to the shares (B, s, s) in [0, 1] that its masks should be.
        seed: of the views.
    """
    split = task.data.train
    views_of = AugmentationConfig(
        size=task.dataset.image_size, min_scale=config.min_scale, flip=task.dataset.flip, seed=seed
    )
    optimizer = torch.optim.AdamW(decay_groups(model, config.weight_decay), config.lr, fused=True)
    done = (task.checkpoint.restore_training(model, optimizer) or {"steps": 0})["steps"]
    steps = -(-len(split) // config.batch_size)
    total = config.epochs * steps
    model.train()
    for epoch in range(done // steps, config.epochs):
        batches = split.views(views_of, epoch, config.batch_size, task.device, first=done - epoch * steps)
        for step, views in enumerate(batches, done):
            set_lr(optimizer, config.lr * lr_factor("cosine", step, total))
            loss = mask_loss(model(views.pixels, click_maps(views)), target(views), config.dice_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done = step + 1
            task.progress(done, total)
            if task.checkpoint.due():
                task.checkpoint.save_training(model, optimizer, steps=done)
    model.eval()
