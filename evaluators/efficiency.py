"""Efficiency: time and memory of training a student (HeLlO, arXiv 2408.08201, supplement Table 6).

The loop is that of :mod:`evaluators.classification` with its views and labels, under any of its protocols:
``--set protocol.evaluator=efficiency``. It runs in blocks of iterations; the device is synchronised between blocks. A
bare loop with the same student, optimizer and batch size trains on one batch that stays on the device, with hard
labels: the cost without images and labels.

Table 6 gives seconds per iteration at each method's own batch size (100 or 1,024), which cannot be compared across
methods; milliseconds per image can. Nothing is tested, so there is no accuracy, and the numbers vary from run to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count, pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bench.api import EvaluationTask, LabelSource, Progress, Protocol
from bench.api.augmentation import AugmentationSchedule
from evaluators.classification import Classification, new_classifier, train_classifier
from evaluators.student_protocol import ClassificationProtocol, by_ipc

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bench.api import Split


class EfficiencyProtocol(ClassificationProtocol):
    """The recipe of the student, and the length of the measurement."""

    untimed: int = Field(5, ge=1)  # iterations before the clock starts: kernels are chosen, memory is allocated
    steps: int = Field(10, ge=1)  # iterations per block
    blocks: int = Field(5, ge=1)

    @property
    def iterations(self) -> int:
        """All iterations, timed or not."""
        return self.untimed + self.steps * self.blocks

    def _schedule(self, *given: Any) -> AugmentationSchedule:
        """Return a schedule with just as many epochs as hold all iterations."""
        schedule = super()._schedule(*given)
        return schedule.model_copy(update={"epochs": -(-self.iterations // schedule.batches)})


class Efficiency(Classification):
    """Time and memory of training a student."""

    name: ClassVar[str] = "efficiency"
    version: ClassVar[int] = 1
    Config: ClassVar[type[Protocol]] = EfficiencyProtocol
    metric: ClassVar[str] = "cost"
    exclusive: ClassVar[bool] = True

    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        from bench.kit import peak_memory
        from evaluators.student_training import training_images

        protocol = task.protocol
        assert isinstance(protocol, EfficiencyProtocol)
        train, schedule = training_images(task, protocol)
        student = new_classifier(task, protocol)
        peak_memory.reset(task.device)
        seconds = student_seconds(student, train, schedule, protocol, task)
        accelerator, host = peak_memory.accelerator(task.device), peak_memory.host()
        bare = bare_seconds(student, train, schedule, protocol, task)
        images = images_of_blocks(schedule, protocol, task.labels)
        per_image = [1e3 * taken / count for taken, count in zip(seconds, images, strict=True)]
        bare_per_image = 1e3 * median(bare) / (protocol.steps * schedule.batch_size)
        return {
            "cost": {
                "batch_size": schedule.batch_size,
                "iterations": protocol.steps * protocol.blocks,
                "seconds_per_iteration": median(seconds) / protocol.steps,
                "milliseconds_per_image": median(per_image),
                "fastest": min(per_image),
                "slowest": max(per_image),
                "times_bare": median(per_image) / bare_per_image,
                "accelerator_bytes": accelerator,
                "host_bytes": host,
            },
            "parameters": sum(p.numel() for p in student.parameters()),
        }


def images_of_blocks(
    schedule: AugmentationSchedule, protocol: EfficiencyProtocol, labels: LabelSource | None
) -> list[int]:
    """Return the number of samples in each block: the last batch of an epoch may be shorter."""
    sizes = []
    for step in range(protocol.untimed, protocol.iterations):
        epoch, batch = divmod(step, schedule.batches)
        replayed = None if labels is None else labels.replayed_batches(epoch)
        sizes.append(len(schedule.rows(batch if replayed is None else replayed[batch][1])))
    return [sum(sizes[first : first + protocol.steps]) for first in range(0, len(sizes), protocol.steps)]


class Enough(Exception):
    """End a loop after its last block."""


class Stopwatch:
    """A progress callback that measures the seconds of each block of iterations.

    ``now`` is called only at the ends of blocks, because it synchronises the device.
    """

    def __init__(self, protocol: EfficiencyProtocol, now: Callable[[], float], progress: Progress):
        self.protocol, self.now, self.progress = protocol, now, progress
        self.iterations = 0
        self.ends: list[float] = []

    def __call__(self, done: int, total: int, **metrics: float) -> None:
        """Count an iteration; raise Enough at the last one."""
        self.iterations += 1
        timed = self.iterations - self.protocol.untimed
        if timed >= 0 and timed % self.protocol.steps == 0:
            self.ends.append(self.now())
        self.progress(self.iterations, self.protocol.iterations, **metrics)
        if self.iterations == self.protocol.iterations:
            raise Enough

    @property
    def seconds(self) -> list[float]:
        """Seconds of each finished block."""
        return [end - begin for begin, end in pairwise(self.ends)]


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock that synchronises the device before it reads the seconds."""
    import torch

    def now() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    return now


def student_seconds(
    student: nn.Module, train: Split, schedule: AugmentationSchedule, protocol: EfficiencyProtocol, task: EvaluationTask
) -> list[float]:
    """Seconds of each block of the training loop."""
    from bench.kit import checkpoint

    watch = Stopwatch(protocol, clock(task.device), task.progress)
    # a folder of its own: a measurement is never resumed in the middle
    with checkpoint.temporary_folder(task.work) as work, suppress(Enough):
        timed = replace(task, work=work, progress=watch)
        train_classifier(
            student, train, schedule, Untested(), protocol.model_copy(update={"test_every": None, "tests": 1}), timed
        )
    return watch.seconds


class Untested:
    """A test set that is never reached, because the loop ends before its last epoch does."""

    count = 0

    def top1(self, model: nn.Module) -> float:
        raise NotImplementedError


def bare_seconds(
    student: nn.Module, train: Split, schedule: AugmentationSchedule, protocol: EfficiencyProtocol, task: EvaluationTask
) -> list[float]:
    """Seconds of each block of a bare loop: forward, cross entropy, backward and step on one batch on the device."""
    from torch.nn import functional as F

    from bench.kit.views import AugmentationStream
    from evaluators.student_training import autocast, make_optimizer

    stream = AugmentationStream(schedule.plan, schedule.images)
    views = next(iter(train.views(stream.config, 0, schedule.batch_size, task.device)))
    optimizer = make_optimizer(student, protocol, by_ipc(protocol.lr, task.ipc))
    amp = autocast(protocol, task.device)
    watch = Stopwatch(protocol, clock(task.device), task.progress)
    student.train()
    with suppress(Enough):
        for step in count():
            with amp:
                loss = F.cross_entropy(student(views.pixels), views.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            watch(step, protocol.iterations)
    return watch.seconds
