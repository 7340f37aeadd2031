"""Classification: train a student from random initialisation and test it on the whole real test set.

The headline ``top1`` is the last epoch's. The best of the tested epochs is kept as ``oracle_top1``: it is chosen on
the test images, as most of the field's published numbers are, so it is never the headline.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.api import DatasetInfo, EvaluationTask, Evaluator, Images, LabelSource, Protocol
from bench.api.augmentation import AugmentationSchedule
from bench.api.seeds import seed_for
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

        protocol, info = task.protocol, task.dataset
        assert isinstance(protocol, ClassificationProtocol)
        train, schedule = training_images(task, protocol)
        student = new_student(task, protocol)
        tests = TestImages(task.data.test, info.image_size, task.device)
        curve = train_classifier(student, train, schedule, tests, protocol, task)
        task.keep_predictions(tests.predicted(), task.data.test.labels)
        return {
            "top1": curve[-1][1],
            "oracle_top1": max(top1 for _, top1 in curve),
            "curve": curve,
            "test_images": tests.count,
            "epochs": schedule.epochs,
            "images": len(train),
            "parameters": sum(p.numel() for p in student.parameters()),
        }

    def schedule(self, protocol: Protocol, dataset: DatasetInfo, *, ipc: int, seed: int) -> AugmentationSchedule:
        assert isinstance(protocol, StudentProtocol)
        return protocol.augmentation(dataset, ipc, seed)


def training_images(task: EvaluationTask, protocol: ClassificationProtocol) -> tuple[Split, AugmentationSchedule]:
    """Return the images that a student learns from, and the schedule of their views.

    Raises:
        UserError: the labels belong to other images or views.
    """
    from bench.kit.data.dataset import Resident

    if task.images is None or task.ipc is None:
        train: Split = task.data.train
        return train, protocol.full_data_augmentation(task.dataset, len(train), task.seed)
    schedule = protocol.augmentation(task.dataset, task.ipc, task.seed)
    if task.labels is not None:
        check_labels(task.labels, schedule, protocol, task.images, task.data.order_hash)
    return Resident(task.images.pixels, task.images.labels), schedule


def new_student(task: EvaluationTask, protocol: ClassificationProtocol) -> nn.Module:
    """Build a student with random weights on the task's device.

    A student seed means the same initialisation (and, by the schedule, the same views) for every method.
    """
    import torch

    from bench.kit.models import build

    info = task.dataset
    torch.manual_seed(seed_for("student-init", task.seed))
    student = build(task.student, info.classes, info.image_size, info.mean, info.std, protocol.bn_momentum)
    return student.to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def check_labels(
    labels: LabelSource,
    schedule: AugmentationSchedule,
    protocol: ClassificationProtocol,
    images: Images,
    order_hash: str,
) -> None:
    """Refuse labels that a student with this schedule can't learn from.

    Raises:
        UserError: stored for other views, images or another class order; or incomplete, under a loss on all logits.
    """
    labels.check(images, order_hash)
    theirs = labels.schedule()
    if theirs is not None and theirs != schedule:
        raise UserError(
            f"the stored labels belong to other views than those of {protocol.name}: {schedule.differs(theirs)}"
        )
    if protocol.loss == "mse" and not labels.complete:
        raise UserError(
            f"{protocol.name} compares all logits (mse), and renormK keeps only those of the likeliest classes; use "
            "topkK, or a protocol with loss kl"
        )


def train_classifier(
    student: nn.Module,
    train: Split,
    schedule: AugmentationSchedule,
    tests: Tests,
    protocol: ClassificationProtocol,
    task: EvaluationTask,
) -> list[tuple[int, float]]:
    """Train a student with :func:`student_loss` by :func:`evaluators.student_training.train_student`."""
    from evaluators.student_training import train_student

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
