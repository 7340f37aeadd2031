"""Submitting a run: all of its arrays in one go, each after what it stands on, and a last job for the boards.

All or nothing: when sbatch refuses one, those before it are taken back. Submissions to the same store take turns,
and what an earlier one left in the queue is waited for, not submitted again. So a cell is in the queue once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.api import registry
from bench.errors import UserError
from bench.execution.scheduling import Schedule
from bench.planning.cost_estimate import LikeCells
from bench.slurm import journal, queue
from bench.slurm.arrays import Array, plan_arrays
from bench.slurm.journal import ArrayPlan, Journal, Run
from bench.slurm.profile import REPORT, Profile
from bench.slurm.sbatch import job_name, send
from bench.slurm.task import Task, report
from bench.store.artifacts import Store, write_atomically
from bench.store.cell import Cell
from bench.store.record import Record

_PATIENCE = 0.75  # of the time after a warning, for saving; the rest is for queueing the task again


@dataclass(frozen=True)
class Submission:
    """What is in the queue now: by this call, and before it."""

    tasks: dict[str, str]  # cell id -> job id
    failures: dict[str, Record | None]  # of old: no answer to this submission
    folder: Path | None = None  # of this call; None: it had nothing to submit
    submitted: int = 0  # tasks of this call


def submit(schedule: Schedule, run: Run, profile: Profile, at_a_time: int | None) -> Submission:
    """Submit what is to do.

    Args:
        run: what was asked for; kept beside the logs.
        at_a_time: most tasks of a stage and resource class at a time; None: as the profile says.

    Raises:
        UserError: Slurm doesn't answer, or refuses a job; nothing of this call is left in the queue then.
    """
    store = Store(run.options.store)
    with FileLock(store.root / "leases" / "submission.lock"):
        in_queue = tasks_in_queue(store)
        arrays = arrays_of(schedule, store, profile, at_a_time, in_queue)
        cells = {cell.id: cell for cell in schedule.grid.cells}
        waiting = {cell_id: job for cell_id, job in in_queue.items() if cell_id in cells}
        failures = {cell_id: store.failure(cell_id) for cell_id in store.ids("failures") & cells.keys()}
        if not arrays:
            return Submission(waiting, failures)
        here = Journal.begin(store, run)
        jobs: list[str] = []
        tasks: dict[str, str] = {}
        try:
            for number, array in enumerate(arrays):
                resources = profile.resources_of(array.resources, array.stage)
                mine = tuple(cells[cell_id] for pack in array.packs for cell_id in pack)
                plan = ArrayPlan(
                    grid=schedule.grid.model_copy(update={"cells": mine}),
                    packs=array.packs,
                    options=run.options,
                    processes=array.processes,
                    patience=_PATIENCE * profile.warning_of(resources),
                )
                path = here.folder / f"array-{number}.json"
                write_atomically(path, plan.model_dump_json() + "\n")
                calls: list[Callable[[], None]] = [Task(str(path), index) for index in range(len(array.packs))]
                after = _dependency(array, jobs)
                names = send(here, profile, resources, array.stage, calls, after, array)
                jobs.append(names[0].partition("_")[0])
                for name, pack in zip(names, array.packs, strict=True):
                    tasks |= dict.fromkeys(pack, name)
            last = profile.resources_of(profile.class_of(REPORT), REPORT)
            earlier = {job.partition("_")[0] for job in waiting.values()}
            after = "afterany:" + ":".join(sorted({*jobs, *earlier}))
            jobs += send(here, profile, last, REPORT, [_Report(str(here.folder / "run.json"))], after)
        except BaseException:  # Ctrl-C too
            # by name: sbatch may have taken a job whose number we never got to know
            for stage in {array.stage for array in arrays} | {REPORT}:
                queue.cancel_named(job_name(here, stage))
            here.note("cancelled", jobs=jobs)
            raise
    return Submission({**waiting, **tasks}, failures, here.folder, sum(len(array.packs) for array in arrays))


def tasks_in_queue(store: Store) -> dict[str, str]:
    """Cell id → job id of everything of a store that is pending or running.

    Raises:
        UserError: Slurm doesn't answer.
    """
    queued = queue.queued()
    if queued is None:
        raise UserError("Slurm doesn't answer (squeue fails), so nothing is submitted; try again, or use bench doctor")
    return {cell_id: task.job for cell_id, task in journal.last_tasks(store).items() if task.job in queued}


def arrays_of(
    schedule: Schedule, store: Store, profile: Profile, at_a_time: int | None, in_queue: dict[str, str]
) -> list[Array]:
    """The arrays that a submission would make now."""
    return plan_arrays(
        schedule,
        profile,
        longest=queue.max_array(),
        at_a_time=at_a_time,
        shared=can_be_shared,
        seconds=LikeCells(store).seconds,
        in_queue=in_queue,
    )


def can_be_shared(cell: Cell) -> bool:
    """Can several processes share the work of a cell? Teachers always; the rest as its method says."""
    if cell.stage == "teacher":
        return True
    return cell.by in registry.method_names() and cell.stage in registry.method(cell.by).info.shared


@dataclass(frozen=True)
class _Report:
    """The last job, as submitit carries it."""

    run: str

    def __call__(self) -> None:
        report(self.run)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _dependency(array: Array, jobs: list[str]) -> str | None:
    parts = ["aftercorr:" + ":".join(jobs[index] for index in array.after.each)] if array.after.each else []
    every = [*(jobs[index] for index in array.after.all), *sorted({job.partition("_")[0] for job in array.after.jobs})]
    if every:
        parts.append("afterany:" + ":".join(every))
    return ",".join(parts) or None
