"""The cells of a method on a data set, computed in this process and kept in a temporary folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bench.api import AugmentationConfig, Dataset, Distiller, GridPoint, Images, LabelSource, TeacherSpec
from bench.conformance.runner import killed_after
from bench.execution import stages
from bench.kit import checkpoint, running
from bench.kit.data.dataset import Resident
from bench.kit.views import AugmentationStream
from bench.planning.cells import Cells
from bench.store.artifacts import Store
from bench.store.cell import Cell
from bench.store.record import Record, RunFacts

LATE = "killed-late"  # the folder of what is gone on with
_NOWHERE = RunFacts(started="", seconds=0, peak_memory=0, environment={})


@dataclass(frozen=True)
class _Task(stages.StageTask):
    """A task whose methods need not be installed."""

    methods: Mapping[str, Distiller]

    @property
    def method(self) -> Distiller:
        return self.methods[self.cell.by]


class Workbench:
    """Share what the tests of a method need; a cell is computed when the first of them needs it.

    ``steps`` are the (done, total) pairs of all progress so far, ``seconds`` the processor's for the images.

    Raises:
        UserError: nobody makes the images.
    """

    def __init__(self, method: Distiller, data: Dataset, ipc: int, folder: Path, seed: int = 0):
        self.method, self.data, self.folder, self.point = method, data, folder, GridPoint(data.info, ipc, seed)
        self.device = torch.device("cpu")
        self.steps: list[tuple[int, int]] = []
        self.seconds = 0.0
        self.fault: Exception | None = None  # of the images
        self.cells = Cells(data.info)
        self.image_cell = self.cells.images(method, self.point)
        self.methods: dict[str, Distiller] = {}
        self._made: dict[str, tuple[Record, Path]] = {}
        waiting = [method]
        while waiting:
            one = waiting.pop()
            if self.methods.setdefault(one.info.name.partition(":")[0], one) is one:
                waiting += filter(None, (one.images_from(self.point), one.prepared_from(self.point)))

    def with_seed(self, seed: int) -> Workbench:
        """Return a workbench for another seed that shares cells that don't depend on it."""
        other = Workbench(self.method, self.data, self.point.ipc, self.folder, seed)
        other._made = self._made
        return other

    @cached_property
    def images(self) -> Images:
        """The set, of which a copy of the work folder is kept now and then, as a kill would leave it."""
        started, task = time.process_time(), self._task(self.image_cell, "images")

        def keep() -> None:
            checkpoint.flush()
            shutil.rmtree(late := task.work.parents[1] / LATE, ignore_errors=True)
            shutil.copytree(task.work, late / task.work.name)

        if self.fault is not None:
            raise self.fault
        try:
            made = stages.distill(replace(task, progress=killed_after(None, self.steps, keep)))
        except Exception as error:
            self.fault = error
            raise
        self.seconds = time.process_time() - started
        return made

    def finish_late(self) -> Images | None:
        """Go on from the last copy that was kept of :attr:`images`; None where the set was made too soon."""
        late = self.folder / f"seed-{self.point.seed}" / LATE
        return self.distill(LATE) if late.exists() else None

    @cached_property
    def source(self) -> LabelSource:
        """The method's label model, or its teacher."""
        return self.label_model("labels")

    def prepare(self, place: str, stop_after: int | None = None) -> dict[str, Tensor] | None:
        """Run ``prepare`` for the images in the work folder ``place``; None where nothing is prepared.

        Args:
            stop_after: stop it as a kill would after so many progress calls.
        """
        if (prepared := self.image_cell.parents.get("prepared")) is None:
            return None
        task = self._task(self.cells.by_id[prepared], place, stop_after)
        return running.prepare(task.method, task.running)

    def distill(self, place: str, stop_after: int | None = None) -> Images:
        """Run ``distill``, as :meth:`prepare`."""
        return stages.distill(self._task(self.image_cell, place, stop_after))

    def label_model(self, place: str, stop_after: int | None = None) -> LabelSource:
        """Run ``label_model``, as :meth:`prepare`."""
        cell = self.cells.label_model(self.method, self.point, self.image_cell)
        return stages.label_model(self._task(cell, place, stop_after))

    def logits(self, source: LabelSource) -> Tensor:
        """Return the soft labels of one batch of views of all images."""
        schedule = source.schedule()
        views = AugmentationConfig(size=self.data.info.image_size, min_scale=0.5, flip=True, mix="cutmix")
        stream = AugmentationStream(views if schedule is None else schedule.plan, len(self.images))
        known = Resident(self.images.pixels, self.images.labels, channels=source.channels(self.images))
        batch, indices = next(stream.batches(0, len(self.images)))
        made = stream.make(*known.on(self.device), indices, 0, batch)
        return source.soft_labels(made, 0)

    def _task(self, cell: Cell, place: str, stop_after: int | None = None) -> _Task:
        work, draft = (self.folder / f"seed-{self.point.seed}" / place / part for part in ("work", "draft"))
        for folder in (work, draft):
            folder.mkdir(parents=True, exist_ok=True)
        parents = {role: self._parent(self.cells.by_id[parent]) for role, parent in cell.parents.items()}
        progress = killed_after(stop_after, self.steps)
        return _Task(self.data.info, cell, parents, draft, work, self.data, self.device, progress, self.methods)

    def _parent(self, cell: Cell) -> tuple[Record, Path]:
        if cell.id not in self._made:
            task = self._task(cell, cell.id)
            if cell.stage == "teacher":  # nothing here needs accuracy
                spec = TeacherSpec(**cell.call["settings"])
                brief = spec.model_copy(update={"epochs": min(spec.epochs, spec.checkpoints)})
                call = {"settings": brief.model_dump(mode="json")}
                task = replace(task, cell=cell.model_copy(update={"call": call}))
            made, files = stages.STAGES[cell.stage](task), Store.facts(task.draft)
            record = Record(id=cell.id, cell=cell, state="done", result=made.result, files=files, run=_NOWHERE)
            self._made[cell.id] = record, task.draft
        return self._made[cell.id]
