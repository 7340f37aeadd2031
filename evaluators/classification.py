"""Classification: train a student from random initialisation and test it on the whole real test set.

The headline ``top1`` is the last epoch's. The best of the tested epochs is kept as ``oracle_top1``: it is chosen on
the test images, as most of the field's published numbers are, so it is never the headline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import DatasetInfo, EvaluationRequest, EvaluationTask, Evaluator, Protocol
from bench.api.augmentation import AugmentationSchedule
from bench.errors import UserError
from evaluators.student_protocol import ClassificationProtocol, StudentProtocol

if TYPE_CHECKING:
    from torch import nn

    from bench.api import Split
    from evaluators.student_training import Tests


class Classification(Evaluator):
    """Top-1 accuracy of students."""

    name: ClassVar[str] = "classification"
    version: ClassVar[int] = 1
    Config: ClassVar[type[Protocol]] = ClassificationProtocol

    def check(self, request: EvaluationRequest) -> None:
        super().check(request)
        protocol, classes = request.protocol, request.dataset.logits
        if isinstance(protocol, ClassificationProtocol):
            for codec in request.codecs:
                check_complete(protocol, codec.complete(classes))

    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        from bench.kit.accuracy import TestImages
        from evaluators.student_training import result, training_images

        protocol = task.protocol
        assert isinstance(protocol, ClassificationProtocol)
        train, schedule = training_images(task, protocol)
        student = new_classifier(task, protocol)
        whole = protocol.test_view == "whole"
        tests = TestImages(task.data.test, task.dataset.image_size, task.device, whole=whole)
        curve = train_classifier(student, train, schedule, tests, protocol, task)
        task.keep_predictions(tests.predicted(), task.data.test.labels)
        return result(student, train, tests, curve, protocol, task)

    def schedule(self, protocol: Protocol, dataset: DatasetInfo, *, ipc: int, seed: int) -> AugmentationSchedule:
        assert isinstance(protocol, StudentProtocol)
        return protocol.augmentation(dataset, ipc, seed)

    def samples_seen(self, protocol: Protocol, dataset: DatasetInfo, *, ipc: int) -> int:
        assert isinstance(protocol, StudentProtocol)
        schedule = self.schedule(protocol, dataset, ipc=ipc, seed=0)
        return (schedule.epochs + protocol.hard_epochs(ipc)) * schedule.images


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
    """Train a student with :class:`evaluators.label_reading.LabelReading` by ``student_training.train_student``.

    Raises:
        UserError: the labels are incomplete, and the loss compares all logits.
    """
    from evaluators.label_reading import LabelReading
    from evaluators.student_training import train_student

    check_complete(protocol, task.labels is None or task.labels.complete)
    loss = LabelReading(protocol, len(protocol.view_epochs(schedule.epochs, task.ipc)))
    return train_student(student, train, schedule, tests, protocol, task, loss)


def check_complete(protocol: ClassificationProtocol, complete: bool) -> None:
    """Raise a UserError where labels do not bring back all logits, and the loss compares them."""
    if protocol.loss != "kl" and not complete:
        raise UserError(
            f"{protocol.name} compares all logits ({protocol.loss}), but renormK keeps only those of the likeliest "
            "classes, and vqM and lowrankR leave out what all have in common; use topkK, or a protocol with loss kl"
        )
