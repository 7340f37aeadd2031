"""Loss of a student of classification: the temperatures of labels and student, and their calibration."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api import AugmentedBatch
from evaluators.student_protocol import ClassificationProtocol
from evaluators.student_training import StudentLoss

GIFT_SMOOTHING = 0.1  # of GIFT's one-hot labels: .9 for the true class (LINs-lab/GIFT, losses_benchmark.py:18)
CALIBRATED = [step / 100 for step in range(1, 101)]  # candidates (LPQLD, train_FKD_LPQLD.py:816)


@final
class LabelReading(StudentLoss):
    """The loss of a student, against soft labels where there are any, else against the hard ones.

    ``kl``: batch-mean KL(labels ‖ student) at a temperature each, with or without T². ``mse``: mean squared error over
    all logits plus ``ce_weight`` times the cross entropy to the base image's unmixed label (``mse_gt`` of G_VBSM and
    EDC). ``cosine``: one minus the mean cosine of the student's logits and the labels, which are first refined by the
    base image's hard label (GIFT). Hard: cross entropy to both smoothed labels of a mixed image by their shares.
    """

    def __init__(self, protocol: ClassificationProtocol, epochs: int):
        """Start with the first student temperature; ``epochs`` are all of the training."""
        self.protocol, self.epochs = protocol, epochs
        self.calibrated = CALIBRATED[-1]

    def __call__(self, output: Tensor, soft: Tensor | None, views: AugmentedBatch, epoch: int) -> Tensor:
        rules = self.protocol
        if soft is None:
            base = F.cross_entropy(output, views.labels, label_smoothing=rules.label_smoothing)
            if views.weight == 1:
                return base
            other = F.cross_entropy(output, views.partner_labels, label_smoothing=rules.label_smoothing)
            return views.weight * base + (1 - views.weight) * other
        if rules.loss == "mse":
            return F.mse_loss(output, soft) + rules.ce_weight * F.cross_entropy(output, views.labels)
        if rules.loss == "cosine":
            target = F.normalize(soft, dim=1) + rules.refinement * smoothed(views.labels, soft)
            return 1 - F.cosine_similarity(output, target, dim=1).mean()
        temperature = self.temperature(epoch)
        divergence = kl(output / self.student_temperature(epoch), soft / temperature)
        return divergence * temperature**2 if rules.squared_temperature else divergence

    def temperature(self, epoch: int) -> float:
        """Return the labels' temperature in an epoch (from 0), in steps or along a cosine (LPQLD counts from 1)."""
        rules = self.protocol
        match rules.temperature_schedule:
            case "constant":
                return rules.temperature
            case "step":
                steps = (epoch + 1) * rules.temperature_steps // self.epochs
                return max(rules.temperature_min, rules.temperature * rules.temperature_decay**steps)
            case "cosine":
                share = 0.5 * (1 + math.cos(math.pi * (epoch + 1) / self.epochs))
                return rules.temperature_min + (rules.temperature - rules.temperature_min) * share

    def student_temperature(self, epoch: int) -> float:
        """Return the temperature of the student's logits in an epoch."""
        wanted = self.protocol.student_temperature
        if wanted == "same":
            return self.temperature(epoch)
        return self.calibrated if wanted == "calibrated" else wanted

    def end_epoch(self, output: Tensor, soft: Tensor | None, epoch: int) -> None:
        """Calibrate the student's temperature: the one of least divergence on the epoch's last batch (LPQLD)."""
        if soft is None or self.protocol.student_temperature != "calibrated":
            return
        wanted, output = soft / self.temperature(epoch), output.float()
        losses = torch.stack([kl(output / candidate, wanted) for candidate in CALIBRATED])
        self.calibrated = CALIBRATED[int(losses.argmin())]

    def state(self) -> dict[str, float]:
        return {"calibrated": self.calibrated}


def kl(output: Tensor, wanted: Tensor) -> Tensor:
    """Return the batch-mean KL divergence of the student's softmax from the labels'; both logits (B, C)."""
    divergence: Tensor = F.kl_div(
        F.log_softmax(output, 1), F.log_softmax(wanted, 1), reduction="batchmean", log_target=True
    )
    return divergence


def smoothed(labels: Tensor, soft: Tensor) -> Tensor:
    """Return GIFT's smoothed one-hot labels (B, C) of length 1."""
    others = torch.full_like(soft, GIFT_SMOOTHING / (soft.shape[1] - 1))
    return F.normalize(others.scatter(1, labels[:, None], 1 - GIFT_SMOOTHING), dim=1)
