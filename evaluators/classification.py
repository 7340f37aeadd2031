"""Classification: train a student from random initialisation and test it on the whole real test set.

The headline ``top1`` is the last epoch's. The best of the tested epochs is kept as ``oracle_top1``: it is chosen on
the test images, as most of the field's published numbers are, so it is never the headline.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.api import DatasetInfo, EvaluationTask, Evaluator, Protocol
from bench.api.augmentation import AugmentationSchedule
from bench.errors import UserError
from evaluators.student_protocol import StudentProtocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.api import Split
    from bench.kit.views import AugmentedBatch
    from evaluators.student_training import Tests


class ClassificationProtocol(StudentProtocol):
    """All that decides a student's accuracy except its images and labels."""

    loss: Literal["kl", "mse"] = "kl"  # against soft labels; hard labels take cross entropy
    temperature: float = 20.0  # of kl
    squared_temperature: bool = False  # kl times T²: SRe2L on Tiny-ImageNet has it, SRe2L and RDED on ImageNet don't
    ce_weight: float = 0.0  # of the cross entropy to the base image's own label, added to mse (G_VBSM, EDC)
    bn_momentum: float | None = None  # None: the architecture's own


class Classification(Evaluator):
    """Top-1 accuracy of students."""

    name: ClassVar[str] = "classification"
    version: ClassVar[int] = 1
    Config: ClassVar[type[Protocol]] = ClassificationProtocol

    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        from bench.kit.accuracy import TestImages
        from evaluators.student_training import result, training_images

        protocol = task.protocol
        assert isinstance(protocol, ClassificationProtocol)
        train, schedule = training_images(task, protocol)
        student = new_classifier(task, protocol)
        tests = TestImages(task.data.test, task.dataset.image_size, task.device)
        curve = train_classifier(student, train, schedule, tests, protocol, task)
        task.keep_predictions(tests.predicted(), task.data.test.labels)
        return result(student, train, schedule, tests, curve)

    def schedule(self, protocol: Protocol, dataset: DatasetInfo, *, ipc: int, seed: int) -> AugmentationSchedule:
        assert isinstance(protocol, StudentProtocol)
        return protocol.augmentation(dataset, ipc, seed)


def new_classifier(task: EvaluationTask, protocol: ClassificationProtocol) -> nn.Module:
    """Build a student by :func:`evaluators.student_training.new_student`."""
    from bench.kit.models import build
    from evaluators.student_training import new_student

    info = task.dataset
    return new_student(
        task, lambda: build(task.student, info.classes, info.image_size, info.mean, info.std, protocol.bn_momentum)
    )


def train_classifier(
    student: nn.Module,
    train: Split,
    schedule: AugmentationSchedule,
    tests: Tests,
    protocol: ClassificationProtocol,
    task: EvaluationTask,
) -> list[tuple[int, float]]:
    """Train a student with :func:`student_loss` by :func:`evaluators.student_training.train_student`.

    Raises:
        UserError: the labels are incomplete, and the loss compares all logits.
    """
    from evaluators.student_training import train_student

    if protocol.loss == "mse" and task.labels is not None and not task.labels.complete:
        raise UserError(
            f"{protocol.name} compares all logits (mse), but renormK keeps only those of the likeliest classes, "
            "and vqM and lowrankR leave out what all have in common; use topkK, or a protocol with loss kl"
        )
    loss = partial(student_loss, task=task, protocol=protocol)
    return train_student(student, train, schedule, tests, protocol, task, loss)


def student_loss(
    student: nn.Module, views: AugmentedBatch, step: int, task: EvaluationTask, protocol: ClassificationProtocol
) -> Tensor:
    """Return the loss of a student on a batch, against soft labels where there are any, else against the hard ones.

    ``kl``: batch-mean KL(labels ‖ student) at a temperature, with or without T². ``mse``: mean squared error over all
    logits plus ``ce_weight`` times the cross entropy to the base image's unmixed label (``mse_gt`` of G_VBSM and EDC).
    Hard: cross entropy to both labels of a mixed image by their shares.
    """
    from torch.nn import functional as F

    logits = student(views.pixels)
    if task.labels is None:
        base = F.cross_entropy(logits, views.labels)
        if views.weight == 1:
            return base
        return views.weight * base + (1 - views.weight) * F.cross_entropy(logits, views.partner_labels)
    soft = task.labels.soft_labels(views, step)
    if protocol.loss == "mse":
        return F.mse_loss(logits, soft) + protocol.ce_weight * F.cross_entropy(logits, views.labels)
    temperature = protocol.temperature
    divergence = F.kl_div(
        F.log_softmax(logits / temperature, 1),
        F.log_softmax(soft / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2 if protocol.squared_temperature else divergence
