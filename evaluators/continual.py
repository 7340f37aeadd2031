"""Continual learning with distilled images: GDumb, class-incremental, in a number of steps.

GDumb (Prabhu, Torr and Dokania, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", ECCV
2020) keeps a memory with as many images of every class seen so far, and whenever it is asked it trains a network from
scratch on that memory alone. Here the memory is the distilled set, as HeLlO's Figure 2 (arXiv 2408.08201) has it: at
each step some classes arrive with their distilled images and stay, a new student learns from the images of all classes
that have arrived, and is tested on the real test images of these classes, with an output for each of them.

``top1`` is the mean over the steps of the accuracy after each, the average incremental accuracy of iCaRL (Rebuffi et
al., CVPR 2017); ``steps`` has the accuracies, ``last`` is that of the last step, which is ordinary classification.

The paper leaves open, and this is how it is settled here:

- the order of the classes: drawn from the protocol's ``order_seed`` and the student's seed, the same for every method;
- the size of the memory: images per class, so it grows from step to step (GDumb's own is of one size, and keeps fewer
  images a class as classes come);
- what soft labels say of classes that have not arrived: nothing, their logits are left out. The label models
  themselves were made with all classes, for every method alike;
- the recipe: that of a student on the whole set, epochs and batches by images per class, so a step takes as many
  epochs as the last.

Labels stored for views don't exist for a step, whose batches are others than those of the whole set.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bench.api import (
    DatasetInfo,
    EvaluationTask,
    Evaluator,
    Images,
    LabelSource,
    MethodInfo,
    Progress,
    Protocol,
)
from bench.api.augmentation import AugmentationSchedule
from bench.api.seeds import seed_for
from bench.api.stored.codec import LabelCodec
from bench.errors import UserError
from evaluators.classification import Classification, ClassificationProtocol, new_student, train_student

if TYPE_CHECKING:
    from evaluators.class_incremental import Arrivals


class ContinualProtocol(ClassificationProtocol):
    """The recipe of the student of every step, and how the classes arrive."""

    steps: int = Field(ge=1)
    order_seed: int = 0
    tests: int = Field(1, ge=1)  # of each step's student


class Continual(Evaluator):
    """Average incremental accuracy of students that see more and more classes."""

    name: ClassVar[str] = "continual"
    version: ClassVar[int] = 1
    Config: ClassVar[type[Protocol]] = ContinualProtocol
    protocols: ClassVar[str] = "evaluators.protocols"
    metric: ClassVar[str] = "mean top-1"
    supported_labels: ClassVar[tuple[str, ...]] = ("online", "teacher", "static", "hard")

    def check(
        self,
        protocol: Protocol,
        dataset: DatasetInfo,
        method: MethodInfo,
        students: Sequence[str],
        codecs: Sequence[LabelCodec],
    ) -> None:
        assert isinstance(protocol, ContinualProtocol)
        super().check(protocol, dataset, method, students, codecs)
        classes_seen(dataset.classes, protocol.steps)

    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        import torch

        from bench.kit.accuracy import TestImages
        from bench.kit.checkpoint import Checkpoint
        from bench.kit.data.dataset import Resident
        from evaluators.class_incremental import Arrivals, class_order

        protocol, info = task.protocol, task.dataset
        assert isinstance(protocol, ContinualProtocol)
        if task.images is not None and task.labels is not None:
            check_any_view(task.labels, task.images, task.data.order_hash, protocol.name)
        order = class_order(info.classes, protocol.order_seed, task.seed)
        seen = classes_seen(info.classes, protocol.steps)
        known = task.data.train if task.images is None else Resident(task.images.pixels, task.images.labels)
        memory, arriving = Arrivals(known, order), Arrivals(task.data.test, order)
        tests = TestImages(arriving.first(info.classes), info.image_size, task.device)
        schedules = [schedule_after(classes, memory.count(classes), protocol, task) for classes in seen]
        batches = [schedule.epochs * schedule.batches for schedule in schedules]
        kept, done = Checkpoint(task.work, "steps"), []
        predicted = torch.full((len(seen), len(arriving.indices)), -1)
        if found := kept.load():
            predicted, done = found[0]["predicted"], found[1]["steps"]
        for step in range(len(done), len(seen)):
            classes = seen[step]
            own = step_task(task, memory, order, classes, part(task.progress, sum(batches[:step]), sum(batches)))
            student = new_student(own, protocol)
            so_far = tests.first(arriving.count(classes))
            curve = train_student(student, memory.first(classes), schedules[step], so_far, protocol, own)
            parameters = sum(p.numel() for p in student.parameters())
            done.append({"classes": classes, "curve": curve, "parameters": parameters})
            predicted[step, arriving.indices[: so_far.count]] = torch.tensor(order)[so_far.predicted()]
            kept.save({"predicted": predicted}, steps=done)
            shutil.rmtree(own.work)
        task.keep_predictions(predicted, task.data.test.labels)
        last = [one["curve"][-1][1] for one in done]
        views = [schedule.epochs * schedule.images * classes for schedule, classes in zip(schedules, seen, strict=True)]
        return {
            "top1": fmean(last),
            "oracle_top1": fmean(max(top1 for _, top1 in one["curve"]) for one in done),
            "steps": list(zip(seen, last, strict=True)),
            "last": last[-1],
            "order": order,
            "test_images": tests.count,
            "epochs": sum(schedule.epochs for schedule in schedules),
            "images": schedules[-1].images,
            "full_label_bytes": 2 * sum(views),  # in fp16, for every view of every step, of the classes seen there
            "parameters": done[-1]["parameters"],
        }

    def schedule(self, protocol: Protocol, dataset: DatasetInfo, images: int, seed: int) -> AugmentationSchedule:
        """Of the last step, whose student sees all images."""
        return Classification().schedule(protocol, dataset, images, step_seed(seed, dataset.classes))

    def samples_seen(self, protocol: Protocol, dataset: DatasetInfo, images: int) -> int:
        assert isinstance(protocol, ContinualProtocol)
        epochs = self.schedule(protocol, dataset, images, seed=0).epochs
        return epochs * sum(images * seen // dataset.classes for seen in classes_seen(dataset.classes, protocol.steps))


def classes_seen(classes: int, steps: int) -> list[int]:
    """How many classes have arrived at each of ``steps`` steps: as many at each, the first ones one more where that
    does not come out even.

    Raises:
        UserError: there are fewer classes than steps.
    """
    if steps > classes:
        raise UserError(f"{classes} classes can't arrive in {steps} steps; take a protocol of at most {classes} steps")
    return [-(-classes * step // steps) for step in range(1, steps + 1)]


def step_seed(seed: int, classes: int) -> int:
    """Of the student that has seen so many classes: another at each step, the same in however many steps."""
    return seed_for("continual-student", seed, classes)


def schedule_after(
    classes: int, images: int, protocol: ContinualProtocol, task: EvaluationTask
) -> AugmentationSchedule:
    """The views of the student that learns from the ``images`` of the first ``classes`` classes."""
    info, seed = task.dataset.model_copy(update={"classes": classes}), step_seed(task.seed, classes)
    usual = Classification()
    if task.images is None:
        return usual.full_data_schedule(protocol, info, images, seed)
    return usual.schedule(protocol, info, images, seed)


def step_task(
    task: EvaluationTask, memory: Arrivals, order: list[int], classes: int, progress: Progress
) -> EvaluationTask:
    """The task of one step: as if its classes were all there are, in a folder of its own."""
    from evaluators.class_incremental import SeenLabels

    work = task.work / f"classes-{classes}"
    work.mkdir(exist_ok=True)
    return replace(
        task,
        dataset=task.dataset.model_copy(update={"classes": classes}),
        labels=None if task.labels is None else SeenLabels(task.labels, memory, order, classes, task.device),
        seed=step_seed(task.seed, classes),
        work=work,
        progress=progress,
    )


def part(progress: Progress, before: int, whole: int) -> Progress:
    """The progress of a part of work, ``before`` of whose ``whole`` steps were done before it."""

    def tell(done: int, total: int, **metrics: float) -> None:
        progress(before + done, whole, **metrics)

    return tell


def check_any_view(labels: LabelSource, images: Images, order_hash: str, protocol: str) -> None:
    """Refuse labels that can't be asked for the views of some of the images.

    Raises:
        UserError: made for other images or another class order, stored for the views of all classes together, or
            without the logits of unlikely classes, which may be all that have been seen.
    """
    labels.check(images, order_hash)
    if labels.schedule() is not None:
        raise UserError(
            f"the stored labels belong to the views of all classes together, and {protocol} shows some of the classes "
            "at each step; choose --labels online,hard,static"
        )
    if not labels.complete:
        raise UserError(
            f"{protocol} asks for the classes seen so far, and labels of the likeliest classes alone may know none of "
            "them; use topkK instead of renormK"
        )
