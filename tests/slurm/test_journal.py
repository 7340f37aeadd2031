"""The journal of submissions: tasks, their times, cancellations, and lines that a kill cut short."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.execution.environment import Options
from bench.slurm.journal import Journal, Run, last_tasks
from bench.store.artifacts import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def submitted(store: Store, job: str, *packs: tuple[str, ...], grid: str = "g") -> Journal:
    """A submission of one array."""
    run = Run(grid=grid, dataset="digits", options=Options(store=store.root), profile=None, out=store.root)
    here = Journal.create(store, run)
    here.append("submitting", stage="distill", tasks=len(packs))
    here.append("submitted", stage="distill", job=job, packs=packs, after=None)
    return here


def test_each_cell_has_the_task_that_it_was_submitted_with_last(store: Store) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    first = submitted(store, "7", ("a", "b"), ("c",))
    time.sleep(1.01)  # folders are named to the second
    second = submitted(store, "8", ("b",))
    found = last_tasks(store)
    assert {cell: (task.job, task.folder, task.cells) for cell, task in found.items()} == {
        "a": ("7_0", first.folder, ("a", "b")),
        "b": ("8", second.folder, ("b",)),
        "c": ("7_1", first.folder, ("c",)),
    }
    assert all(before <= task.submitted <= datetime.now(UTC) for task in found.values())
    assert found["b"].out == second.folder / "8_0_log.out"


def test_cancelled_tasks_are_none(store: Store) -> None:
    here = submitted(store, "7", ("a",), ("b",))
    here.append("cancelled", jobs=["7_1"])
    assert list(last_tasks(store)) == ["a"]
    here.append("cancelled", jobs=["7"])
    assert last_tasks(store) == {}


def test_a_line_that_a_kill_cut_short_is_passed_over(store: Store) -> None:
    here = submitted(store, "7", ("a",), ("b",))
    with (here.folder / "journal.jsonl").open("a") as stream:
        stream.write('{"time": "2026-01-01T00:00:00+00:00", "event": "canc')
    assert list(last_tasks(store)) == ["a", "b"]


def test_ten_thousand_cells_are_read_in_a_second(store: Store) -> None:
    submitted(store, "7", *((f"cell{index}",) for index in range(10_000)))
    began = time.process_time()
    assert len(last_tasks(store)) == 10_000
    assert time.process_time() - began < 1
