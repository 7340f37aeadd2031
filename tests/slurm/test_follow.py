"""What a follower makes of a store, without a cluster."""

from __future__ import annotations

import time
from pathlib import Path

from bench.execution import heartbeat
from bench.execution.scheduling import Schedule
from bench.slurm import follow
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
