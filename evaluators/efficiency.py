"""Efficiency: what training a student costs, on whatever device is there (HeLlO, arXiv 2408.08201, supplement Table 6).

The loop is that of :mod:`evaluators.classification`, with its views and labels, under any of its protocols:
``--set protocol.evaluator=efficiency``. It runs for as long as it takes to time it, in blocks of iterations between
which the device is waited for. The bare loop beside it has the same student, optimizer and batch size, one batch that
lies on the device, and hard labels: what is left when images and labels cost nothing.

Table 6 gives seconds an iteration, each method at its own batch (100 or 1,024), which no two methods can be compared
by; milliseconds an image can. Nothing is tested, so there is no accuracy; unlike those of other evaluators, the
numbers are others in every run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bench.api import DatasetInfo, EvaluationTask, Evaluator, LabelSource, Progress, Protocol
from bench.api.augmentation import AugmentationSchedule
from evaluators.classification import (
    Classification,
    ClassificationProtocol,
    check_labels,
    make_optimizer,
    new_student,
    train_student,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bench.api import Split


class EfficiencyProtocol(ClassificationProtocol):
    """The recipe of the student, and how long it is timed."""

    untimed: int = Field(5, ge=1)  # iterations before the clock starts: kernels are chosen, memory is taken
    steps: int = Field(10, ge=1)  # iterations of a block
    blocks: int = Field(5, ge=1)

    @property
    def iterations(self) -> int:
        """In all."""
        return self.untimed + self.steps * self.blocks


class Efficiency(Evaluator):
    """Time and memory of training a student."""

    name: ClassVar[str] = "efficiency"
    version: ClassVar[int] = 1
    Config: ClassVar[type[Protocol]] = EfficiencyProtocol
    protocols: ClassVar[str] = "evaluators.protocols"
    metric: ClassVar[str] = "cost"
    exclusive: ClassVar[bool] = True

    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        from bench.kit import peak_memory
        from bench.kit.data.dataset import Resident

        protocol = task.protocol
        assert isinstance(protocol, EfficiencyProtocol)
        if task.images is None:
            train: Split = task.data.train
            usual = Classification().full_data_schedule(protocol, task.dataset, len(train), task.seed)
            schedule = as_long_as_timed(usual, protocol)
        else:
            train = Resident(task.images.pixels, task.images.labels)
            schedule = self.schedule(protocol, task.dataset, len(train), task.seed)
            if task.labels is not None:
                check_labels(task.labels, schedule, protocol, task.images, task.data.order_hash)
        student = new_student(task, protocol)
        peak_memory.reset(task.device)
        seconds = student_seconds(student, train, schedule, protocol, task)
        accelerator, host = peak_memory.accelerator(task.device), peak_memory.host()
        bare = bare_seconds(student, train, schedule, protocol, task)
        images = images_of_blocks(schedule, protocol, task.labels)
        an_image = [1e3 * one / shown for one, shown in zip(seconds, images, strict=True)]
        bare_image = 1e3 * median(bare) / (protocol.steps * schedule.batch_size)
        return {
            "cost": {
                "batch_size": schedule.batch_size,
                "iterations": protocol.steps * protocol.blocks,
                "seconds_per_iteration": median(seconds) / protocol.steps,
                "milliseconds_per_image": median(an_image),
                "fastest": min(an_image),
                "slowest": max(an_image),
                "times_bare": median(an_image) / bare_image,
                "accelerator_bytes": accelerator,
                "host_bytes": host,
            },
            "parameters": sum(p.numel() for p in student.parameters()),
        }

    def schedule(self, protocol: Protocol, dataset: DatasetInfo, images: int, seed: int) -> AugmentationSchedule:
        """The first epochs of the usual one, as many as are timed."""
        assert isinstance(protocol, EfficiencyProtocol)
        return as_long_as_timed(Classification().schedule(protocol, dataset, images, seed), protocol)


def as_long_as_timed(schedule: AugmentationSchedule, protocol: EfficiencyProtocol) -> AugmentationSchedule:
    """As many of a schedule's epochs as hold all iterations, or more of them where it has fewer."""
    return schedule.model_copy(update={"epochs": -(-protocol.iterations // schedule.batches)})


def images_of_blocks(
    schedule: AugmentationSchedule, protocol: EfficiencyProtocol, labels: LabelSource | None
) -> list[int]:
    """How many images the student was shown in each block: the last batch of an epoch may be shorter."""
    shown = []
    for step in range(protocol.untimed, protocol.iterations):
        epoch, batch = divmod(step, schedule.batches)
        replay = None if labels is None else labels.replay(epoch)
        shown.append(len(schedule.rows(batch if replay is None else replay[batch][1])))
    return [sum(shown[first : first + protocol.steps]) for first in range(0, len(shown), protocol.steps)]


class Enough(Exception):
    """Ends a loop whose last block is over."""


class Stopwatch:
    """Takes the time of a loop that tells its progress after each iteration, in blocks.

    ``now`` is asked at the ends of blocks alone: it waits for the device. ``seconds`` are those of the blocks so far.
    """

    def __init__(self, protocol: EfficiencyProtocol, now: Callable[[], float], tell: Progress):
        self.protocol, self.now, self.tell = protocol, now, tell
        self.iterations = 0
        self.ends: list[float] = []

    def __call__(self, done: int, total: int, **metrics: float) -> None:
        """
        Raises:
            Enough: that was the last iteration of the last block.
        """
        self.iterations += 1
        timed = self.iterations - self.protocol.untimed
        if timed >= 0 and timed % self.protocol.steps == 0:
            self.ends.append(self.now())
        self.tell(self.iterations, self.protocol.iterations, **metrics)
        if self.iterations == self.protocol.iterations:
            raise Enough

    @property
    def seconds(self) -> list[float]:
        return [end - begin for begin, end in pairwise(self.ends)]


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds on the clock when the device has done all it was given."""
    import torch

    def now() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    return now


def student_seconds(
    student: nn.Module, train: Split, schedule: AugmentationSchedule, protocol: EfficiencyProtocol, task: EvaluationTask
) -> list[float]:
    """Seconds of each block of the students' own loop."""
    watch = Stopwatch(protocol, clock(task.device), task.progress)
    # In a folder of its own, so that nobody goes on in the middle of it; and a test would come after the last epoch,
    # which is not reached.
    with tempfile.TemporaryDirectory(dir=task.work) as work, suppress(Enough):
        alone = replace(task, work=Path(work), progress=watch)
        train_student(student, train, schedule, None, protocol.model_copy(update={"tests": 1}), alone)
    return watch.seconds


def bare_seconds(
    student: nn.Module, train: Split, schedule: AugmentationSchedule, protocol: EfficiencyProtocol, task: EvaluationTask
) -> list[float]:
    """Seconds of each block of a bare loop: forward, cross entropy, backward and step on one batch that stays."""
    import torch
    from torch.nn import functional as F

    from bench.kit.views import AugmentationStream

    stream = AugmentationStream(schedule.plan, schedule.images)
    views = next(iter(train.views(stream.plan, 0, schedule.batch_size, task.device)))
    optimizer = make_optimizer(student, protocol, protocol.lr)
    amp = torch.autocast(task.device.type, torch.bfloat16, enabled=protocol.amp and task.device.type != "cpu")
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
