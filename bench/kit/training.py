"""The resumable, shareable training loop of teachers, projectors and other networks on augmented real images.

It resumes after any step to the same bits: order, crops and flips come from counter-based streams, so weights,
optimizer moments, the step and torch's random streams are all the state there is. Several processes
(:mod:`bench.kit.distributed`) share the rows of each batch; the result is that of one process up to rounding and the
noise of dropout.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.api import AugmentationConfig, AugmentedBatch, Checkpoint, Progress, Split
from bench.api.seeds import seed_for, seed_streams
from bench.kit import distributed
from bench.kit.optim import set_lr
from bench.kit.sync_norm import synchronise
from bench.kit.validation import check_training


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    lr: Callable[[int], float],
    loss: Callable[[AugmentedBatch], Tensor],
    split: Split,
    augmentation: AugmentationConfig,
    *,
    epochs: int,
    batch_size: int,
    device: torch.device,
    checkpoint: Checkpoint,
    progress: Progress,
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train ``model`` in place, in the mode (training or eval) that its modules are in.

    Args:
        lr: the learning rate of a step, counted from 0.
        loss: the mean loss of a batch; of several processes, over the rows of this one. No images are mixed.
        progress: called once per step; at the end of an epoch with the loss of its last batch.
        after_epoch: called by the main process with the number of finished epochs, maybe again after a resume.

    Raises:
        Diverged: the loss or the weights are no longer finite.
    """
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    done = (checkpoint.restore_training(model, optimizer) or {"steps": 0})["steps"]
    distributed.broadcast(model.state_dict().values())
    synchronise(model)
    images, rank = len(split), distributed.rank()
    steps = -(-images // batch_size)
    for epoch in range(max(done - 1, 0) // steps, epochs):
        first, last_loss = done - epoch * steps, 0.0
        for views in split.views(augmentation, epoch, batch_size, device, first=first, rows=distributed.share):
            if distributed.size() > 1:  # ranks have other rows, which want other masks of dropout
                seed_streams(seed_for("training-noise", augmentation.seed, epoch, views.batch, rank), device)
            set_lr(optimizer, lr(done))
            mean = loss(views)
            optimizer.zero_grad(set_to_none=True)
            distributed.backward(mean, trained, len(views) / min(batch_size, images - views.batch * batch_size))
            optimizer.step()
            done += 1
            if done % steps == 0 and len(views):
                last_loss = float(mean.detach())
            progress(done, epochs * steps, **({"loss": last_loss} if done % steps == 0 else {}))
            if checkpoint.due():
                checkpoint.save_training(model, optimizer, steps=done)
        check_training(epoch + 1, last_loss, trained)
        if distributed.is_main():
            after_epoch(epoch + 1)
