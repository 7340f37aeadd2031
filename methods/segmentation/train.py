"""Training of the networks that label masks, on the whole training split.

The teacher learns the exact masks, the projector the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.api import AugmentationConfig, AugmentedBatch, Task
from bench.kit import training
from bench.kit.optim import decay_groups, lr_factor
from methods.segmentation.config import MaskTraining
from methods.segmentation.masks import click_maps, mask_loss


def train(
    model: nn.Module, task: Task, config: MaskTraining, target: Callable[[AugmentedBatch], Tensor], seed: int
) -> None:
    """Train the parameters of ``model`` that require gradients, in place: AdamW, cosine to zero by the step.

    Resumable. The model is left in eval mode. ``target`` maps views to the shares (B, s, s) that their masks should be.
    """
    info, steps = task.dataset, config.epochs * -(-len(task.data.train) // config.batch_size)

    def loss(views: AugmentedBatch) -> Tensor:
        return mask_loss(model(views.pixels, click_maps(views)), target(views), config.dice_weight)

    training.train(
        model.train(),
        torch.optim.AdamW(decay_groups(model, config.weight_decay), config.lr, fused=True),
        lambda step: config.lr * lr_factor("cosine", step, steps),
        loss,
        task.data.train,
        AugmentationConfig(size=info.image_size, min_scale=config.min_scale, flip=info.flip, seed=seed),
        epochs=config.epochs,
        batch_size=config.batch_size,
        device=task.device,
        checkpoint=task.checkpoint,
        progress=task.progress,
    )
    model.eval()
