"""What a follower makes of a store, without a cluster."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.execution import heartbeat
from bench.execution.scheduling import Schedule
from bench.slurm import follow, queue
from bench.slurm.queue import ThrottledSlurm
from bench.store.artifacts import Store
from tests.cli.test_status import IMAGES, STUDENTS, fail, finish, the_grid


def test_states_follow_from_records_and_fresh_heartbeats(tmp_path: Path) -> None:
    store, grid = Store(tmp_path), the_grid()
    schedule = Schedule(grid, dict.fromkeys((cell.id for cell in grid.cells), "todo"))
    finish(store, IMAGES[0])
    fail(store, IMAGES[2])
    before = {IMAGES[2].id: store.failure(IMAGES[2].id)}
    facts = {"done": 1, "total": 4, "pid": 7, "host": "n1", "time": time.time()}
    heartbeat.write(store, IMAGES[1].id, facts)
    follow._read_store(schedule, store, before)
    assert [schedule.state[cell.id] for cell in IMAGES] == ["done", "running", "todo"], "an old failure is no news"

    heartbeat.write(store, IMAGES[1].id, {**facts, "time": time.time() - 99})
    fail(store, IMAGES[2], "ValueError: another")
    half_written = store.root / "cells" / STUDENTS[0].id
    half_written.mkdir(parents=True)
    (half_written / "record.json").write_text("{")
    follow._read_store(schedule, store, before)
    assert [schedule.state[cell.id] for cell in IMAGES] == ["done", "todo", "failed"]
    assert schedule.state[STUDENTS[0].id] == "todo" and schedule.state[STUDENTS[45].id] == "blocked"


NOTHING, EARLY = "", "3|FAILED|0:9|n2||100M\n3.batch|FAILED|0:9|n2|100K|\n"
LATE = EARLY + "3.0|CANCELLED by 0|0:9|n2|320592K|\n"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ((NOTHING, EARLY, LATE), "OUT_OF_MEMORY (used 320592K of 100M)"),
        ((EARLY,) * 3, "FAILED (exit code 0:9)"),
        ((NOTHING,) * 3, "it left the queue without a record"),
        ((None,) * 3, "it left the queue without a record"),
    ],
)
def test_a_death_is_told_with_what_accounting_learns_late(
    answers: tuple[str | None, ...], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks 61, 91 and 121 s after a task was missed: none, then a job alone, then its steps, or never an answer."""
    store, grid = Store(tmp_path), the_grid()
    cell = IMAGES[0]
    schedule = Schedule(grid, {one.id: "todo" if one.id == cell.id else "done" for one in grid.cells})
    gone_since = dict.fromkeys([cell.id], 0.0)
    slurm, clock, answer = ThrottledSlurm(every=15), 1000.0, answers[0]
    monkeypatch.setattr(queue.time, "monotonic", lambda: clock)
    monkeypatch.setattr(queue, "run_command", lambda *command, **_: "" if command[0] == "squeue" else answer)
    for seconds, told in zip((0, 61, 91, 121), (None, *answers), strict=True):
        assert store.failure(cell.id) is None
        clock, answer = 1000.0 + seconds, told
        follow._record_deaths(schedule, store, {cell.id: "3"}, gone_since, slurm)
    failure = store.failure(cell.id)
    assert failure is not None and failure.error is not None
    assert failure.error.startswith(f"Slurm task 3: {reason}")
