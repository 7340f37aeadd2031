"""How the cells of a grid stand: what is done, where the rest is, and what went wrong.

Records and heartbeats are asked first, squeue second, and accounting last, about the tasks that none of them
explains. :func:`look` asks; :func:`judge` concludes, and is a pure function of what was found.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.execution.heartbeat import STALE_AFTER
from bench.execution.scheduling import survey
from bench.planning.grid import Grid
from bench.slurm import journal, queue
from bench.slurm.journal import Journal, Submitted
from bench.slurm.queue import Ended, Queued, Slurm
from bench.store.artifacts import Store
from bench.store.cell import STAGES, Cell, Stage
from bench.store.record import Record

State = Literal["done", "running", "queued", "failed", "blocked", "todo"]
STATES: tuple[State, ...] = ("done", "running", "queued", "failed", "blocked", "todo")

LOST = "lost: its task is neither in Slurm's queue nor known to accounting, and left no record"
UNKNOWN = "Slurm doesn't answer"


class Beat(BaseModel):
    """A heartbeat: how far a running cell was at a moment (:class:`bench.execution.heartbeat.Heartbeat` writes it)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    done: int
    total: int  # 0: nothing is known yet
    metrics: dict[str, float] = {}
    pid: int
    host: str
    job: str | None = None
    time: float  # Unix seconds, as the others
    started: float | None = None  # of this stretch of work
    first: int = 0  # what was done then

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace of this stretch; None before its first step."""
        if self.started is None or self.done <= self.first or self.time <= self.started:
            return None
        return max(0, self.total - self.done) * (self.time - self.started) / (self.done - self.first)


@dataclass(frozen=True)
class Standing:
    """How one cell stands."""

    cell: Cell
    state: State
    why: str = ""  # failed: what went wrong; queued: what it waits for; blocked: what it stands on
    beat: Beat | None = None  # of a cell that runs, or whose process stopped answering
    task: Submitted | None = None  # its last one
    node: str = ""  # of a task that runs

    @property
    def host(self) -> str | None:
        """Where it runs."""
        return self.beat.host if self.beat else self.node or None

    @property
    def job(self) -> str | None:
        """Slurm's name of the task that computes it, or should."""
        return self.beat.job if self.beat and self.beat.job else self.task.job if self.task else None


@dataclass(frozen=True)
class Outlook:
    """How the cells of a grid stand, by id, in the order of the grid."""

    grid: Grid
    cells: dict[str, Standing]

    @cached_property
    def _counts(self) -> dict[Stage, Counter[str]]:
        counts: dict[Stage, Counter[str]] = {stage: Counter() for stage in STAGES}
        for one in self.cells.values():
            counts[one.cell.stage][one.state] += 1
        return counts

    def counts(self, stage: Stage) -> Counter[str]:
        """How many cells of a stage are in which state."""
        return self._counts[stage]

    def of(self, state: State) -> list[Standing]:
        """The cells in a state."""
        return [one for one in self.cells.values() if one.state == state]

    @property
    def over(self) -> bool:
        """Does nothing run or wait in the queue?"""
        return not any(counts["running"] or counts["queued"] for counts in self._counts.values())


@dataclass(frozen=True)
class Evidence:
    """What was found of the cells of a grid."""

    done: Collection[str]
    beats: Mapping[str, Beat] = field(default_factory=dict)
    failures: Mapping[str, Record] = field(default_factory=dict)
    tasks: Mapping[str, Submitted] = field(default_factory=dict)  # cell -> its last task
    asked: Mapping[Path, datetime] = field(default_factory=dict)  # folder of a submission -> when it began
    queued: Mapping[str, Queued] | None = None  # by job; None: Slurm didn't answer
    ended: Mapping[str, Ended] = field(default_factory=dict)  # by job
    now: float = 0.0  # Unix seconds

    def runs(self, cell_id: str) -> bool:
        """Does its process give a sign of life?"""
        return cell_id in self.beats and self.now - self.beats[cell_id].time < STALE_AFTER

    def in_queue(self, cell_id: str) -> Queued | None:
        """What squeue says of its last task."""
        task = self.tasks.get(cell_id)
        return self.queued.get(task.job) if task and self.queued else None

    def failure(self, cell_id: str) -> Record | None:
        """Its failure, unless a later submission took it up again."""
        record, task = self.failures.get(cell_id), self.tasks.get(cell_id)
        if record is None or task is None or task.run not in self.asked:
            return record
        return record if datetime.fromisoformat(record.run.started) >= self.asked[task.run] else None


def look(grid: Grid, store: Store, slurm: Slurm = queue) -> Outlook:
    """Find out how the cells of a grid stand; changes nothing.

    squeue is asked when a cell that is not done was submitted, sacct about tasks of which nothing else is known.
    """
    state = survey(grid, store, check_files=False).state
    todo = [cell.id for cell in grid.cells if state[cell.id] != "done"]
    known = journal.last_tasks(store) if todo else {}
    tasks = {cell_id: known[cell_id] for cell_id in todo if cell_id in known}
    failed = store.ids("failures")
    failures = {cell_id: store.failure(cell_id) for cell_id in todo if cell_id in failed}
    evidence = Evidence(
        done={cell.id for cell in grid.cells} - set(todo),
        beats=beats(store, todo),
        failures={cell_id: record for cell_id, record in failures.items() if record is not None},
        tasks=tasks,
        asked=_asked(tasks.values()),
        queued=slurm.queued() if tasks else {},
        now=time.time(),
    )
    return judge(grid, Evidence(**{**vars(evidence), "ended": slurm.ended(unexplained(evidence))}))


def beats(store: Store, cell_ids: Iterable[str]) -> dict[str, Beat]:
    """The heartbeats of those cells that have one."""
    there = store.ids("heartbeats")
    found = {}
    for cell_id in cell_ids:
        if cell_id in there and (beat := read_beat(store, cell_id)) is not None:
            found[cell_id] = beat
    return found


def read_beat(store: Store, cell_id: str) -> Beat | None:
    """The heartbeat of a cell; None where there is none."""
    try:
        return Beat.model_validate(store.heartbeat(cell_id))
    except ValidationError:
        return None


def _asked(tasks: Iterable[Submitted]) -> dict[Path, datetime]:
    runs = {folder: Journal(folder).run() for folder in {task.run for task in tasks}}
    return {folder: datetime.fromisoformat(run.asked) for folder, run in runs.items() if run is not None}


def unexplained(evidence: Evidence) -> set[str]:
    """The jobs that accounting is to be asked about."""
    if evidence.queued is None:
        return set()
    return {
        task.job
        for cell_id, task in evidence.tasks.items()
        if task.job not in evidence.queued and not evidence.runs(cell_id) and evidence.failure(cell_id) is None
    }


def judge(grid: Grid, evidence: Evidence) -> Outlook:
    """Conclude from what was found how every cell stands."""
    cells: dict[str, Standing] = {}
    for cell in grid.cells:  # parents come before children
        missing = [cells[parent] for parent in cell.parents.values() if cells[parent].state != "done"]
        cells[cell.id] = _judge(cell, missing, evidence)
    return Outlook(grid, cells)


def _judge(cell: Cell, missing: list[Standing], evidence: Evidence) -> Standing:
    beat, task = evidence.beats.get(cell.id), evidence.tasks.get(cell.id)
    if cell.id in evidence.done:
        return Standing(cell, "done")
    if evidence.runs(cell.id):
        return Standing(cell, "running", beat=beat, task=task)
    for parent in missing:
        if parent.state in ("failed", "blocked"):
            root = parent.why if parent.state == "blocked" else f"stands on {parent.cell.id}"
            return Standing(cell, "blocked", root, task=task)
    failure, queued = evidence.failure(cell.id), evidence.in_queue(cell.id)
    if queued is not None and not queued.at_work:
        return Standing(cell, "queued", queued.reason, task=task)
    if failure is not None:
        return Standing(cell, "failed", failure.error or "no reason given", task=task)
    if task is None:
        silent = f"its process {beat.pid} on {beat.host} gives no sign of life" if beat else ""
        return Standing(cell, "todo", silent, beat=beat)
    if queued is not None:
        return _at_work(cell, task, queued, evidence)
    if evidence.queued is None:
        return Standing(cell, "queued", UNKNOWN, task=task)
    if missing:  # its task came before they were done, and left
        return Standing(cell, "todo", task=task)
    return _gone(cell, task, evidence)


def _at_work(cell: Cell, task: Submitted, queued: Queued, evidence: Evidence) -> Standing:
    """Its task runs, but the cell gives no sign of life: it is about to, or others of the same task come first."""
    for other in task.cells:
        if other == cell.id:
            break
        if evidence.runs(other) or not (other in evidence.done or evidence.failure(other)):
            return Standing(cell, "queued", "other cells of its task", task=task)
    beat = evidence.beats.get(cell.id)
    silent = "no sign of life yet" if beat is None else f"no sign of life for {evidence.now - beat.time:.0f} s"
    return Standing(cell, "running", silent, beat=beat, task=task, node=queued.node)


def _gone(cell: Cell, task: Submitted, evidence: Evidence) -> Standing:
    """Its task has left the queue, and there is no record of it."""
    end = evidence.ended.get(task.job)
    if end is not None and end.state == "COMPLETED":  # its record was removed since, or is not to be seen yet
        return Standing(cell, "todo", task=task)
    older = evidence.failures.get(cell.id)  # clocks differ: it may be of this task after all
    if older is not None and (end is None or end.state == "FAILED"):
        return Standing(cell, "failed", older.error or "no reason given", task=task)
    return Standing(cell, "failed", end.why if end else LOST, task=task)


def by_reason(failed: Iterable[Standing]) -> list[list[Standing]]:
    """Cells that failed for the same reason, the most frequent first; numbers and the cells' ids may differ."""
    groups: dict[str, list[Standing]] = {}
    for one in failed:
        names = [one.cell.id, *([one.task.job] if one.task else [])]
        reason = one.why
        for name in names:
            reason = reason.replace(name, "")
        groups.setdefault(re.sub(r"\d+", "#", reason), []).append(one)
    return sorted(groups.values(), key=len, reverse=True)
