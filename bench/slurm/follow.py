"""Follow submitted arrays until the schedule is over.

Tasks don't depend on the follower: when it stops, they go on, and the last job of a submission writes the boards. The
same command follows again. A cell that failed leaves a record with its error; for one whose task was killed, the
follower writes it, from Slurm's accounting and the end of the task's log.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from bench.execution import heartbeat
from bench.execution.environment import Options
from bench.execution.heartbeat import STALE_AFTER, record_death
from bench.execution.scheduling import Schedule, Watcher, finished
from bench.slurm import journal, queue
from bench.slurm.queue import ThrottledSlurm
from bench.slurm.submit import Submission
from bench.store.artifacts import Damaged, Store
from bench.store.record import Record

_POLL_EVERY = 2.0  # seconds between two looks at the store
_QUERY_EVERY = 15.0  # seconds between two queries to Slurm, whose controller serves everybody
_GRACE = 60.0  # seconds for a record to appear after its job ended: NFS caches folders that long (acdirmax)
_LATE = 60.0  # seconds more for accounting to learn of a job that ended, and then of its steps


def follow(schedule: Schedule, options: Options, submission: Submission, watcher: Watcher) -> None:
    """Return when the schedule is over.

    Raises:
        KeyboardInterrupt: the user stopped following; the jobs go on, as its message says.
    """
    store, tasks = Store(options.store), dict(submission.tasks)
    slurm, gone_since = ThrottledSlurm(every=_QUERY_EVERY), dict.fromkeys(tasks, 0.0)
    try:
        while True:
            _read_store(schedule, store, submission.failures)
            _cancel_blocked(schedule, tasks)
            watcher.update(schedule)
            if schedule.over:
                return
            _record_deaths(schedule, store, tasks, gone_since, slurm)
            time.sleep(_POLL_EVERY)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "the jobs go on without this command, and the last of them writes the boards: bench status shows them, "
            "bench cancel ends them, and the same command follows them again"
        ) from None


def _read_store(schedule: Schedule, store: Store, before: Mapping[str, Record | None]) -> None:
    """Update the state of the open cells: three listings, and the records and heartbeats that they name."""
    done, failed, now = store.ids("cells"), store.ids("failures"), time.time()
    progress = ((cell_id, heartbeat.read(store, cell_id)) for cell_id in store.ids("heartbeats"))
    # a stale heartbeat leaves its cell to Slurm, which may queue the task again
    beating = {cell_id for cell_id, one in progress if one is not None and now - one.time < STALE_AFTER}
    for cell in schedule.grid.cells:
        if schedule.state[cell.id] not in ("todo", "running"):
            continue
        with suppress(Damaged):
            if cell.id in done and finished(store, cell):
                schedule.settle(cell, "done")
                continue
            if cell.id in failed and store.failure(cell.id) not in (None, before.get(cell.id)):
                schedule.settle(cell, "failed")
                continue
        if (schedule.state[cell.id] == "running") != (cell.id in beating):
            schedule.state[cell.id] = "running" if cell.id in beating else "todo"


def _cancel_blocked(schedule: Schedule, tasks: dict[str, str]) -> None:
    """Cancel pending tasks whose cells are all blocked; a running one ends by itself."""
    cells: dict[str, list[str]] = {}
    for cell_id, job in tasks.items():
        cells.setdefault(job, []).append(cell_id)
    blocked = {job for job, packed in cells.items() if all(schedule.state[one] == "blocked" for one in packed)}
    queue.cancel(blocked, "--state=PENDING")
    for job in blocked:
        for cell_id in cells[job]:
            del tasks[cell_id]


def _record_deaths(
    schedule: Schedule,
    store: Store,
    tasks: Mapping[str, str],
    gone_since: dict[str, float],
    slurm: queue.ThrottledSlurm,
) -> None:
    """Record each cell as failed whose task left the queue without a record."""
    queued = slurm.queued()
    if queued is None:
        return  # the controller may be restarting
    now, dead = time.monotonic(), []
    for cell in schedule.ready() + [c for c in schedule.grid.cells if schedule.state[c.id] == "running"]:
        if tasks.get(cell.id) in queued:
            gone_since[cell.id] = 0.0
        else:
            gone_since[cell.id] = gone_since.get(cell.id) or now
            if now - gone_since[cell.id] >= _GRACE:
                dead.append(cell)
    ends = slurm.ended(tasks[cell.id] for cell in dead if cell.id in tasks)
    last = journal.last_tasks(store) if dead else {}
    for cell in dead:
        job, task = tasks.get(cell.id, ""), last.get(cell.id)
        end = queue.explain(ends.get(job), task.log_tail) if task else ends.get(job)
        if job and not (end and end.final) and now - gone_since[cell.id] < _GRACE + _LATE:
            continue
        why = end.why if end else "it left the queue without a record"
        where, tail = (f"; its log is {task.err}", task.log_tail()) if task else ("", "")
        record_death(store, cell, f"Slurm task {job}: {why}{where}", tail)
        schedule.settle(cell, "failed")
