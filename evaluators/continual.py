"""Continual learning with distilled images: GDumb, class-incremental, in a number of steps.

GDumb (Prabhu, Torr and Dokania, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", ECCV
2020) keeps a memory with equally many images of every class seen so far, and trains a network from scratch on that
memory alone. Here the memory is the distilled set, as in HeLlO's Figure 2 (arXiv 2408.08201): at each step some classes
arrive with their distilled images and stay, a new student learns from the images of all classes seen so far, and is
tested on the real test images of these classes, with one output per class.

``top1`` is the average incremental accuracy of iCaRL (Rebuffi et al., CVPR 2017): the mean over the steps of the
accuracy after each. ``steps`` holds the accuracies; ``last`` is that of the last step, which is ordinary
classification.

The paper leaves open, and it is settled here:

- the order of the classes: drawn from the protocol's ``order_seed`` and the student's seed, the same for every method;
- the size of the memory: images per class, so it grows with each step (GDumb's own has a fixed size and keeps fewer
  images per class as classes arrive);
- soft labels of classes that have not arrived: their logits are left out. The label models themselves were made with
  all classes, for every method alike;
- the recipe: that of a student on the whole set, epochs and batches by images per class, so every step takes equally
  many epochs.

Labels stored per view cannot serve a step, whose batches differ from those of the whole set.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bench.api import DatasetInfo, EvaluationRequest, EvaluationTask, Images, LabelSource, Protocol
from bench.api.augmentation import AugmentationSchedule
from bench.api.seeds import seed_for
from bench.errors import UserError
from evaluators.classification import Classification, new_classifier, train_classifier
from evaluators.student_protocol import ClassificationProtocol

if TYPE_CHECKING:
    from evaluators.class_incremental import ClassIncrementalSplit


class ContinualProtocol(ClassificationProtocol):
    """The recipe of each step's student, the number of steps, and the order of the classes."""

    steps: int = Field(ge=1)
    order_seed: int = 0
    tests: int = Field(1, ge=1)  # of each step's student


class Continual(Classification):
    """Average incremental accuracy of students that learn a growing number of classes."""

    name: ClassVar[str] = "continual"
    version: ClassVar[int] = 1
    Config: ClassVar[type[Protocol]] = ContinualProtocol
    metric: ClassVar[str] = "mean top-1"
    supported_labels: ClassVar[tuple[str, ...]] = ("online", "teacher", "static", "hard")

    def check(self, request: EvaluationRequest) -> None:
        assert isinstance(request.protocol, ContinualProtocol)
        super().check(request)
        classes_seen(request.dataset.classes, request.protocol.steps)

    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        import torch

        from bench.kit.accuracy import TestImages
        from bench.kit.checkpoint import Checkpoint
        from bench.kit.data.dataset import Resident
        from evaluators.class_incremental import ClassIncrementalSplit, class_order

        protocol, info = task.protocol, task.dataset
        assert isinstance(protocol, ContinualProtocol)
        if task.images is not None and task.labels is not None:
            check_any_view(task.labels, task.images, task.data.order_hash, protocol.name)
        order = class_order(info.classes, protocol.order_seed, task.seed)
        seen = classes_seen(info.classes, protocol.steps)
        known = task.data.train if task.images is None else Resident(task.images.pixels, task.images.labels)
        memory, arriving = ClassIncrementalSplit(known, order), ClassIncrementalSplit(task.data.test, order)
        whole = protocol.test_view == "whole"
        tests = TestImages(arriving.first(info.classes), info.image_size, task.device, whole=whole)
        schedules = [step_schedule(classes, memory.count(classes), protocol, task) for classes in seen]
        epochs = [schedule.epochs + protocol.hard_epochs(task.ipc) for schedule in schedules]
        batches = [many * schedule.batches for many, schedule in zip(epochs, schedules, strict=True)]
        kept, done = Checkpoint(task.work, "steps"), []
        predicted = torch.full((len(seen), len(arriving.indices)), -1)
        if found := kept.load():
            predicted, done = found[0]["predicted"], found[1]["steps"]
        for step in range(len(done), len(seen)):
            classes = seen[step]
            own = step_task(task, memory, order, classes, sum(batches[:step]), sum(batches))
            student = new_classifier(own, protocol)
            seen_tests = tests.first(arriving.count(classes))
            curve = train_classifier(student, memory.first(classes), schedules[step], seen_tests, protocol, own)
            parameters = sum(p.numel() for p in student.parameters())
            done.append({"classes": classes, "curve": curve, "parameters": parameters})
            predicted[step, arriving.indices[: seen_tests.count]] = torch.tensor(order)[seen_tests.predicted()]
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
            "epochs": sum(one["curve"][-1][0] for one in done),
            "images": schedules[-1].images,
            "full_label_bytes": 2 * sum(views),  # fp16 logits of the seen classes for every view of every step
            "parameters": done[-1]["parameters"],
        }

    def schedule(self, protocol: Protocol, dataset: DatasetInfo, *, ipc: int, seed: int) -> AugmentationSchedule:
        """Return the views of the last step, whose student sees all images."""
        return super().schedule(protocol, dataset, ipc=ipc, seed=step_seed(seed, dataset.classes))

    def samples_seen(self, protocol: Protocol, dataset: DatasetInfo, *, ipc: int) -> int:
        assert isinstance(protocol, ContinualProtocol)
        epochs = super().samples_seen(protocol, dataset, ipc=ipc) // (ipc * dataset.classes)
        return epochs * ipc * sum(classes_seen(dataset.classes, protocol.steps))


def classes_seen(classes: int, steps: int) -> list[int]:
    """Return the number of classes that have arrived at each of ``steps`` steps; refuse more steps than classes.

    Equally many arrive per step, one more at the first steps where the division leaves a remainder.
    """
    if steps > classes:
        raise UserError(f"{classes} classes can't arrive in {steps} steps; take a protocol of at most {classes} steps")
    return [-(-classes * step // steps) for step in range(1, steps + 1)]


def step_seed(seed: int, classes: int) -> int:
    """Return the seed of the student that learns ``classes`` classes: another one per step, whatever their number."""
    return seed_for("continual-student", seed, classes)


def step_schedule(classes: int, images: int, protocol: ContinualProtocol, task: EvaluationTask) -> AugmentationSchedule:
    """Return the views of the student that learns from the ``images`` images of the first ``classes`` classes."""
    info, seed = task.dataset.model_copy(update={"classes": classes}), step_seed(task.seed, classes)
    if task.images is None:
        return protocol.full_data_augmentation(info, images, seed)
    return protocol.augmentation(info, images // classes, seed)


def step_task(
    task: EvaluationTask, memory: ClassIncrementalSplit, order: list[int], classes: int, before: int, whole: int
) -> EvaluationTask:
    """Return the task of one step: its classes are all classes, and its work folder is its own.

    Of the progress, ``before`` of ``whole`` batches are done already.
    """
    from evaluators.class_incremental import SeenLabels

    work = task.work / f"classes-{classes}"
    work.mkdir(exist_ok=True)
    return replace(
        task,
        dataset=task.dataset.model_copy(update={"classes": classes}),
        labels=None if task.labels is None else SeenLabels(task.labels, memory, order, classes, task.device),
        seed=step_seed(task.seed, classes),
        work=work,
        progress=lambda done, total, **metrics: task.progress(before + done, whole, **metrics),
    )


def check_any_view(labels: LabelSource, images: Images, order_hash: str, protocol: str) -> None:
    """Refuse labels that can't label views of a part of the images.

    Raises:
        UserError: they were made for other images or another class order, are stored for the views of all classes, or
            leave out the logits of unlikely classes, which may be all that have arrived.
    """
    labels.check(images, order_hash)
    if labels.schedule() is not None:
        raise UserError(
            f"the stored labels belong to the views of all classes, and {protocol} shows some of the classes at each "
            "step; choose --labels online,hard,static"
        )
    if not labels.complete:
        raise UserError(
            f"{protocol} needs the logits of the classes seen so far, and renormK may keep none of them; use topkK "
            "instead"
        )
