"""The training loop of students, whatever they learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.api import EvaluationTask, Split
from bench.api.augmentation import AugmentationSchedule
from bench.api.seeds import seed_for, seed_streams
from bench.errors import UserError
from bench.kit.checkpoint import Checkpoint, restore_training, training_state
from bench.kit.data.dataset import Resident
from bench.kit.optim import WeightAverage, decay_groups, lr_factor, set_lr
from bench.kit.validation import check_training
from bench.kit.views import AugmentationStream, AugmentedBatch
from evaluators.student_protocol import StudentProtocol

Loss = Callable[[nn.Module, AugmentedBatch, int], Tensor]  # of a student on a batch of views at a step


class Tests(Protocol):
    """The test set of a student."""

    count: int

    def top1(self, model: nn.Module) -> float:
        """Return the headline of a student, a fraction."""


def training_images(
    task: EvaluationTask, protocol: StudentProtocol, channels: Tensor | None = None
) -> tuple[Split, AugmentationSchedule]:
    """Return the images that a student learns from, with extra ``channels``, and the schedule of their views.

    Raises:
        UserError: the labels belong to other images or views, or to another class order.
    """
    if task.images is None or task.ipc is None:
        train = task.data.train
        return train, protocol.full_data_augmentation(task.dataset, len(train), task.seed)
    schedule = protocol.augmentation(task.dataset, task.ipc, task.seed)
    if task.labels is not None:
        task.labels.check(task.images, task.data.order_hash)
        theirs = task.labels.schedule()
        if theirs is not None and theirs != schedule:
            raise UserError(
                f"the stored labels belong to other views than those of {protocol.name}: {schedule.differs(theirs)}"
            )
    return Resident(task.images.pixels, task.images.labels, task.images.extras, channels), schedule


def new_student(task: EvaluationTask, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a student with random weights on the task's device.

    A student seed means the same initialisation (and, by the schedule, the same views) for every method.
    """
    torch.manual_seed(seed_for("student-init", task.seed))
    return build().to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def result(
    student: nn.Module, train: Split, schedule: AugmentationSchedule, tests: Tests, curve: list[tuple[int, float]]
) -> dict[str, Any]:
    """Return what a record holds of a trained student."""
    return {
        "top1": curve[-1][1],
        "oracle_top1": max(found for _, found in curve),
        "curve": curve,
        "test_images": tests.count,
        "epochs": schedule.epochs,
        "images": len(train),
        "parameters": sum(p.numel() for p in student.parameters()),
    }


def train_student(
    student: nn.Module,
    train: Split,
    schedule: AugmentationSchedule,
    tests: Tests,
    protocol: StudentProtocol,
    task: EvaluationTask,
    loss_of: Loss,
) -> list[tuple[int, float]]:
    """Train a student in place and return its (epoch, test result) pairs, the last epoch's last.

    Resumable after every step of the optimizer: a checkpoint in ``task.work`` is continued to the same bits.

    Raises:
        Diverged: the loss or weights are not finite; the epoch is named.
    """
    epochs, steps = schedule.epochs, schedule.batches
    stream = AugmentationStream(schedule.plan, schedule.images)
    lr = protocol.lr_by_student.get(task.student, protocol.lr)
    optimizer = make_optimizer(student, protocol, lr)
    average = None if protocol.ema is None else WeightAverage(student, protocol.ema)
    tested = student if average is None else average.averaged
    trained = nn.ModuleDict({"student": student, "tested": tested})
    test_epochs = {-(-epochs * (index + 1) // protocol.tests) for index in range(protocol.tests)}
    amp = torch.autocast(task.device.type, torch.bfloat16, enabled=protocol.amp and task.device.type != "cpu")
    checkpoint = Checkpoint(task.work)
    first, done, curve = 0, 0, []  # the epoch to continue, its finished batches, the results so far
    loss = torch.zeros((), device=task.device)
    if found := checkpoint.load():
        tensors, facts = found
        restore_training(trained, optimizer, tensors)
        first, done, curve = facts["epoch"], facts["batches"], [tuple(point) for point in facts["curve"]]

    for epoch in range(first, epochs):
        student.train()
        if not done:  # else the random states of dropout and stochastic depth came with the checkpoint
            seed_streams(seed_for("student-epoch", task.seed, epoch), task.device)
        set_lr(optimizer, lr * lr_factor(protocol.schedule, epoch, epochs, protocol.warmup))
        replayed = None if task.labels is None else task.labels.replayed_batches(epoch)
        for views in train.views(stream.config, epoch, schedule.batch_size, task.device, replayed, first=done):
            with amp:
                loss = loss_of(student, views, epoch * steps + done)
            (loss / protocol.accumulate).backward()
            done += 1
            stepped = done % protocol.accumulate == 0 or done == steps
            if stepped:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if average is not None:
                    average.update()
            task.progress(epoch * steps + done, epochs * steps)
            if stepped and checkpoint.due():
                checkpoint.save(training_state(trained, optimizer), epoch=epoch, batches=done, curve=curve)
        done = 0
        check_training(epoch + 1, loss.detach(), student.parameters() if epoch + 1 in test_epochs else ())
        if epoch + 1 in test_epochs:
            if average is not None:
                average.take_buffers()
            curve.append((epoch + 1, tests.top1(tested)))
    return curve


def make_optimizer(student: nn.Module, protocol: StudentProtocol, lr: float) -> torch.optim.Optimizer:
    """AdamW or SGD, fused, without weight decay on biases and norms."""
    groups = decay_groups(student, protocol.weight_decay)
    if protocol.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=protocol.momentum, fused=True)
