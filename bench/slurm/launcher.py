"""Slurm job arrays through submitit: everything is submitted in one go, and then followed.

Tasks don't need whoever follows them: when that stops, they go on, and the last job of a submission writes the
boards. The same command follows again, and submits only what is neither done nor in the queue. A cell that failed
leaves a record that says why; for one whose task was killed, the follower writes it from what Slurm's accounting says
and the end of its log.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench.execution import Watcher
from bench.execution.heartbeat import STALE_AFTER
from bench.execution.options import Options
from bench.execution.scheduling import Schedule, finished
from bench.slurm import journal, queue
from bench.slurm.journal import Run
from bench.slurm.profile import Profile
from bench.slurm.status import Beat, read_beat
from bench.slurm.submit import Submission, submit
from bench.store.artifacts import Damaged, Store
from bench.store.cell import Cell
from bench.store.record import Record

_TICK = 2.0  # seconds between two looks at the store
_ASK_EVERY = 15.0  # seconds between two questions to Slurm, whose controller serves everybody
_GRACE = 60.0  # seconds that a record may come after its job is gone: as long as NFS remembers a folder (acdirmax)
_LOG_LINES = 20  # of a task that was killed, kept in its record


def begin(schedule: Schedule, options: Options, profile: Profile, out: Path, at_a_time: int | None) -> Submission:
    """Submit everything that is to do and not yet in the queue.

    Args:
        out: where the last job writes the boards.
        at_a_time: most tasks of a stage and resource class at a time; None: as the profile says.

    Raises:
        UserError: Slurm refuses the jobs; what was submitted before is cancelled.
    """
    asked = Run(
        asked=datetime.now(UTC).isoformat(timespec="seconds"),
        grid=schedule.grid.id,
        dataset=schedule.grid.dataset.name,
        options=options,
        profile=profile.name,
        out=out.absolute(),
        suite=schedule.grid.request.suite,
    )
    return submit(schedule, asked, profile, at_a_time)


def follow(schedule: Schedule, options: Options, submission: Submission, watcher: Watcher) -> None:
    """Return when the schedule is over.

    Raises:
        KeyboardInterrupt: the user stopped following; the jobs go on, as its message says.
    """
    store, tasks = Store(options.store), dict(submission.tasks)
    asked, gone_since = time.monotonic(), dict.fromkeys(tasks, 0.0)
    try:
        while True:
            _look(schedule, store, submission.failures)
            _cancel_blocked(schedule, tasks)
            watcher.update(schedule)
            if schedule.over:
                return
            if time.monotonic() - asked >= _ASK_EVERY:
                asked = time.monotonic()
                _note_the_dead(schedule, store, tasks, gone_since)
            time.sleep(_TICK)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "the jobs go on without this command, and the last of them writes the boards: bench status shows them, "
            "bench cancel ends them, and the same command follows them again"
        ) from None


def _look(schedule: Schedule, store: Store, before: Mapping[str, Record | None]) -> None:
    """Read the state of the open cells from the store: three listings, and a closer look at those they name."""
    told = store.ids("cells") | store.ids("failures")
    beating = {cell_id for cell_id in store.ids("heartbeats") if _is_fresh(read_beat(store, cell_id))}
    for cell in schedule.grid.cells:
        if schedule.state[cell.id] in ("todo", "running"):
            outcome = _state(store, cell, before.get(cell.id)) if cell.id in told else "busy"
            if outcome != "busy":
                schedule.settle(cell, outcome)
            elif (schedule.state[cell.id] == "running") != (cell.id in beating):
                schedule.state[cell.id] = "running" if cell.id in beating else "todo"


def _is_fresh(beat: Beat | None) -> bool:
    """One that is not leaves its cell to Slurm: the task may be queued again."""
    return beat is not None and time.time() - beat.time < STALE_AFTER


def _state(store: Store, cell: Cell, before: Record | None) -> str:
    try:
        if finished(store, cell):
            return "done"
    except Damaged:
        return "busy"
    return "busy" if store.failure(cell.id) in (None, before) else "failed"


def _cancel_blocked(schedule: Schedule, tasks: dict[str, str]) -> None:
    """Take tasks that wait for nothing out of the queue; one that has started ends by itself."""
    cells: dict[str, list[str]] = {}
    for cell_id, job in tasks.items():
        cells.setdefault(job, []).append(cell_id)
    blocked = {job for job, packed in cells.items() if all(schedule.state[one] == "blocked" for one in packed)}
    queue.cancel(blocked, "--state=PENDING")
    for job in blocked:
        for cell_id in cells[job]:
            del tasks[cell_id]


def _note_the_dead(schedule: Schedule, store: Store, tasks: Mapping[str, str], gone_since: dict[str, float]) -> None:
    """Give a record to each cell whose task has left the queue without one, and take it for failed."""
    from bench.execution.failures import note_death

    queued = queue.queued()
    if queued is None:
        return  # its controller may be restarting
    now, dead = time.monotonic(), []
    for cell in schedule.ready() + [c for c in schedule.grid.cells if schedule.state[c.id] == "running"]:
        if tasks.get(cell.id) in queued:
            gone_since[cell.id] = 0.0
        else:
            gone_since[cell.id] = gone_since.get(cell.id) or now
            if now - gone_since[cell.id] >= _GRACE:
                dead.append(cell)
    ends = queue.ended(tasks[cell.id] for cell in dead if cell.id in tasks)
    logs = journal.last_tasks(store) if dead else {}
    for cell in dead:
        job, task = tasks.get(cell.id, ""), logs.get(cell.id)
        why = ends[job].why if job in ends else "it left the queue without a record"
        where = f"; its log is {task.err}" if task else ""
        tail = _tail(task.err) + _tail(task.out) if task else ""
        note_death(store, cell, f"Slurm task {job}: {why}{where}", tail)
        schedule.settle(cell, "failed")


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return f"the end of {log.name}:\n" + "".join(f"  {line}\n" for line in lines[-_LOG_LINES:])
