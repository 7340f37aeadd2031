"""The optional last touch on the images: make them say the same when their detail is gone.

Each image p is moved by Adam so that the projector's features of p and of p sampled down and up again agree
(arXiv 2408.08201: learning rate .01, 300 steps). The paper credits it with +0.1 points at ImageNet-1K, IPC
10, and says neither what p starts from nor how far it is sampled down. Assumed here: from RDED's images, to
half their side, with the gradient through both features. Off by default.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Images, Progress
from bench.kit.checkpoint import Checkpoint, restore_training, training_state
from methods.hello.config import Config
from methods.hello.projector import Projector


def update(
    images: Images, projector: Projector, config: Config, work: Path, device: torch.device, progress: Progress
) -> Images:
    """Update uint8 images; every image for itself, so ``config.update_batch`` is of no effect on the result.

    Resumable: finished chunks are kept in ``work``, each in a file of its own, and so is the one being updated.
    """
    chunks = torch.split(images.pixels, config.update_batch)
    updated, checkpoint = [], Checkpoint(work, "update")
    unfinished = checkpoint.load()
    for index, chunk in enumerate(chunks):
        finished = Checkpoint(work, f"updated-{index:06d}")
        if found := finished.load():
            updated.append(found[0]["pixels"])
            continue
        pixels = nn.Parameter(chunk.to(device).float().div_(255))
        held = nn.ParameterList([pixels])
        optimizer = torch.optim.Adam(held.parameters(), config.update_lr)
        first = 0
        if unfinished is not None and unfinished[1]["chunk"] == index:
            restore_training(held, optimizer, unfinished[0])
            first = unfinished[1]["steps"]
        for step in range(first, config.update_steps):
            loss = detail_loss(projector, pixels, config.update_factor)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
            progress(index * config.update_steps + step + 1, len(chunks) * config.update_steps)
            if checkpoint.due():
                checkpoint.save(training_state(held, optimizer), chunk=index, steps=step + 1)
        updated.append(pixels.detach().mul(255).round().to(torch.uint8).to(images.pixels.device))
        finished.save({"pixels": updated[-1]})
    return Images(torch.cat(updated), images.labels)


def detail_loss(projector: Projector, pixels: Tensor, factor: int) -> Tensor:
    """Squared error between the features of ``pixels`` (B, 3, S, S) and of their down- and up-sampled
    versions, mean over the features and sum over the images: no image's gradient depends on its batch."""
    size = pixels.shape[-1]
    small = F.interpolate(pixels, (size // factor, size // factor), mode="bilinear", antialias=True)
    blurred = F.interpolate(small, (size, size), mode="bilinear")
    return F.mse_loss(projector.features(blurred), projector.features(pixels), reduction="none").mean(1).sum()
