"""The five stages: teacher → prepare → distill → label → evaluate.

Each function reads the artifacts of its parents, writes its own into the draft folder, and returns the numbers
for the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bench.api import (
    Dataset,
    DatasetInfo,
    Distiller,
    EvaluationTask,
    FrozenBackbone,
    GridPoint,
    Images,
    LabelSource,
    Progress,
    TeacherSpec,
    registry,
)
from bench.api.augmentation import AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.kit import images, labels, running
from bench.kit.accuracy import TestImages
from bench.kit.labels.fidelity import compare
from bench.kit.labels.online import OnlineTeacher
from bench.kit.labels.quantise import store_packed
from bench.kit.labels.static import static_labels
from bench.kit.labels.storing import store
from bench.kit.running import RunningTask
from bench.kit.running.blocks import Claim, unclaimed
from bench.kit.teachers import accuracy_check, train
from bench.kit.teachers.trajectory import Trajectory
from bench.planning.cells import TEACHER, method_of, point_of
from bench.planning.protocols import read_settings
from bench.store import predictions
from bench.store.cell import Cell
from bench.store.record import Record

_COMPARED = 2000  # training images
PREPARED = "prepared.safetensors"


@dataclass(frozen=True)
class StageTask:
    """A cell with everything it needs; ``parents`` maps a role to the parent's record and folder."""

    dataset: DatasetInfo
    cell: Cell
    parents: dict[str, tuple[Record, Path]]
    draft: Path
    work: Path
    data: Dataset
    device: torch.device
    progress: Progress
    claim: Claim = field(default=unclaimed, kw_only=True)  # this and the next as in RunningTask
    helps: float = field(default=0.0, kw_only=True)
    along: Mapping[Path, LabelCodec] = field(default_factory=dict, kw_only=True)  # as in store

    @property
    def point(self) -> GridPoint:
        return point_of(self.cell, self.dataset)

    @property
    def images(self) -> Images | None:
        return images.load(self.parents["images"][1]) if "images" in self.parents else None

    @property
    def labels(self) -> LabelSource | None:
        """The labels among the parents of the cell."""
        if "labels" not in self.parents:
            return None
        record, folder = self.parents["labels"]
        own = registry.method(record.cell.by).label_kinds if record.cell.by in registry.method_names() else {}
        return labels.load(folder, self.device, own)

    @property
    def method(self) -> Distiller:
        return method_of(self.cell)

    @property
    def running(self) -> RunningTask:
        """The task that the method is given."""
        roles = sorted((role for role in self.parents if role.startswith("teacher")), key=lambda one: (len(one), one))
        teachers = tuple(Trajectory.load(self.parents[role][1], self.device) for role in roles)
        for teacher in teachers:
            accuracy_check.check(teacher, self.data, self.device)
        return RunningTask(
            **vars(self.point),
            data=self.data,
            teachers=teachers,
            device=self.device,
            work=self.work,
            on_progress=self.progress,
            claim=self.claim,
            helps=self.helps,
            prepared=load_file(self.parents["prepared"][1] / PREPARED) if "prepared" in self.parents else {},
            images=self.images,
            labels=self.labels,
        )


@dataclass(frozen=True)
class Made:
    """The outcome of a stage, without its files."""

    result: dict[str, Any] = field(default_factory=dict)
    public: tuple[FrozenBackbone, ...] = ()
    images: Images | None = None


def make_teacher(task: StageTask) -> Made:
    """Train a trajectory, or take over a foreign checkpoint and measure it."""
    spec = read_settings(TeacherSpec, task.cell.call["settings"], task.cell.id)
    return Made(train.train_trajectory(spec, task.data, task.draft, task.work, task.device, task.progress))


def prepare(task: StageTask) -> Made:
    """Make what a method computes once for all its images."""
    save_file(running.prepare(task.method, task.running), task.draft / PREPARED)
    return Made()


def distill(task: StageTask) -> Images:
    """Distill: real images in, synthetic images out."""
    method, given = task.method, task.running
    if (source := method.images_from(given)) is not None:
        (start := task.work / "start").mkdir(exist_ok=True)
        given = replace(given, images=running.distill(source, replace(given, work=start)))
    return running.distill(method, given)


def make_images(task: StageTask) -> Made:
    """Distill, and keep the images as files."""
    made = distill(task)
    images.save(made, task.draft, task.method.encoding(task.point))
    return Made({"images": len(made), "side": made.pixels.shape[-1]}, images=made)


def label_model(task: StageTask) -> LabelSource:
    """Make the label model of a method, or take its teacher."""
    if task.cell.by != TEACHER:
        return running.label_model(task.method, task.running)
    teacher = task.running.teacher
    assert isinstance(teacher, Trajectory)
    return OnlineTeacher.of(teacher, task.cell.call["precision"])


def make_labels(task: StageTask) -> Made:
    """Label: a label model that answers any view, or the answers of one, stored."""
    if task.cell.by in ("stored", "static"):
        return _store_labels(task)
    exact = task.labels
    if exact is None:
        (source := label_model(task)).save(task.draft)
        if task.cell.by != TEACHER:  # a plug-in's own: what cannot be read back is no label model
            labels.load(task.draft, task.device, registry.method(task.cell.by).label_kinds)
    else:  # a packed cell stores it again, in a precision
        record, folder = task.parents["labels"]
        store_packed(folder, task.draft, task.cell.call["precision"])
        source = labels.load(task.draft, task.device, registry.method(record.cell.by).label_kinds)
    result: dict[str, Any] = {"kind": source.kind}
    size, width = task.dataset.image_size, task.dataset.logits
    if source.schedule() is None:  # it labels any view, so its own accuracy can be measured
        measured = source.measure(task.data.test, size, task.device)
        result |= measured or {"top1": TestImages(task.data.test, size, task.device).top1_of_labels(source, width)}
    if exact is not None:
        train = TestImages(task.data.train, size, task.device, limit=_COMPARED)
        found = compare(train.logits_of(exact, width), train.logits_of(source, width))
        result["fidelity"] = {name: float(values.mean()) for name, values in found.items()}
    return Made(result, source.public())


def _store_labels(task: StageTask) -> Made:
    """Store a label model's labels of certain images: for every view of a schedule, or one per image."""
    made_for, model, codec = task.images, task.labels, LabelCodec.parse(task.cell.call["codec"])
    assert made_for is not None and model is not None
    order, how = task.data.order_hash, (task.work, task.device, task.progress)
    if task.cell.by == "static":
        static_labels(model, made_for, codec, order, task.dataset.image_size, *how).save(task.draft)
        return Made({"kind": "static"})
    schedule = read_settings(AugmentationSchedule, task.cell.call["schedule"], task.cell.id)
    stored = store(model, made_for, schedule, codec, order, *how, along=task.along)
    stored.save(task.draft)
    return Made({"kind": "stored", "schedule": schedule.model_dump(mode="json"), "fidelity": stored.fidelity})


def evaluate(task: StageTask) -> Made:
    """Train one student on what a method made and test it on the whole real test set."""
    evaluator, source, student = registry.evaluator(task.cell.by), task.labels, task.cell.fields["student"]
    protocol = read_settings(evaluator.Config, task.cell.fields["protocol"], task.cell.id)
    result = evaluator().evaluate(
        EvaluationTask(
            dataset=task.dataset,
            data=task.data,
            images=task.images,
            labels=source,
            student=student,
            protocol=protocol.for_student(task.dataset.name, student),
            ipc=task.cell.row["ipc"],
            seed=task.cell.fields["seed"],
            device=task.device,
            work=task.work,
            progress=task.progress,
            keep_predictions=lambda predicted, truth: predictions.save(
                predicted.numpy(), truth.numpy(), task.draft / predictions.FILE
            ),
        )
    )
    result |= _bytes(task)
    result["label_parameters"] = source.parameters() if source is not None else None
    return Made(result, source.public() if source is not None else ())


def _bytes(task: StageTask) -> dict[str, int | None]:
    """Count what the student needs on disk; dense labels, kept with the images, count where there are no others."""
    if "images" not in task.parents:
        return {"image_bytes": None, "label_bytes": 0}
    made = task.parents["images"][0]
    dense = sum(facts.bytes for path, facts in made.files.items() if images.is_label(path))
    label_bytes = task.parents["labels"][0].bytes if "labels" in task.parents else dense
    return {"image_bytes": made.bytes - dense, "label_bytes": label_bytes}


STAGES: dict[str, Callable[[StageTask], Made]] = {
    "teacher": make_teacher,
    "prepare": prepare,
    "distill": make_images,
    "label": make_labels,
    "evaluate": evaluate,
}
