"""What each of the four stages does: teacher → distill → label → evaluate.

Each function reads the artifacts of its parents, writes its own into the draft folder, and returns the numbers
for the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch

from bench import registry
from bench.contract import (
    DatasetInfo,
    Distiller,
    EvaluationTask,
    Images,
    LabelSource,
    Progress,
    PublicBase,
    Task,
    TeacherSpec,
)
from bench.harness.identity import Cell
from bench.harness.plan import Grid
from bench.harness.protocols import read_settings
from bench.harness.record import Record
from bench.kit import data, images, labels
from bench.kit.accuracy import TestImages
from bench.kit.data.dataset import Dataset
from bench.kit.teachers import gate, train
from bench.kit.teachers.trajectory import Trajectory


@dataclass(frozen=True)
class StageTask:
    """A cell with everything it needs; ``parents`` maps a role to the parent's record and folder."""

    grid: Grid
    cell: Cell
    parents: dict[str, tuple[Record, Path]]
    draft: Path
    work: Path
    data_root: Path | None
    device: torch.device
    progress: Progress

    @property
    def dataset(self) -> DatasetInfo:
        return self.grid.dataset


@dataclass(frozen=True)
class Made:
    """The outcome of a stage beside its files."""

    result: dict[str, Any] = field(default_factory=dict)
    public: tuple[PublicBase, ...] = ()


@lru_cache(maxsize=2)
def load_data(info: DatasetInfo, data_root: Path | None) -> Dataset:
    """A data set, read once in the life of a process."""
    return data.load(info, data_root)


def make_teacher(task: StageTask) -> Made:
    """Train a trajectory, or take over a foreign checkpoint and measure it."""
    dataset = load_data(task.dataset, task.data_root)
    names = set(TeacherSpec.model_fields)
    spec = TeacherSpec(**{key: value for key, value in task.cell.fields.items() if key in names})
    if task.grid.request.teacher is not None:
        spec = spec.model_copy(update={"file": str(task.grid.request.teacher)})
    result = train.train_trajectory(spec, dataset, task.draft, task.work, task.device, task.progress)
    return Made(result)


def _method(task: StageTask) -> Distiller:
    """The method of a distill or label cell, configured as it was planned."""
    kind = registry.method(task.cell.by)
    return kind(read_settings(kind.Config, task.cell.call["settings"], f"the settings of {task.cell.by}"))


def _method_task(task: StageTask) -> Task:
    dataset = load_data(task.dataset, task.data_root)
    trajectory = None
    if "teacher" in task.parents:
        trajectory = Trajectory.load(task.parents["teacher"][1], task.device)
        gate.check(trajectory, dataset, task.device)
    return Task(
        dataset=task.dataset,
        ipc=task.cell.call["ipc"],
        seed=task.cell.call["seed"],
        data=dataset,
        teacher=cast(Trajectory, trajectory),  # None only where the method asks for none
        device=task.device,
        work=task.work,
        progress=task.progress,
    )


def make_images(task: StageTask) -> Made:
    """Distill: real images in, synthetic images out."""
    made = _method(task).distill(_method_task(task))
    images.save(made, task.draft, "jpeg")  # as the methods publish them (RDED, SRe2L: PIL's JPEG at quality 75)
    return Made({"images": len(made), "side": made.pixels.shape[-1]})


def make_labels(task: StageTask) -> Made:
    """Label: stored tensors, or the weights of a model that labels online."""
    made_for: Images | None = None
    if "images" in task.parents:
        made_for = images.load(task.parents["images"][1])
    method_task = _method_task(task)
    source = _method(task).label(method_task, made_for)
    source.save(task.draft)
    result: dict[str, Any] = {"kind": source.kind}
    if source.view_plan() is None:  # it labels any view, so it can be asked how good it is itself
        tests = TestImages(method_task.data.test, task.dataset.image_size, task.device)
        result["top1"] = tests.top1_of_labels(source)
    return Made(result, source.public())


def evaluate(task: StageTask) -> Made:
    """Train one student on what a method made and test it on the whole real test set."""
    evaluator = registry.evaluator(task.cell.by)
    protocol = read_settings(evaluator.Protocol, task.cell.fields["protocol"], task.cell.id)
    label_source: LabelSource | None = None
    public: tuple[PublicBase, ...] = ()
    if "labels" in task.parents:
        record, folder = task.parents["labels"]
        own = registry.method(record.cell.by).label_kinds
        label_source = labels.load(folder, task.device, own)
        public = label_source.public()
    result = evaluator().evaluate(
        EvaluationTask(
            dataset=task.dataset,
            data=load_data(task.dataset, task.data_root),
            images=images.load(task.parents["images"][1]) if "images" in task.parents else None,
            labels=label_source,
            student=task.cell.fields["student"],
            protocol=protocol,
            seed=task.cell.fields["seed"],
            device=task.device,
            work=task.work,
            progress=task.progress,
        )
    )
    result["image_bytes"] = task.parents["images"][0].bytes if "images" in task.parents else None
    result["label_bytes"] = task.parents["labels"][0].bytes if "labels" in task.parents else 0
    return Made(result, public)


STAGES: dict[str, Callable[[StageTask], Made]] = {
    "teacher": make_teacher,
    "distill": make_images,
    "label": make_labels,
    "evaluate": evaluate,
}
