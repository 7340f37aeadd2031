"""Optimizers and learning-rate schedules shared by teachers and students."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

Schedule = Literal["cosine", "half_cosine", "half_linear", "step", "late_steps", "constant"]
_WARMUP_START = 0.01


def lr_factor(schedule: Schedule, epoch: int, epochs: int, warmup: int = 0) -> float:
    """Return the factor on the base learning rate in epoch ``epoch`` (from 0) of ``epochs``.

    The first ``warmup`` epochs rise linearly from a hundredth and the schedule runs over the others, as in
    torchvision's reference trainer.
    ``half_cosine`` is RDED's: 1/2 (1 + cos(pi e / 2E)), which ends at a half, not at zero; ``half_linear`` is what
    EDC's code does where its paper says half cosine: 1 - e / 2E. ``step`` is torchvision's: a tenth after each
    third of the epochs (30 of 90). ``late_steps`` is GIFT's: a fifth after 2/3 and again after 5/6 of the epochs.
    """
    if epoch < warmup:
        return _WARMUP_START + (1 - _WARMUP_START) * epoch / warmup
    epoch, epochs = epoch - warmup, epochs - warmup
    share = epoch / epochs
    match schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        case "half_cosine":
            return 0.5 * (1 + math.cos(math.pi * share / 2))
        case "half_linear":
            return 1 - share / 2
        case "step":
            return 0.1 ** (3 * epoch // epochs)
        case "late_steps":
            return float(0.2 ** ((epoch >= 2 * epochs // 3) + (epoch >= 5 * epochs // 6)))
        case "constant":
            return 1.0


def decay_groups(model: nn.Module, weight_decay: float, all_decay: bool = False) -> list[dict[str, object]]:
    """Split the parameters in two: weights of more than one dimension decay, others do not (SRe2L, G_VBSM, RDED)."""
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decayed if all_decay or ("weight" in name and parameter.ndim > 1) else others).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def sgd(model: nn.Module, lr: float, momentum: float, weight_decay: float, nesterov: bool) -> torch.optim.Optimizer:
    """Make SGD with decay on every parameter (torchvision's recipe), in the fused form."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)


class WeightAverage:
    """An exponential moving average of a model's weights, as EDC tests its students.

    It starts at the first weights, and buffers are the model's own (shaoshitong/EDC, ``train_FKD_parallel.py``).
    ``averaged`` is the model that holds it.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        self.averaged = copy.deepcopy(model)
        self._pairs: tuple[list[Tensor], list[Tensor]] = list(self.averaged.parameters()), list(model.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Move the average, after each step: decay times the average + (1 - decay) times the weights."""
        mine, theirs = self._pairs
        torch._foreach_lerp_(mine, theirs, 1 - self.decay)

    @torch.no_grad()
    def take_buffers(self) -> None:
        """Copy the model's buffers before a test: statistics of batch norms are not averaged."""
        for mine, theirs in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
