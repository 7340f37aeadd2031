"""The optional last touch on the images: make them say the same when their detail is gone.

Each image p is moved by Adam so that the projector's features of p and of p sampled down and up again agree
(arXiv 2408.08201: learning rate .01, 300 steps). The paper credits it with +0.1 points at ImageNet-1K, IPC
10, and says neither what p starts from nor how far it is sampled down. Assumed here: from RDED's images, to
half their side, with the gradient through both features. Off but in its official protocol, whose numbers include it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Task
from methods.hello.config import Config
from methods.hello.projector import Projector


def update(start: Tensor, projector: Projector, config: Config, task: Task) -> Tensor:
    """Update uint8 images (N, 3, S, S); the result of each depends on no other."""
    pixels = nn.Parameter(start.to(task.device).float().div_(255))
    held = nn.ParameterList([pixels])
    optimizer = torch.optim.Adam(held.parameters(), config.update_lr)
    done = (task.checkpoint.restore_training(held, optimizer) or {"steps": 0})["steps"]
    for step in range(done, config.update_steps):
        loss = detail_loss(projector, pixels, config.update_factor)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
        task.progress(step + 1, config.update_steps)
        if task.checkpoint.due():
            task.checkpoint.save_training(held, optimizer, steps=step + 1)
    return pixels.detach().mul(255).round().to(torch.uint8).to(start.device)


def detail_loss(projector: Projector, pixels: Tensor, factor: int) -> Tensor:
    """Return the squared error between the features of ``pixels`` (B, 3, S, S) and of their down- and up-sampled copy.

    It is a mean over the features and a sum over the images: no image's gradient depends on its batch.
    """
    size = pixels.shape[-1]
    small = F.interpolate(pixels, (size // factor, size // factor), mode="bilinear", antialias=True)
    blurred = F.interpolate(small, (size, size), mode="bilinear")
    return F.mse_loss(projector.features(blurred), projector.features(pixels), reduction="none").mean(1).sum()
