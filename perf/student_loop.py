"""The student loop against a bare one: which share of a bare loop's speed is left once views are made.

The loop is `train_classifier` itself, under the digits protocol (16 px, batches of 10, 25 and 50 for IPC 1, 10 and 50,
a ConvNet-3 of width 32), with RDED's labels (the data set's teacher, online) and HeLlO's (the projector on
icon-clip). The bare loop has the same student, optimizer, loss and label model, and one batch of views that was made
beforehand. Both take turns in blocks of some tenths of a second, in one process: a block of the bare loop runs
inside the callback by which `train_classifier` tells its progress, and the clock of the loop stands still meanwhile.

    python perf/student_loop.py [--device cuda] [--threads 1] [--blocks 25] [--steps 60]

A ratio is bare seconds over the loop's, the median over the blocks; 1 means that views cost nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from clock import now, quartiles_of_shares  # beside this file
from torch.nn import functional as F

from bench.api import Dataset, EvaluationTask, Images, LabelSource, catalogue
from bench.kit import data
from bench.kit.accuracy import TestImages
from bench.kit.clip.loading import load_clip
from bench.kit.data.dataset import Resident
from bench.kit.labels.online import OnlineTeacher
from bench.kit.models import build
from bench.kit.teachers.trajectory import Network
from bench.kit.views import AugmentationStream, AugmentedBatch
from bench.planning.protocols import choose
from evaluators.classification import ClassificationProtocol, train_classifier
from evaluators.student_training import make_optimizer
from methods.hello import HeLlO, projector

IPC = (1, 10, 50)
WARM_UP = 2  # blocks


class Enough(Exception):
    """Ends `train_classifier` when all blocks are measured."""


def rded_labels(digits: Dataset, device: torch.device) -> LabelSource:
    """The data set's teacher; untrained, which costs the same."""
    info = digits.info
    network = Network(
        arch=info.teacher.arch, classes=info.classes, image_size=info.image_size, mean=info.mean, std=info.std
    )
    model = network.build().eval().requires_grad_(False).to(device)
    return OnlineTeacher(network, model.to(memory_format=torch.channels_last))


def hello_labels(digits: Dataset, device: torch.device) -> LabelSource:
    """The projector, its adapters as they start and merged, as it serves."""
    name, config = digits.info.clip, HeLlO.for_dataset(digits.info).config
    clip, tokenizer, base = load_clip(name, device)
    start = projector.build(clip, tokenizer, digits.names, config)
    return projector.ProjectorLabels(name, base, digits.names, config, projector.stored_tensors(start, config), device)


LABELS: dict[str, Callable[[Dataset, torch.device], LabelSource]] = {"rded": rded_labels, "hello": hello_labels}


def bare_loop(task: EvaluationTask, protocol: ClassificationProtocol, views: AugmentedBatch) -> Callable[[], None]:
    """One step of it: student and label model on the same batch again and again."""
    info = task.dataset
    student = build(task.student, info.classes, info.image_size, info.mean, info.std).to(task.device)
    student = student.to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(student, protocol, protocol.lr)
    labels, heat = task.labels, protocol.temperature
    assert labels is not None

    def step() -> None:
        logits, soft = student(views.pixels), labels.soft_labels(views, 0)
        loss = F.kl_div(
            F.log_softmax(logits / heat, 1), F.log_softmax(soft / heat, 1), reduction="batchmean", log_target=True
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def measure(
    digits: Dataset, labels: LabelSource, ipc: int, device: torch.device, blocks: int, steps: int
) -> tuple[list[float], list[float]]:
    """Seconds a step in each block: of the bare loop, and of `train_classifier`."""
    info = digits.info
    protocol = choose("common", info, "rded")
    assert isinstance(protocol, ClassificationProtocol)
    protocol = protocol.model_copy(update={"tests": 1})  # testing is not the loop
    chosen = torch.cat([torch.arange(len(digits.train))[digits.train.labels == c][:ipc] for c in range(info.classes)])
    assert isinstance(digits.train, Resident)
    images = Images(digits.train.pixels[chosen], digits.train.labels[chosen])
    train = Resident(images.pixels, images.labels)
    schedule = protocol.augmentation(info, ipc, 0).model_copy(update={"epochs": 10**6})
    bare_times: list[float] = []
    loop_times: list[float] = []
    count, started = 0, 0.0

    def progress(done: int, total: int, **_: float) -> None:
        nonlocal count, started
        count += 1
        if count % steps:
            return
        stopped = now(device)
        for _step in range(steps):
            bare()
        started, before = now(device), started
        if before:
            loop_times.append((stopped - before) / steps)
            bare_times.append((started - stopped) / steps)
        if len(loop_times) == WARM_UP + blocks:
            raise Enough

    with tempfile.TemporaryDirectory() as work:
        task = EvaluationTask(
            dataset=info, data=digits, images=images, labels=labels, student=info.student, protocol=protocol, ipc=ipc,
            seed=0, device=device, work=Path(work), progress=progress,
        )  # fmt: skip
        stream = AugmentationStream(schedule.plan, len(train))
        batch = next(iter(train.views(stream.config, 0, schedule.batch_size, device)))
        bare = bare_loop(task, protocol, batch)
        student = build(info.student, info.classes, info.image_size, info.mean, info.std).to(device)
        student = student.to(memory_format=torch.channels_last)
        tests = TestImages(digits.test, info.image_size, device, limit=1)
        with contextlib.suppress(Enough):
            train_classifier(student, train, schedule, tests, protocol, task)
    return bare_times[WARM_UP:], loop_times[WARM_UP:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=25)
    parser.add_argument("--steps", type=int, default=60, help="steps a block")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    digits = data.load(catalogue.dataset("digits"))
    ratios = {}
    for method, make in LABELS.items():
        labels = make(digits, device)
        for ipc in IPC:
            bare, loop = measure(digits, labels, ipc, device, options.blocks, options.steps)
            low, middle, high = quartiles_of_shares(bare, loop)
            ratios[f"student_loop_{method}_ipc{ipc}"] = middle
            print(
                f"{method}, IPC {ipc}: bare {1e3 * statistics.median(bare):.2f} ms a step, loop "
                f"{1e3 * statistics.median(loop):.2f} ms; share of {len(bare)} blocks {low:.3f} to {high:.3f}"
            )
    for name, ratio in ratios.items():
        print(f"ratio {name} {ratio:.3f}")


if __name__ == "__main__":
    main()
