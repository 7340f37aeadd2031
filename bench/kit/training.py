"""The resumable, shareable training loop of teachers, projectors and mask networks on augmented real images.

It resumes after any step to the same bits: order, crops and flips come from counter-based streams, so weights,
optimizer moments, the step and torch's random streams are all the state there is. Several processes
(:mod:`bench.kit.distributed`) share the rows of each batch; the result is that of one process up to rounding and the
noise of dropout.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.api import Progress
from bench.errors import UserError
from bench.kit import distributed
from bench.kit.checkpoint import Checkpoint, restore_training, training_state
from bench.kit.data.dataset import Split
from bench.kit.optim import set_lr
from bench.kit.seeds import seed_for, seed_streams
from bench.kit.sync_norm import synchronise
from bench.kit.views import AugmentationConfig, AugmentationStream, AugmentedBatch


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
        loss: the mean loss of a batch; of several processes, over the rows of this one.
        augmentation: of the images; it mixes none.
        progress: called once per step; at the end of an epoch with the loss of its last batch.
        after_epoch: called by the main process with the number of finished epochs, maybe again after a resume.

    Raises:
        UserError: the training diverged.
    """
    trained: list[Tensor] = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    done = 0
    if found := distributed.broadcast_object(checkpoint.load() if distributed.is_main() else None):
        restore_training(model, optimizer, found[0])
        done = found[1]["steps"]
    distributed.broadcast(model.state_dict().values())
    synchronise(model)
    stream, images = AugmentationStream(augmentation, len(split)), len(split)
    steps = -(-images // batch_size)
    for epoch in range(max(done - 1, 0) // steps, epochs):
        batches = split.views(stream, epoch, batch_size, device, first=done - epoch * steps, rows=distributed.share)
        for views in batches:
            if distributed.size() > 1:  # ranks have other rows, which want other masks of dropout
                seed_streams(
                    seed_for("training-noise", augmentation.seed, epoch, views.batch, distributed.rank()), device
                )
            set_lr(optimizer, lr(done))
            value = loss(views)
            optimizer.zero_grad(set_to_none=True)
            whole = min(batch_size, images - views.batch * batch_size)
            distributed.backward(value, trained, len(views) / whole)
            optimizer.step()
            done += 1
            metrics = {"loss": float(value.detach())} if done % steps == 0 else {}
            progress(done, epochs * steps, **metrics)
            if distributed.is_main() and checkpoint.due():
                checkpoint.save(training_state(model, optimizer), steps=done)
        refuse_divergence(trained, epoch + 1)
        if distributed.is_main():
            after_epoch(epoch + 1)


def refuse_divergence(weights: list[Tensor], epoch: int) -> None:
    """Stop a training whose weights are no longer finite.

    Raises:
        UserError: they are not.
    """
    if not bool(torch.stack(torch._foreach_norm(weights)).isfinite().all()):
        raise UserError(f"the training diverged at epoch {epoch}: its weights are not finite; lower the learning rate")
