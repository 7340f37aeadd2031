"""Optimizers and learning-rate schedules shared by teachers and students."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

Schedule = Literal["cosine", "half_cosine", "half_linear", "step", "constant"]


def lr_factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """The factor on the base learning rate in epoch ``epoch`` (from 0) of ``epochs``.

    ``half_cosine`` is RDED's: 1/2 (1 + cos(pi e / 2E)), which ends at a half, not at zero; ``half_linear`` is what
    EDC's code does where its paper says half cosine: 1 - e / 2E. ``step`` is torchvision's: a tenth after each
    third of the epochs (30 of 90).
    """
    share = epoch / epochs
    match schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        case "half_cosine":
            return 0.5 * (1 + math.cos(math.pi * share / 2))
        case "half_linear":
            return 1 - share / 2
        case "step":
            return 0.1 ** int(3 * share)
        case "constant":
            return 1.0


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameters in two groups: weights of more than one dimension decay, biases and norms do not (the
    ``get_parameters`` of SRe2L, G_VBSM and RDED)."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if "weight" in name and p.ndim > 1]
    others = [p for name, p in trained if not ("weight" in name and p.ndim > 1)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def sgd(model: nn.Module, lr: float, momentum: float, weight_decay: float, nesterov: bool) -> torch.optim.Optimizer:
    """SGD with decay on every parameter (torchvision's recipe), in the fused form."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
