"""How cells stand, concluded from made-up heartbeats, records, queues and accounting."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.api import catalogue
from bench.execution.options import Options
from bench.planning.grid import Grid, Request
from bench.slurm import status
from bench.slurm.journal import Journal, Run, Submitted
from bench.slurm.queue import Ended, Queued
from bench.slurm.status import Beat, Evidence, Outlook, by_reason, judge, look, unexplained
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


def beaten(age: float, **facts: Any) -> Beat:
    return Beat(**{"done": 30, "total": 100, "pid": 7, "host": "n1", "time": NOW - age, **facts})


A = made_cell("a", "distill")
B = made_cell("b", "label", A)
C = made_cell("c", "evaluate", A, B)
TASK = Submitted("12_3", RUN, "distill", (A.id,))
PENDING, RUNNING = Queued("PENDING", "Resources", ""), Queued("RUNNING", "None", "n2")
OOM = Ended("OUT_OF_MEMORY", "0:125", "n1", "3G", "2000M")


def judged(done: Iterable[Cell] = (), grid: Grid | None = None, **evidence: Any) -> Outlook:
    facts = {"queued": {}, "now": NOW, "asked": {RUN: datetime.fromtimestamp(NOW - 100, UTC)}, **evidence}
    return judge(grid or made_grid(A, B, C), Evidence(done={cell.id for cell in done}, **facts))


def state(found: Outlook, cell: Cell = A) -> tuple[str, str]:
    return found.cells[cell.id].state, found.cells[cell.id].why


def test_without_any_sign_everything_is_to_do() -> None:
    found = judged()
    assert [state(found, cell)[0] for cell in (A, B, C)] == ["todo"] * 3
    assert found.over


def test_a_heartbeat_means_running_until_it_is_stale() -> None:
    found = judged(beats={A.id: beaten(59)})
    assert state(found) == ("running", "") and not found.over
    assert found.cells[A.id].host == "n1"
    kind, why = state(judged(beats={A.id: beaten(61)}))
    assert kind == "todo" and "process 7 on n1 gives no sign of life" in why


def test_what_stands_on_a_failure_is_blocked_down_to_the_last() -> None:
    found = judged(failures={A.id: failed(A)})
    assert state(found) == ("failed", "ValueError: no images today")
    assert state(found, B) == state(found, C) == ("blocked", f"stands on {A.id}")
    tasks = {B.id: Submitted("13", RUN, "label", (B.id,))}
    assert state(judged(failures={A.id: failed(A)}, tasks=tasks, queued={"13": PENDING}), B)[0] == "blocked"


@pytest.mark.parametrize(
    ("queued", "expected"),
    [
        ({"12_3": PENDING}, ("queued", "Resources")),
        ({"12_3": RUNNING}, ("running", "no sign of life yet")),
        ({"12_3": Queued("REQUEUED", "None", "")}, ("queued", "None")),
        (None, ("queued", status.UNKNOWN)),
        ({"12_4": PENDING}, ("failed", status.LOST)),
    ],
)
def test_a_task_is_what_squeue_says(queued: Mapping[str, Queued] | None, expected: tuple[str, str]) -> None:
    assert state(judged(tasks={A.id: TASK}, queued=queued)) == expected


def test_a_task_that_runs_in_silence_says_for_how_long() -> None:
    found = judged(tasks={A.id: TASK}, queued={"12_3": RUNNING}, beats={A.id: beaten(300)})
    assert state(found) == ("running", "no sign of life for 300 s")


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (OOM, "OUT_OF_MEMORY (used 3G of 2000M)"),
        (Ended("TIMEOUT", "0:0", "n1", "", ""), "TIMEOUT: it ran into its time limit"),
        (Ended("NODE_FAIL", "1:0", "n1", "", ""), "NODE_FAIL: its node was lost"),
        (Ended("PREEMPTED", "0:0", "n1", "", ""), "PREEMPTED"),
        (Ended("CANCELLED", "0:0", "n1", "", ""), "CANCELLED"),
        (Ended("FAILED", "1:0", "n1", "", ""), "FAILED (exit code 1:0)"),
    ],
)
def test_a_task_that_left_failed_as_accounting_says(end: Ended, expected: str) -> None:
    kind, why = state(judged(tasks={A.id: TASK}, ended={"12_3": end}))
    assert kind == "failed" and why.startswith(expected)


def test_a_task_that_completed_and_a_record_that_is_gone_since() -> None:
    end = Ended("COMPLETED", "0:0", "n1", "", "")
    assert state(judged(tasks={A.id: TASK}, ended={"12_3": end}))[0] == "todo"


def test_a_task_that_came_before_its_parents_has_not_failed() -> None:
    tasks = {B.id: Submitted("13", RUN, "label", (B.id,))}
    assert state(judged(tasks=tasks), B)[0] == "todo"
    assert state(judged(done=[A], tasks=tasks), B) == ("failed", status.LOST)


def test_a_failure_of_before_the_submission_is_no_failure_now() -> None:
    old, new = {A.id: failed(A, at=-200)}, {A.id: failed(A, at=-50)}
    for queued, expected in (({"12_3": PENDING}, "queued"), ({"12_3": RUNNING}, "running")):
        assert state(judged(failures=old, tasks={A.id: TASK}, queued=queued))[0] == expected
    assert state(judged(failures=new, tasks={A.id: TASK}, queued={"12_3": RUNNING}))[0] == "failed"
    assert "OUT_OF_MEMORY" in state(judged(failures=old, tasks={A.id: TASK}, ended={"12_3": OOM}))[1]
    assert "ValueError" in state(judged(failures=new, tasks={A.id: TASK}, ended={"12_3": OOM}))[1]
    assert "ValueError" in state(judged(failures=old, tasks={A.id: TASK}))[1]  # clocks may differ


def test_cells_of_one_task_come_one_after_the_other() -> None:
    first, second, third, fourth = cells = [made_cell(name) for name in "wxyz"]
    grid = made_grid(*cells)
    pack = Submitted("9", RUN, "distill", tuple(cell.id for cell in cells))
    tasks = {cell.id: pack for cell in cells}
    found = judged([first], grid, tasks=tasks, queued={"9": RUNNING}, failures={second.id: failed(second)})
    assert [one.state for one in found.cells.values()] == ["done", "failed", "running", "queued"]
    assert found.cells[fourth.id].why == "other cells of its task"
    found = judged([first], grid, tasks=tasks, queued={"9": RUNNING}, beats={second.id: beaten(1)})
    assert [one.state for one in found.cells.values()] == ["done", "running", "queued", "queued"]
    assert third.id in found.cells


def test_accounting_is_asked_only_about_what_nothing_else_explains() -> None:
    cells = [made_cell(name) for name in "stuvw"]
    tasks = {cell.id: Submitted(f"1_{index}", RUN, "distill", (cell.id,)) for index, cell in enumerate(cells)}
    found = Evidence(
        done=set(), tasks=tasks, now=NOW, asked={RUN: datetime.fromtimestamp(NOW - 100, UTC)},
        queued={"1_0": PENDING}, beats={cells[1].id: beaten(1), cells[2].id: beaten(99)},
        failures={cells[3].id: failed(cells[3])},
    )  # fmt: skip
    assert unexplained(found) == {"1_2", "1_4"}


def test_what_is_left_follows_from_the_pace_of_this_stretch() -> None:
    assert beaten(0, first=10, started=NOW - 40).seconds_left == pytest.approx(70 * 40 / 20)
    assert beaten(0, first=30, started=NOW - 40).seconds_left is None  # nothing done in this stretch yet
    assert beaten(0).seconds_left is None
    assert beaten(0, total=0).fraction == 0.0


def test_failures_are_grouped_by_reason_whatever_names_and_numbers_they_hold() -> None:
    cells = [made_cell(f"cell{index}") for index in range(7)]
    tasks = {cell.id: Submitted(f"5_{index}", RUN, "distill", (cell.id,)) for index, cell in enumerate(cells)}
    failures = {cell.id: failed(cell, f"OSError: {cell.id} has {index} bytes") for index, cell in enumerate(cells[:4])}
    found = judged([], made_grid(*cells), failures=failures, tasks=tasks)
    assert [len(group) for group in by_reason(found.of("failed"))] == [4, 3]


class Answers:
    """A Slurm that knows what it is told to know, and counts questions."""

    def __init__(self, queued: dict[str, Queued] | None, ended: dict[str, Ended]):
        self.known, self.ends = queued, ended
        self.asked: list[Any] = []

    def queued(self) -> dict[str, Queued] | None:
        self.asked.append("queue")
        return self.known

    def ended(self, jobs: Iterable[str]) -> dict[str, Ended]:
        if wanted := set(jobs):
            self.asked.append(wanted)
        return {job: self.ends[job] for job in wanted & self.ends.keys()}


def submitted(store: Store, job: str, *packs: tuple[str, ...], stage: str = "distill", grid: str = "g") -> Journal:
    """A submission of one array, as the journal keeps it."""
    asked = datetime.now(UTC).isoformat(timespec="seconds")
    options = Options(store=store.root, device="cpu", threads=3)
    here = Journal.begin(
        store, Run(asked=asked, grid=grid, dataset="digits", options=options, profile=None, out=store.root)
    )
    here.note("submitting", stage=stage, tasks=len(packs))
    here.note("submitted", stage=stage, job=job, packs=packs, after=None)
    return here


def test_look_reads_the_store_and_asks_slurm_once(tmp_path: Path) -> None:
    store, cells = Store(tmp_path), [made_cell(f"cell{index}") for index in range(5)]
    grid = made_grid(*cells)
    slurm = Answers({"7_1": PENDING}, {"7_2": OOM})
    assert look(grid, store, slurm).counts("distill") == {"todo": 5}
    assert slurm.asked == [], "nothing was submitted, so Slurm is not asked"

    here = submitted(store, "7", *((cell.id,) for cell in cells[:3]))
    beat = {"done": 1, "total": 4, "pid": 1, "host": "n1", "time": time.time(), "job": "7_0"}
    store.beat(cells[0].id, beat)
    store.fail(failed(cells[3]))
    (store.root / "heartbeats" / f"{cells[4].id}.json").write_text("{}")
    found = look(grid, store, slurm)
    assert [one.state for one in found.cells.values()] == ["running", "queued", "failed", "failed", "todo"]
    assert slurm.asked == ["queue", {"7_2"}]
    assert found.cells[cells[2].id].task == Submitted("7_2", here.folder, "distill", (cells[2].id,))


def test_ten_thousand_cells_are_looked_at_in_seconds(tmp_path: Path) -> None:
    store, cells = Store(tmp_path), [made_cell(f"cell{index}") for index in range(10_000)]
    submitted(store, "7", *((cell.id,) for cell in cells))
    for cell in cells[:2000]:
        store.beat(cell.id, {"done": 1, "total": 4, "pid": 1, "host": "n1", "time": time.time()})
    slurm = Answers({f"7_{index}": PENDING for index in range(5000)}, {f"7_{index}": OOM for index in range(10_000)})
    began = time.process_time()
    found = look(made_grid(*cells), store, slurm)
    assert time.process_time() - began < 3
    assert found.counts("distill") == {"running": 2000, "queued": 3000, "failed": 5000}
