"""The status of cells, inferred from synthetic heartbeats, records, queues and accounting."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.api import catalogue
from bench.execution import heartbeat
from bench.execution.heartbeat import CellProgress
from bench.planning.grid import Grid, Request
from bench.slurm import status
from bench.slurm.journal import SubmittedTask
from bench.slurm.queue import EndedTask, QueuedTask
from bench.slurm.status import Evidence, GridStatus, collect_status, group_by_reason, infer_states
from bench.store.artifacts import Store
from bench.store.cell import Cell, Stage
from bench.store.record import Record, RunFacts

NOW = 1_800_000_000.0
RUN = Path("runs/1")


def made_cell(name: str, stage: Stage = "distill", *parents: Cell) -> Cell:
    roles = {str(index): parent.id for index, parent in enumerate(parents)}
    return Cell(stage=stage, by="rded", version=1, fields={"name": name}, parents=roles, prefix=name)


def made_grid(*cells: Cell) -> Grid:
    return Grid(request=Request(methods=("rded",)), dataset=catalogue.dataset("digits"), cells=cells)


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat(timespec="seconds")


def failed(cell: Cell, error: str = "ValueError: no images today", at: float = -10) -> Record:
    facts = RunFacts(started=stamp(at), seconds=1.0, peak_memory=1, environment={})
    return Record(id=cell.id, cell=cell, state="failed", run=facts, error=error, traceback="Traceback …")


def progress(age: float, **facts: Any) -> CellProgress:
    return CellProgress(**{"done": 30, "total": 100, "pid": 7, "host": "n1", "time": NOW - age, **facts})


def task(job: str, *cells: Cell) -> SubmittedTask:
    ids = tuple(cell.id for cell in cells)
    return SubmittedTask(job, RUN, cells[0].stage, ids, datetime.fromtimestamp(NOW - 100, UTC))


A = made_cell("a", "distill")
B = made_cell("b", "label", A)
C = made_cell("c", "evaluate", A, B)
TASK = task("12_3", A)
PENDING, RUNNING = QueuedTask("PENDING", "Resources", "", False), QueuedTask("RUNNING", "None", "n2", True)
OOM = EndedTask("OUT_OF_MEMORY", "OUT_OF_MEMORY (used 3G of 2000M)")


def inferred(done: Iterable[Cell] = (), grid: Grid | None = None, **evidence: Any) -> GridStatus:
    facts = {"queued": {}, "now": NOW, **evidence}
    return infer_states(grid or made_grid(A, B, C), Evidence(done={cell.id for cell in done}, **facts))


def state(found: GridStatus, cell: Cell = A) -> tuple[str, str]:
    return found.cells[cell.id].state, found.cells[cell.id].why


def test_without_any_sign_everything_is_to_do() -> None:
    found = inferred()
    assert [state(found, cell)[0] for cell in (A, B, C)] == ["todo"] * 3
    assert found.over


def test_a_heartbeat_means_running_until_it_is_stale() -> None:
    found = inferred(progress={A.id: progress(59)})
    assert state(found) == ("running", "") and not found.over
    assert found.cells[A.id].host == "n1"
    kind, why = state(inferred(progress={A.id: progress(61)}))
    assert kind == "todo" and "process 7 on n1 doesn't respond" in why


def test_what_stands_on_a_failure_is_blocked_down_to_the_last() -> None:
    found = inferred(failures={A.id: failed(A)})
    assert state(found) == ("failed", "ValueError: no images today")
    assert state(found, B) == state(found, C) == ("blocked", f"depends on {A.id}")
    tasks = {B.id: task("13", B)}
    assert state(inferred(failures={A.id: failed(A)}, tasks=tasks, queued={"13": PENDING}), B)[0] == "blocked"


@pytest.mark.parametrize(
    ("queued", "expected"),
    [
        ({"12_3": PENDING}, ("queued", "Resources")),
        ({"12_3": RUNNING}, ("running", "no heartbeat yet")),
        ({"12_3": QueuedTask("REQUEUED", "None", "", False)}, ("queued", "None")),
        (None, ("queued", status.UNKNOWN)),
        ({"12_4": PENDING}, ("failed", status.LOST)),
    ],
)
def test_a_task_is_what_squeue_says(queued: Mapping[str, QueuedTask] | None, expected: tuple[str, str]) -> None:
    assert state(inferred(tasks={A.id: TASK}, queued=queued)) == expected


def test_a_task_that_runs_in_silence_says_for_how_long() -> None:
    found = inferred(tasks={A.id: TASK}, queued={"12_3": RUNNING}, progress={A.id: progress(300)})
    assert state(found) == ("running", "no heartbeat for 300 s")


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (OOM, "OUT_OF_MEMORY (used 3G of 2000M)"),
        (EndedTask("NODE_FAIL", "NODE_FAIL: its node was lost"), "NODE_FAIL: its node was lost"),
        (EndedTask("FAILED", "FAILED (exit code 1:0)"), "FAILED (exit code 1:0)"),
    ],
)
def test_a_task_that_left_failed_as_accounting_says(end: EndedTask, expected: str) -> None:
    kind, why = state(inferred(tasks={A.id: TASK}, ended={"12_3": end}))
    assert kind == "failed" and why.startswith(expected)


def test_a_task_that_completed_and_a_record_that_is_gone_since() -> None:
    end = EndedTask("COMPLETED", "COMPLETED: ended")
    assert state(inferred(tasks={A.id: TASK}, ended={"12_3": end}))[0] == "todo"


def test_a_task_that_came_before_its_parents_has_not_failed() -> None:
    tasks = {B.id: task("13", B)}
    assert state(inferred(tasks=tasks), B)[0] == "todo"
    assert state(inferred(done=[A], tasks=tasks), B) == ("failed", status.LOST)


def test_a_failure_of_before_the_submission_is_no_failure_now() -> None:
    old, new = {A.id: failed(A, at=-200)}, {A.id: failed(A, at=-50)}
    for queued, expected in (({"12_3": PENDING}, "queued"), ({"12_3": RUNNING}, "running")):
        assert state(inferred(failures=old, tasks={A.id: TASK}, queued=queued))[0] == expected
    assert state(inferred(failures=new, tasks={A.id: TASK}, queued={"12_3": RUNNING}))[0] == "failed"
    assert "OUT_OF_MEMORY" in state(inferred(failures=old, tasks={A.id: TASK}, ended={"12_3": OOM}))[1]
    assert "ValueError" in state(inferred(failures=new, tasks={A.id: TASK}, ended={"12_3": OOM}))[1]
    assert "ValueError" in state(inferred(failures=old, tasks={A.id: TASK}))[1]  # clocks may differ


def test_cells_of_one_task_come_one_after_the_other() -> None:
    first, second, third, fourth = cells = [made_cell(name) for name in "wxyz"]
    grid = made_grid(*cells)
    pack = task("9", *cells)
    tasks = {cell.id: pack for cell in cells}
    found = inferred([first], grid, tasks=tasks, queued={"9": RUNNING}, failures={second.id: failed(second)})
    assert [one.state for one in found.cells.values()] == ["done", "failed", "running", "queued"]
    assert found.cells[fourth.id].why == "other cells of its task"
    found = inferred([first], grid, tasks=tasks, queued={"9": RUNNING}, progress={second.id: progress(1)})
    assert [one.state for one in found.cells.values()] == ["done", "running", "queued", "queued"]
    assert third.id in found.cells


def test_accounting_is_queried_only_about_what_nothing_else_explains() -> None:
    cells = [made_cell(name) for name in "stuvw"]
    tasks = {cell.id: task(f"1_{index}", cell) for index, cell in enumerate(cells)}
    found = Evidence(
        done=set(), tasks=tasks, now=NOW,
        queued={"1_0": PENDING}, progress={cells[1].id: progress(1), cells[2].id: progress(99)},
        failures={cells[3].id: failed(cells[3])},
    )  # fmt: skip
    assert found.unexplained() == {"1_2": tasks[cells[2].id], "1_4": tasks[cells[4].id]}


def test_what_is_left_follows_from_the_pace_of_this_stretch() -> None:
    assert progress(0, first=10, started=NOW - 40).seconds_left == pytest.approx(70 * 40 / 20)
    assert progress(0, first=30, started=NOW - 40).seconds_left is None  # nothing done in this stretch yet
    assert progress(0).seconds_left is None
    assert progress(0, total=0).fraction == 0.0


def test_failures_are_grouped_by_reason_whatever_names_and_numbers_they_hold() -> None:
    cells = [made_cell(f"cell{index}") for index in range(7)]
    tasks = {cell.id: task(f"5_{index}", cell) for index, cell in enumerate(cells)}
    failures = {cell.id: failed(cell, f"OSError: {cell.id} has {index} bytes") for index, cell in enumerate(cells[:4])}
    found = inferred([], made_grid(*cells), failures=failures, tasks=tasks)
    assert [len(group) for group in group_by_reason(found.of("failed"))] == [4, 3]


class Answers:
    """A Slurm that knows what it is told to know, and counts questions."""

    def __init__(self, queued: dict[str, QueuedTask] | None, ended: dict[str, EndedTask]):
        self.known, self.ends = queued, ended
        self.asked: list[Any] = []

    def queued(self) -> dict[str, QueuedTask] | None:
        self.asked.append("queue")
        return self.known

    def ended(self, jobs: Iterable[str]) -> dict[str, EndedTask]:
        if wanted := set(jobs):
            self.asked.append(wanted)
        return {job: self.ends[job] for job in wanted & self.ends.keys()}


def test_the_store_is_read_and_slurm_is_queried_once(tmp_path: Path) -> None:
    store, cells = Store(tmp_path), [made_cell(f"cell{index}") for index in range(5)]
    grid = made_grid(*cells)
    slurm = Answers({"7_1": PENDING}, {"7_2": OOM})
    assert collect_status(grid, store, {}, slurm).counts("distill") == {"todo": 5}
    assert slurm.asked == [], "nothing was submitted, so Slurm is not asked"

    tasks = {cell.id: task(f"7_{index}", cell) for index, cell in enumerate(cells[:3])}
    facts = {"done": 1, "total": 4, "pid": 1, "host": "n1", "time": time.time(), "job": "7_0"}
    heartbeat.write(store, cells[0].id, facts)
    store.fail(failed(cells[3]))
    (store.root / "heartbeats" / f"{cells[4].id}.json").write_text("{}")
    found = collect_status(grid, store, tasks, slurm)
    assert [one.state for one in found.cells.values()] == ["running", "queued", "failed", "failed", "todo"]
    assert slurm.asked == ["queue", {"7_2"}]
    assert found.cells[cells[2].id].task == tasks[cells[2].id]


def test_a_log_explains_what_accounting_does_not(tmp_path: Path) -> None:
    cell = made_cell("cell")
    lost = replace(task("7", cell), folder=tmp_path)
    lost.err.write_text(
        "slurmstepd-n1: error: StepId=7.0 exceeded memory limit (447074304 > 157286400), being killed\n"
    )
    for ends in ({}, {"7": EndedTask("FAILED", "FAILED (exit code 9:0)")}):
        found = collect_status(made_grid(cell), Store(tmp_path), {cell.id: lost}, Answers({}, ends))
        assert state(found, cell)[0] == "failed" and state(found, cell)[1].startswith("OUT_OF_MEMORY: ")


def test_the_status_of_ten_thousand_cells_takes_seconds(tmp_path: Path) -> None:
    store, cells = Store(tmp_path), [made_cell(f"cell{index}") for index in range(10_000)]
    tasks = {cell.id: task(f"7_{index}", cell) for index, cell in enumerate(cells)}
    for cell in cells[:2000]:
        heartbeat.write(store, cell.id, {"done": 1, "total": 4, "pid": 1, "host": "n1", "time": time.time()})
    slurm = Answers({f"7_{index}": PENDING for index in range(5000)}, {f"7_{index}": OOM for index in range(10_000)})
    began = time.process_time()
    found = collect_status(made_grid(*cells), store, tasks, slurm)
    assert time.process_time() - began < 3
    assert found.counts("distill") == {"running": 2000, "queued": 3000, "failed": 5000}
