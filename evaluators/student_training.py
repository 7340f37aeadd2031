"""The training loop of students, whatever they learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
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
from evaluators.student_protocol import Rate, StudentProtocol, by_ipc


class StudentLoss:
    """Forward pass of a student on a batch of views, and its loss."""

    def forward(self, student: nn.Module, views: AugmentedBatch) -> Tensor:
        """Return the output of a student."""
        output: Tensor = student(views.pixels)
        return output

    def __call__(self, output: Tensor, soft: Tensor | None, views: AugmentedBatch, epoch: int) -> Tensor:
        """Return the mean loss of an output against soft labels (B, C), or the hard ones of the views."""
        raise NotImplementedError

    def end_epoch(self, output: Tensor, soft: Tensor | None, epoch: int) -> None:
        """Adapt to the last output of an epoch, before its step; what changes is :meth:`state`."""

    def state(self) -> dict[str, float]:
        """Return what a checkpoint must keep, by the names of its attributes."""
        return {}


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
    train = Resident(task.images.pixels, task.images.labels, task.images.extras, channels)
    if task.labels is None:
        return train, schedule
    task.labels.check(task.images, task.data.order_hash)
    if (theirs := task.labels.schedule()) is not None and (odd := schedule.differs(theirs)):
        raise UserError(f"the stored labels belong to other views than those of {protocol.name}: {odd}")
    return task.labels.views_of(train), schedule


def new_student(task: EvaluationTask, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a student with random weights on the task's device.

    A student seed means the same initialisation (and, by the schedule, the same views) for every method.
    """
    torch.manual_seed(seed_for("student-init", task.seed))
    return build().to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def result(
    student: nn.Module,
    train: Split,
    tests: Tests,
    curve: list[tuple[int, float]],
    protocol: StudentProtocol,
    task: EvaluationTask,
) -> dict[str, Any]:
    """Return what a record holds of a trained student."""
    return {
        "top1": curve[-1][1],
        "oracle_top1": max(found for _, found in curve),
        "curve": curve,
        "test_images": tests.count,
        "epochs": curve[-1][0],
        "images": len(train),
        "parameters": sum(p.numel() for p in student.parameters()),
        "precision": "bf16 autocast" if runs_in_bf16(protocol, task.device) else "fp32",
    }


def autocast(protocol: StudentProtocol, device: torch.device) -> torch.autocast:
    """Return the autocast of a student's forward pass and loss; label models never run in it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=runs_in_bf16(protocol, device))


def runs_in_bf16(protocol: StudentProtocol, device: torch.device) -> bool:
    """Return whether a student is trained in mixed precision: on accelerators, unless the protocol forbids it."""
    return protocol.amp and device.type != "cpu"


def micro_batches(
    views: AugmentedBatch, soft: Tensor | None, size: int
) -> Iterator[tuple[AugmentedBatch, Tensor | None]]:
    """Cut a batch and its soft labels into parts of ``size``; the last one may be smaller."""
    if len(views) <= size:
        yield views, soft
        return
    tensors: dict[str, Any] = {name: value for name, value in vars(views).items() if isinstance(value, Tensor)}
    for first in range(0, len(views), size):
        rows = slice(first, first + size)
        part = replace(views, **{name: value[rows] for name, value in tensors.items()})
        yield part, None if soft is None else soft[rows]


def train_student(
    student: nn.Module,
    train: Split,
    schedule: AugmentationSchedule,
    tests: Tests,
    protocol: StudentProtocol,
    task: EvaluationTask,
    loss: StudentLoss,
) -> list[tuple[int, float]]:
    """Train a student in place and return its (epoch, test result) pairs, the last epoch's last.

    Resumable after every step of the optimizer: a checkpoint in ``task.work`` is continued to the same bits.

    Raises:
        Diverged: the loss or weights are not finite; the epoch is named.
    """
    steps, shown = schedule.batches, protocol.view_epochs(schedule.epochs, task.ipc)
    epochs = len(shown)
    stream = AugmentationStream(schedule.plan, schedule.images)
    lr: float = by_ipc(protocol.lr, task.ipc)
    rate: Rate = by_ipc(protocol.schedule, task.ipc)
    optimizer = make_optimizer(student, protocol, lr)
    average = None if protocol.ema is None else WeightAverage(student, protocol.ema)
    tested = student if average is None else average.averaged
    trained = nn.ModuleDict({"student": student, "tested": tested})
    test_epochs = protocol.test_epochs(epochs, schedule.images, tests.count)
    parts = protocol.micro_batches if task.ipc is not None else 1
    part_size = -(-by_ipc(protocol.batch_size, task.ipc) // parts) if parts > 1 else schedule.batch_size
    amp = autocast(protocol, task.device)
    checkpoint = Checkpoint(task.work)
    first, done, curve = 0, 0, []  # the epoch to continue, its finished batches, the results so far
    value = torch.zeros((), device=task.device)
    if found := checkpoint.load():
        tensors, facts = found
        restore_training(trained, optimizer, tensors)
        vars(loss).update(facts.get("loss", {}))
        first, done, curve = facts["epoch"], facts["batches"], [tuple(point) for point in facts["curve"]]

    for epoch in range(first, epochs):
        student.train()
        if not done:  # else the random states of dropout and stochastic depth came with the checkpoint
            seed_streams(seed_for("student-epoch", task.seed, epoch), task.device)
        set_lr(optimizer, lr * lr_factor(rate, epoch, epochs, protocol.warmup))
        labels = task.labels if shown[epoch] < schedule.epochs else None
        replayed = None if labels is None else labels.replayed_batches(shown[epoch])
        for views in train.views(stream.config, shown[epoch], schedule.batch_size, task.device, replayed, first=done):
            soft = None if labels is None else labels.soft_labels(views, epoch * steps + done)
            for part, part_soft in micro_batches(views, soft, part_size):
                with amp:
                    output = loss.forward(student, part)
                    value = loss(output, part_soft, part, epoch)
                (value / parts).backward()
            done += 1
            if done == steps:
                loss.end_epoch(output.detach(), part_soft, epoch)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update()
            task.progress(epoch * steps + done, epochs * steps)
            if checkpoint.due():
                facts = {"epoch": epoch, "batches": done, "curve": curve, "loss": loss.state()}
                checkpoint.save(training_state(trained, optimizer), **facts)
        done = 0
        check_training(epoch + 1, value.detach(), student.parameters() if epoch + 1 in test_epochs else ())
        if epoch + 1 in test_epochs:
            if average is not None:
                average.take_buffers()
            curve.append((epoch + 1, tests.top1(tested)))
    return curve


def make_optimizer(student: nn.Module, protocol: StudentProtocol, lr: float) -> torch.optim.Optimizer:
    """AdamW or SGD, fused, without weight decay on biases and norms unless the protocol decays all."""
    groups = decay_groups(student, protocol.weight_decay, protocol.decay_all)
    if protocol.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=protocol.momentum, fused=True)
