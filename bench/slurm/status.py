"""The status of a grid: which cells are done, running, queued or failed, and why.

Records and heartbeats come first, the queue second, and accounting last, for tasks that nothing else explains.
:func:`collect_status` gathers the evidence; :func:`infer_states` is a pure function of it.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Literal

from bench.execution import heartbeat
from bench.execution.heartbeat import STALE_AFTER, CellProgress
from bench.execution.scheduling import survey
from bench.planning.grid import Grid
from bench.slurm.journal import SubmittedTask
from bench.slurm.queue import EndedTask, QueuedTask, ThrottledSlurm, explain
from bench.store.artifacts import Store
from bench.store.cell import Cell, Stage
from bench.store.record import Record

State = Literal["done", "running", "queued", "failed", "blocked", "todo"]
STATES: tuple[State, ...] = ("done", "running", "queued", "failed", "blocked", "todo")

LOST = "lost: its task is neither in Slurm's queue nor known to accounting, and left no record"
UNKNOWN = "Slurm doesn't answer"


@dataclass(frozen=True)
class CellStatus:
    """The status of one cell."""

    cell: Cell
    state: State
    why: str = ""  # failed: the error; queued: the reason; blocked: the failed cell that it depends on
    progress: CellProgress | None = None  # of a running cell, or of one whose process stopped responding
    task: SubmittedTask | None = None  # its last one
    node: str = ""  # of a running task

    @property
    def host(self) -> str | None:
        """The machine that computes it."""
        return self.progress.host if self.progress else self.node or None

    @property
    def job(self) -> str | None:
        """The Slurm task that computes it, or will."""
        return self.progress.job if self.progress and self.progress.job else self.task.job if self.task else None


@dataclass(frozen=True)
class GridStatus:
    """The status of every cell of a grid by id, in the order of the grid."""

    grid: Grid
    cells: dict[str, CellStatus]

    @cached_property
    def _counts(self) -> Counter[tuple[Stage, State]]:
        return Counter((one.cell.stage, one.state) for one in self.cells.values())

    def counts(self, stage: Stage) -> Counter[str]:
        """Count the cells of a stage by state."""
        return Counter({state: count for (at, state), count in self._counts.items() if at == stage})

    def of(self, state: State) -> list[CellStatus]:
        """Return the cells in a state."""
        return [one for one in self.cells.values() if one.state == state]

    @property
    def over(self) -> bool:
        """Nothing is running or queued."""
        return not any(one.state in ("running", "queued") for one in self.cells.values())


@dataclass(frozen=True)
class Evidence:
    """The facts of the store and the batch system about the cells of a grid."""

    done: Collection[str]
    progress: Mapping[str, CellProgress] = field(default_factory=dict)
    failures: Mapping[str, Record] = field(default_factory=dict)
    tasks: Mapping[str, SubmittedTask] = field(default_factory=dict)  # cell -> its last task
    queued: Mapping[str, QueuedTask] | None = None  # by job; None: Slurm didn't answer
    ended: Mapping[str, EndedTask] = field(default_factory=dict)  # by job
    now: float = 0.0  # Unix seconds

    def alive(self, cell_id: str) -> bool:
        """Check that its process has written a heartbeat lately."""
        return cell_id in self.progress and self.now - self.progress[cell_id].time < STALE_AFTER

    def in_queue(self, cell_id: str) -> QueuedTask | None:
        """Return the queue's entry for its last task."""
        task = self.tasks.get(cell_id)
        return self.queued.get(task.job) if task and self.queued else None

    def failure(self, cell_id: str) -> Record | None:
        """Return its failure, unless it was submitted again since."""
        record, task = self.failures.get(cell_id), self.tasks.get(cell_id)
        if record is None or task is None:
            return record
        return record if datetime.fromisoformat(record.run.started) >= task.submitted else None

    def unexplained(self) -> dict[str, SubmittedTask]:
        """Return the tasks to query accounting for, by their jobs."""
        if self.queued is None:
            return {}
        return {
            task.job: task
            for cell_id, task in self.tasks.items()
            if task.job not in self.queued and not self.alive(cell_id) and self.failure(cell_id) is None
        }


def collect_status(grid: Grid, store: Store, tasks: Mapping[str, SubmittedTask], queue: ThrottledSlurm) -> GridStatus:
    """Return the status of a grid, changing nothing.

    Args:
        tasks: the last submitted task of each cell that has one.
        queue: queried only when a cell that is not done was submitted.
    """
    state = survey(grid, store, check_files=False).state
    missing = {cell_id for cell_id, one in state.items() if one != "done"}
    beating, failed = missing & store.ids("heartbeats"), missing & store.ids("failures")
    submitted = {cell_id: task for cell_id, task in tasks.items() if cell_id in missing}
    evidence = Evidence(
        done=state.keys() - missing,
        progress={cell_id: one for cell_id in beating if (one := heartbeat.read(store, cell_id)) is not None},
        failures={cell_id: record for cell_id in failed if (record := store.failure(cell_id)) is not None},
        tasks=submitted,
        queued=queue.queued() if submitted else {},
        now=time.time(),
    )
    gone = evidence.unexplained()
    known = queue.ended(gone)
    ends = {job: end for job, task in gone.items() if (end := explain(known.get(job), task.log_tail))}
    return infer_states(grid, replace(evidence, ended=ends))


def infer_states(grid: Grid, evidence: Evidence) -> GridStatus:
    """Infer the status of every cell."""
    cells: dict[str, CellStatus] = {}
    for cell in grid.cells:  # parents come before children
        missing = [cells[parent] for parent in cell.parents.values() if cells[parent].state != "done"]
        cells[cell.id] = infer_state(cell, missing, evidence)
    return GridStatus(grid, cells)


def infer_state(cell: Cell, missing: list[CellStatus], evidence: Evidence) -> CellStatus:
    """Infer the status of a cell; ``missing`` are those of its parents that are not done."""
    progress, task = evidence.progress.get(cell.id), evidence.tasks.get(cell.id)
    if cell.id in evidence.done:
        return CellStatus(cell, "done")
    if evidence.alive(cell.id):
        return CellStatus(cell, "running", progress=progress, task=task)
    for parent in missing:
        if parent.state in ("failed", "blocked"):
            root = parent.why if parent.state == "blocked" else f"depends on {parent.cell.id}"
            return CellStatus(cell, "blocked", root, task=task)
    failure, queued = evidence.failure(cell.id), evidence.in_queue(cell.id)
    if queued is not None and not queued.running:
        return CellStatus(cell, "queued", queued.reason, task=task)
    if failure is not None:
        return CellStatus(cell, "failed", failure.error or "no reason given", task=task)
    if task is None:
        why = f"its process {progress.pid} on {progress.host} doesn't respond" if progress else ""
        return CellStatus(cell, "todo", why, progress=progress)
    if queued is not None:
        return _silent(cell, task, queued, evidence)
    if evidence.queued is None:
        return CellStatus(cell, "queued", UNKNOWN, task=task)
    if missing:  # its task started before its parents were done, and ended
        return CellStatus(cell, "todo", task=task)
    return _gone(cell, task, evidence)


def _silent(cell: Cell, task: SubmittedTask, queued: QueuedTask, evidence: Evidence) -> CellStatus:
    """Infer the status of a cell without a heartbeat in a running task: it starts soon, or after other cells."""
    for other in task.cells:
        if other == cell.id:
            break
        if evidence.alive(other) or not (other in evidence.done or evidence.failure(other)):
            return CellStatus(cell, "queued", "other cells of its task", task=task)
    progress = evidence.progress.get(cell.id)
    why = "no heartbeat yet" if progress is None else f"no heartbeat for {evidence.now - progress.time:.0f} s"
    return CellStatus(cell, "running", why, progress=progress, task=task, node=queued.node)


def _gone(cell: Cell, task: SubmittedTask, evidence: Evidence) -> CellStatus:
    """Infer the status of a cell whose task left the queue without a record."""
    end = evidence.ended.get(task.job)
    if end is not None and end.state == "COMPLETED":  # its record was removed since, or is not visible yet
        return CellStatus(cell, "todo", task=task)
    older = evidence.failures.get(cell.id)  # clocks differ: it may be of this task after all
    if older is not None and (end is None or end.state == "FAILED"):
        return CellStatus(cell, "failed", older.error or "no reason given", task=task)
    return CellStatus(cell, "failed", end.why if end else LOST, task=task)


def group_by_reason(failed: Iterable[CellStatus]) -> list[list[CellStatus]]:
    """Group cells whose errors differ in numbers and ids alone; the largest group first."""
    groups: dict[str, list[CellStatus]] = {}
    for one in failed:
        reason = one.why.replace(one.cell.id, "").replace(one.task.job if one.task else one.cell.id, "")
        groups.setdefault(re.sub(r"\d+", "#", reason), []).append(one)
    return sorted(groups.values(), key=len, reverse=True)
