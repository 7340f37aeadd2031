"""Classification: train a student from random initialisation, test it on the whole real test set.

The headline ``top1`` is the last epoch's. The best of the tested epochs is kept as ``oracle_top1``: it was chosen
on the test images, as most of the field's published numbers were, so it never headlines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from bench.api import BaseConfig, DatasetInfo, EvaluationTask, Evaluator, Images, LabelSource, Protocol
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.seeds import seed_for
from bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn

    from bench.api import Split
    from bench.kit.views import AugmentedBatch

    LossOf = Callable[[nn.Module, AugmentedBatch, int], Tensor]

ByIpc = int | dict[int, int]  # one number, or the number from an IPC on: {1 = 300, 10 = 100}


def by_ipc(value: ByIpc, ipc: int) -> int:
    """The number that holds at an IPC: that of the largest key not above it."""
    if isinstance(value, int):
        return value
    return value[max((key for key in value if key <= ipc), default=min(value))]


class FullData(BaseConfig):
    """How the same student is trained on the whole training set, for the reference row."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)


class StudentProtocol(Protocol):
    """How a student is trained, whatever it learns, and how often it is tested."""

    epochs: ByIpc
    batch_size: ByIpc  # never above the number of images
    full_data: FullData

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    lr_by_student: dict[str, float] = Field(default_factory=dict)
    weight_decay: float = 0.01
    momentum: float = 0.9  # of SGD
    schedule: Literal["cosine", "half_cosine", "half_linear", "constant"] = "cosine"
    warmup: int = Field(0, ge=0)  # epochs in which the rate rises linearly, from a hundredth (torchvision)
    accumulate: int = Field(1, ge=1)  # batches whose gradients make one step

    crop: Literal["rrc", "shift", "none"] = "rrc"
    min_scale: float = 0.08
    flip: bool = True  # unless the data set forbids it
    shuffle: int = 1  # ShufflePatches factor
    mix: Literal["none", "cutmix", "mixup"] = "cutmix"
    alpha: float = 1.0

    ema: float | None = None  # decay of an average of the weights, which is then what is tested (EDC: 0.99)
    amp: bool = True  # bfloat16 autocast, on accelerators only
    tests: int = Field(10, ge=1)  # how often the student is tested on its way; always after the last epoch


class ClassificationProtocol(StudentProtocol):
    """Everything that decides a student's accuracy but its images and labels."""

    loss: Literal["kl", "mse"] = "kl"  # against soft labels; hard labels take cross entropy
    temperature: float = 20.0  # of kl
    squared_temperature: bool = False  # kl times T²: SRe2L on Tiny-ImageNet has it, SRe2L and RDED on ImageNet don't
    ce_weight: float = 0.0  # of the cross entropy to the base image's own label, beside mse (G_VBSM, EDC)
    bn_momentum: float | None = None  # None: the architecture's own


class Classification(Evaluator):
    """Top-1 accuracy of students."""

    name: ClassVar[str] = "classification"
    version: ClassVar[int] = 1
    Config: ClassVar[type[Protocol]] = ClassificationProtocol
    protocols: ClassVar[str] = "evaluators.protocols"

    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        from bench.kit.accuracy import TestImages
        from bench.kit.data.dataset import Resident

        protocol, info = task.protocol, task.dataset
        assert isinstance(protocol, ClassificationProtocol)
        if task.images is None:
            train: Split = task.data.train
            schedule = self.full_data_schedule(protocol, info, len(train), task.seed)
        else:
            train = Resident(task.images.pixels, task.images.labels)
            schedule = self.schedule(protocol, info, len(train), task.seed)
            if task.labels is not None:
                check_labels(task.labels, schedule, protocol, task.images, task.data.order_hash)
        student = new_student(task, protocol)
        tests = TestImages(task.data.test, info.image_size, task.device)
        curve = train_student(student, train, schedule, tests, protocol, task)
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

    def schedule(self, protocol: Protocol, dataset: DatasetInfo, images: int, seed: int) -> AugmentationSchedule:
        assert isinstance(protocol, StudentProtocol)
        ipc = images // dataset.classes
        return AugmentationSchedule(
            plan=self._views(protocol, dataset, protocol.shuffle, seed),
            images=images,
            epochs=by_ipc(protocol.epochs, ipc),
            batch_size=min(by_ipc(protocol.batch_size, ipc), images),
        )

    def full_data_schedule(
        self, protocol: StudentProtocol, dataset: DatasetInfo, images: int, seed: int
    ) -> AugmentationSchedule:
        """The views that a student of ``seed`` sees of real training images, where they are all there are."""
        full = protocol.full_data
        plan = self._views(protocol, dataset, 1, seed)  # real photographs are no mosaics
        return AugmentationSchedule(
            plan=plan, images=images, epochs=full.epochs, batch_size=min(full.batch_size, images)
        )

    @staticmethod
    def _views(protocol: StudentProtocol, dataset: DatasetInfo, shuffle: int, seed: int) -> AugmentationConfig:
        return AugmentationConfig(
            size=dataset.image_size,
            crop=protocol.crop,
            min_scale=protocol.min_scale,
            flip=protocol.flip and dataset.flip,
            shuffle=shuffle,
            mix=protocol.mix,
            alpha=protocol.alpha,
            seed=seed_for("student-views", seed),
        )


def new_student(task: EvaluationTask, protocol: ClassificationProtocol) -> nn.Module:
    """A student with random weights and an output for each class of ``task.dataset``, on its device; student seed k
    means the same initialisation (and, by the schedule, the same views) for every method."""
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
    """Refuse labels that a student of this schedule can't learn from.

    Raises:
        UserError: stored for other views, images or another class order; or incomplete, under a loss on all logits.
    """
    labels.check(images, order_hash)
    theirs = labels.schedule()
    if theirs is not None and theirs != schedule:
        raise UserError(
            f"the stored labels belong to other views than {protocol.name} shows: {schedule.differs(theirs)}"
        )
    if protocol.loss == "mse" and not labels.complete:
        raise UserError(
            f"{protocol.name} compares all logits (mse), which labels of the likeliest classes alone don't have; "
            "use topkK instead of renormK, or a protocol with loss kl"
        )


def train_student(
    student: nn.Module,
    train: Split,
    schedule: AugmentationSchedule,
    tests: Any,
    protocol: StudentProtocol,
    task: EvaluationTask,
    loss_of: LossOf | None = None,
) -> list[tuple[int, float]]:
    """The loop; returns (epoch, test top-1) pairs, the last epoch's last. Resumable at every step of the optimizer.

    Args:
        tests: its ``top1(student)`` is the headline, a fraction.
        loss_of: the loss of a student on a batch of views at a step; None: :func:`student_loss` of a classifier.
    """
    import torch

    from bench.api.seeds import seed_streams
    from bench.kit.checkpoint import Checkpoint, restore_training, training_state
    from bench.kit.optim import WeightAverage, lr_factor, set_lr
    from bench.kit.views import AugmentationStream

    loss_of = loss_of or _classifier_loss(task, protocol)
    epochs, steps, together = schedule.epochs, schedule.batches, protocol.accumulate
    stream = AugmentationStream(schedule.plan, schedule.images)
    lr = protocol.lr_by_student.get(task.student, protocol.lr)
    optimizer = make_optimizer(student, protocol, lr)
    average = None if protocol.ema is None else WeightAverage(student, protocol.ema)
    tested = student if average is None else average.averaged
    trained = torch.nn.ModuleDict({"student": student, "tested": tested})
    checkpoint = Checkpoint(task.work)
    first, done, curve = 0, 0, []  # the epoch to go on with, how many of its batches were shown, the tests
    if found := checkpoint.load():
        tensors, facts = found
        restore_training(trained, optimizer, tensors)
        first, done, curve = facts["epoch"], facts["batches"], [tuple(point) for point in facts["curve"]]
    test_epochs = {-(-epochs * (index + 1) // protocol.tests) for index in range(protocol.tests)}
    amp = torch.autocast(task.device.type, torch.bfloat16, enabled=protocol.amp and task.device.type != "cpu")
    for epoch in range(first, epochs):
        student.train()
        if not done:  # else the streams of dropout and stochastic depth came with the checkpoint
            seed_streams(seed_for("student-epoch", task.seed, epoch), task.device)
        set_lr(optimizer, lr * lr_factor(protocol.schedule, epoch, epochs, protocol.warmup))
        replay = None if task.labels is None else task.labels.replay(epoch)
        shown = train.views(stream.plan, epoch, schedule.batch_size, task.device, replay, first=done)
        for batch, views in enumerate(shown, done):
            step = epoch * steps + batch
            with amp:
                loss = loss_of(student, views, step)
            first_of_step, last_of_step = batch % together == 0, (batch + 1) % together == 0 or batch + 1 == steps
            if first_of_step:
                optimizer.zero_grad(set_to_none=True)
            (loss / together if together > 1 else loss).backward()
            if last_of_step:
                optimizer.step()
                if average is not None:
                    average.update()
            task.progress(step + 1, epochs * steps)
            if last_of_step and checkpoint.due():
                checkpoint.save(training_state(trained, optimizer), epoch=epoch, batches=batch + 1, curve=curve)
        done = 0
        if epoch + 1 in test_epochs:
            if average is not None:
                average.take_buffers()
            curve.append((epoch + 1, tests.top1(tested)))
    return curve


def _classifier_loss(task: EvaluationTask, protocol: StudentProtocol) -> LossOf:
    assert isinstance(protocol, ClassificationProtocol)
    return lambda student, views, step: student_loss(student(views.pixels), views, task, protocol, step)


def make_optimizer(student: nn.Module, protocol: StudentProtocol, lr: float) -> torch.optim.Optimizer:
    """AdamW or SGD over the usual two groups, fused."""
    import torch

    from bench.kit.optim import decay_groups

    groups = decay_groups(student, protocol.weight_decay)
    if protocol.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=protocol.momentum, fused=True)


def student_loss(
    logits: Tensor, views: AugmentedBatch, task: EvaluationTask, protocol: ClassificationProtocol, step: int
) -> Tensor:
    """The loss of one batch: soft labels where there are any, else cross entropy to the hard ones.

    ``kl``: batch-mean KL(teacher ‖ student) at a temperature, with or without T². ``mse``: mean squared
    error over all logits plus ``ce_weight`` times the cross entropy to the base image's unmixed label (G_VBSM and
    EDC's ``mse_gt``). Hard: cross entropy to both labels of a mixed image by their shares.
    """
    from torch.nn import functional as F

    if task.labels is None:
        base = F.cross_entropy(logits, views.labels)
        if views.weight == 1:
            return base
        return views.weight * base + (1 - views.weight) * F.cross_entropy(logits, views.partner_labels)
    soft = task.labels.soft_labels(views, step)
    if protocol.loss == "kl":
        heat = protocol.temperature
        divergence = F.kl_div(
            F.log_softmax(logits / heat, 1), F.log_softmax(soft / heat, 1), reduction="batchmean", log_target=True
        )
        return divergence * heat**2 if protocol.squared_temperature else divergence
    return F.mse_loss(logits, soft) + protocol.ce_weight * F.cross_entropy(logits, views.labels)
