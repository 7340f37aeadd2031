"""The student loop against a bare one: which share of a bare loop's speed is left with views, labels and checkpoints.

The loop is `train_classifier` itself. The bare loop has the same student, optimizer, loss and label model, and one
batch of views that was made beforehand. Both take turns in blocks, in one process: a block of the bare loop runs
inside the callback by which `train_classifier` tells its progress. Labels are RDED's (the data set's teacher, online),
HeLlO's (the projector on icon-clip) and a teacher's stored under codecs; random images at 32 and 224 px have hard ones.

    python perf/student_loop.py [--device cuda]

A ratio is bare seconds over the loop's, the median over the blocks; 1 means that views and labels cost nothing.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from clock import Ratios, main, median_ratio, now  # beside this file

from bench.api import Dataset, DatasetInfo, EvaluationTask, Images, LabelSource, TeacherSpec, catalogue
from bench.api.augmentation import AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.kit import data
from bench.kit.accuracy import TestImages
from bench.kit.clip.loading import load_clip
from bench.kit.data.dataset import Resident
from bench.kit.labels.online import OnlineTeacher
from bench.kit.labels.storing import store
from bench.kit.teachers.trajectory import Network
from bench.kit.views import AugmentationStream
from bench.planning.protocols import choose
from evaluators.classification import new_classifier, train_classifier
from evaluators.label_reading import LabelReading
from evaluators.student_protocol import ClassificationProtocol
from evaluators.student_training import make_optimizer
from methods.hello import HeLlO, projector


class Enough(Exception):
    """Ends `train_classifier` when all blocks are measured."""


def teacher_labels(real: Dataset, device: torch.device) -> LabelSource:
    """The data set's teacher; untrained, which costs the same."""
    info = real.info
    network = Network(
        arch=info.teacher.arch, classes=info.classes, image_size=info.image_size, mean=info.mean, std=info.std
    )
    model = network.build().eval().requires_grad_(False).to(device)
    return OnlineTeacher(network, model.to(memory_format=torch.channels_last))


def hello_labels(real: Dataset, device: torch.device) -> LabelSource:
    """The projector, its adapters as they start and merged, as it serves."""
    name, config = real.info.clip, HeLlO.for_dataset(real.info).config
    clip, tokenizer, base = load_clip(name, device)
    start = projector.build(clip, tokenizer, real.names, config)
    return projector.ProjectorLabels(name, base, config, projector.stored_tensors(start, config), device, real.names)


def random_images(size: int, student: str, count: int) -> Dataset:
    """Ten classes of random images."""
    split = Resident(torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8), torch.arange(count) % 10)
    info = DatasetInfo(
        name="noise", title="Noise", classes=10, image_size=size, smallest_class=count // 10, train_images=count,
        test_images=count, mean=(0.5,) * 3, std=(0.25,) * 3, student=student, clip="icon-clip",
        teacher=TeacherSpec(arch=student, image_size=size),
    )  # fmt: skip
    return Dataset(info, tuple("abcdefghij"), tuple("abcdefghij"), split, split)


@contextlib.contextmanager
def task_on(
    real: Dataset, ipc: int, device: torch.device, batch_size: int | None = None
) -> Iterator[tuple[EvaluationTask, Resident, AugmentationSchedule]]:
    """A student's task on the first images of each class, without labels."""
    info, train = real.info, real.train
    protocol = choose("common", info, "rded")
    assert isinstance(protocol, ClassificationProtocol) and isinstance(train, Resident)
    protocol = protocol.model_copy(update={"tests": 1})  # testing is not the loop
    chosen = torch.cat([torch.arange(len(train))[train.labels == label][:ipc] for label in range(info.classes)])
    images = Images(train.pixels[chosen], train.labels[chosen])
    schedule = protocol.augmentation(info, ipc, 0).model_copy(update={"epochs": 10**6})
    if batch_size is not None:
        schedule = schedule.model_copy(update={"batch_size": batch_size})
    with tempfile.TemporaryDirectory() as work:
        task = EvaluationTask(
            dataset=info, data=real, images=images, labels=None, student=info.student, protocol=protocol, ipc=ipc,
            seed=0, device=device, work=Path(work), progress=lambda *_, **__: None,
        )  # fmt: skip
        yield task, Resident(images.pixels, images.labels), schedule


def share(task: EvaluationTask, train: Resident, schedule: AugmentationSchedule, blocks: int, steps: int) -> float:
    """Bare over the loop's seconds."""
    device, protocol, labels = task.device, task.protocol, task.labels
    assert isinstance(protocol, ClassificationProtocol)
    stream = AugmentationStream(schedule.plan, len(train))
    replay = None if labels is None else labels.replayed_batches(0)
    views = next(iter(train.views(stream.config, 0, schedule.batch_size, device, replay)))
    student = new_classifier(task, protocol).train()
    assert isinstance(protocol.lr, float)
    optimizer, loss = make_optimizer(student, protocol, protocol.lr), LabelReading(protocol, schedule.epochs)

    def bare() -> None:
        soft = None if labels is None else labels.soft_labels(views, 0)
        loss(student(views.pixels), soft, views, 0).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

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
            loop_times.append(stopped - before)
            bare_times.append(started - stopped)
        if len(loop_times) == blocks + 1:
            raise Enough

    object.__setattr__(task, "progress", progress)
    tests = TestImages(task.data.test, task.dataset.image_size, device, limit=1)
    with contextlib.suppress(Enough):
        train_classifier(new_classifier(task, protocol), train, schedule, tests, protocol, task)
    return median_ratio(bare_times[1:], loop_times[1:])


def measure(device: torch.device, tiny: bool) -> Ratios:
    """Yield the shares."""
    blocks, steps = (1, 1) if tiny else (25, 60)
    digits = data.load(catalogue.dataset("digits"))
    makers: dict[str, Callable[[Dataset, torch.device], LabelSource]] = {"rded": teacher_labels, "hello": hello_labels}
    for method, make in makers.items():
        labels = make(digits, device)
        for ipc in (1,) if tiny else (1, 10, 50):
            with task_on(digits, ipc, device) as (task, train, schedule):
                object.__setattr__(task, "labels", labels)
                yield f"student_{method}_ipc{ipc}", share(task, train, schedule, blocks, steps)
    for codec in ("fp16",) if tiny else ("fp16", "topk5+int8", "prune10+fp16"):
        with task_on(digits, 10, device) as (task, train, schedule), tempfile.TemporaryDirectory() as work:
            schedule = schedule.model_copy(update={"epochs": 2 if tiny else 300})
            source = teacher_labels(digits, device)
            how = (Path(work), device, lambda *_, **__: None)
            stored = store(source, task.images, schedule, LabelCodec.parse(codec), "0" * 64, *how)
            object.__setattr__(task, "labels", stored)
            yield f"student_stored_{codec}", share(task, train, schedule, min(blocks, 10), min(steps, 20))
    noise = ((32, "convnet3-w32", 50, 1, 1),) if tiny else ((32, "convnet3", 100, 20, 3), (224, "resnet18", 8, 8, 2))
    for size, student, batch, rounds, each in noise:
        with task_on(random_images(size, student, 10 * 10), 10, device, batch) as (task, train, schedule):
            yield f"student_{size}px_batch{batch}", share(task, train, schedule, rounds, each)


if __name__ == "__main__":
    main(__doc__, measure)
