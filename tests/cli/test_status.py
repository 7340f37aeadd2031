"""What people see of a run, and how they steer it: status, logs, cancel, retry; Slurm's answers are made up."""

from __future__ import annotations

import io
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.api import catalogue
from bench.cli import launch, main, screen
from bench.cli.retry import with_descendants
from bench.execution import heartbeat
from bench.execution.environment import Options
from bench.planning import manifest
from bench.planning.grid import Grid, Request
from bench.slurm import queue
from bench.slurm.journal import Journal, Run, last_tasks
from bench.slurm.status import GridStatus, collect_status
from bench.store.artifacts import Store
from bench.store.cell import Cell, Stage
from bench.store.record import Record, RunFacts
from tests.conftest import command, environment

Say = Callable[..., str]


def made(name: str, stage: Stage, *parents: Cell) -> Cell:
    roles = {str(index): parent.id for index, parent in enumerate(parents)}
    return Cell(stage=stage, by="rded", version=1, fields={"name": name}, parents=roles, prefix=name)


IMAGES = [made(f"images-{index}", "distill") for index in range(3)]
STUDENTS = [made(f"student-{index}-of-{image.prefix}", "evaluate", image) for image in IMAGES for index in range(20)]


class Slurm:
    """What the commands of Slurm answer, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.queue: list[str] = []
        self.accounting: list[str] = []
        self.cancelled: list[str] = []
        monkeypatch.setattr(queue, "run_command", self._run)

    def _run(self, *command: str, timeout: float = 0) -> str:
        if command[0] == "scancel":
            self.cancelled += command[1:]
            self.queue = [line for line in self.queue if line.partition("|")[0] not in command]
        return "\n".join({"squeue": self.queue, "sacct": self.accounting}.get(command[0], []))


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    return Slurm(monkeypatch)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in which a grid was asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("DISTILL_BENCH_STORE", raising=False)
    store = Store(tmp_path / ".bench")
    manifest.keep(store, the_grid())
    return store


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command and returns what it prints."""

    def run(*arguments: str, code: int = 0) -> str:
        assert main(arguments) == code, capsys.readouterr()
        told = capsys.readouterr()
        return told.out + told.err

    return run


def look(grid: Grid, store: Store) -> GridStatus:
    return collect_status(grid, store, last_tasks(store), queue.ThrottledSlurm())


def the_grid() -> Grid:
    request = Request(methods=("rded",))
    return Grid(request=request, dataset=catalogue.dataset("digits"), cells=(*IMAGES, *STUDENTS))


def fail(store: Store, cell: Cell, error: str = "ValueError: no images today") -> None:
    facts = RunFacts(
        started=datetime.now(UTC).isoformat(timespec="seconds"), seconds=1.0, peak_memory=1, environment={}
    )
    store.fail(Record(id=cell.id, cell=cell, state="failed", run=facts, error=error, traceback="Traceback: deep\n"))


def finish(store: Store, cell: Cell, seconds: float = 1.0) -> None:
    facts = RunFacts(started="2026-01-01T00:00:00+00:00", seconds=seconds, peak_memory=1, environment={})
    with store.draft(cell.id) as draft:
        store.commit(draft, Record(id=cell.id, cell=cell, state="done", run=facts))


def submit(store: Store, job: str, *packs: list[Cell], **options: Any) -> Journal:
    chosen = Options(store=store.root, device="cpu", **options)
    here = Journal.create(store, Run(grid="grid", dataset="digits", options=chosen, profile=None, out=store.root))
    ids = [[cell.id for cell in pack] for pack in packs]
    here.append("submitting", stage=packs[0][0].stage, tasks=len(packs))
    here.append("submitted", stage=packs[0][0].stage, job=job, packs=ids, after=None)
    return here


def pending(job: str, reason: str = "Resources") -> str:
    return f"{job}|PENDING|{reason}||bench-x"


def test_status_shows_what_is_done_running_queued_and_failed(store: Store, slurm: Slurm, say: Say) -> None:
    finish(store, IMAGES[0])
    now = time.time()
    beat = {
        "done": 25,
        "total": 100,
        "metrics": {},
        "pid": 7,
        "host": "n1",
        "time": now,
        "started": now - 50,
        "first": 0,
    }
    heartbeat.write(store, IMAGES[1].id, {**beat, "job": "11_1"})
    submit(store, "11", [IMAGES[0]], [IMAGES[1]], [IMAGES[2]])
    slurm.queue = [pending("11_2")]
    shown = say("status")
    (line,) = (line.split() for line in shown.splitlines() if IMAGES[1].id in line)
    assert line == [IMAGES[1].id, "━━╸", "25%", "2", "min", "30", "s", "left", "n1,", "job", "11_1"]
    assert "queued: 1; waiting for Resources (1)" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith(("distill", "evaluate"))] == [
        ["distill", "━━━━━", "1", "1", "1", "·"],
        ["evaluate", "·", "·", "·", "60"],
    ]


def test_many_failures_are_a_few_lines(store: Store, slurm: Slurm, say: Say) -> None:
    for image in IMAGES:
        finish(store, image)
    for index, student in enumerate(STUDENTS[:59]):
        fail(store, student, f"RuntimeError: [rank{index}] ran out of luck")
    assert "bench logs" not in say("status", code=1)  # local runs leave none
    here = submit(store, "12", *([student] for student in STUDENTS))
    slurm.accounting = ["12_59|OUT_OF_MEMORY|0:125|n1||2000M", "12_59.0|OUT_OF_MEMORY|0:125|n1|3000M|"]
    shown = say("status", code=1)
    assert len(shown.splitlines()) < 25 and "bench logs CELL: its log" in shown
    assert "59 × RuntimeError: [rank0] ran out of luck" in shown
    assert "… and 56 more" in shown
    assert "1 × OUT_OF_MEMORY (used 3000M of 2000M)" in shown and STUDENTS[59].id in shown
    (cell,) = [
        one for one in json.loads(say("status", "--json", code=1))["grids"][0]["cells"] if "OUT_OF" in one["why"]
    ]
    assert cell["err"] == str(here.folder / "12_59_0_log.err")


def test_json_is_one_line_with_every_cell(store: Store, slurm: Slurm, say: Say) -> None:
    fail(store, IMAGES[0])
    facts = {"done": 1, "total": 4, "metrics": {"loss": float("nan")}, "pid": 7, "host": "n1", "time": time.time()}
    heartbeat.write(store, IMAGES[1].id, facts)
    text = say("status", "--json", code=1)
    assert len(text.splitlines()) == 1 and "NaN" not in text
    (grid,) = json.loads(text)["grids"]
    assert len(grid["cells"]) == 63
    assert grid["counts"]["evaluate"] == {"done": 0, "running": 0, "queued": 0, "failed": 0, "blocked": 20, "todo": 40}
    first, second = grid["cells"][:2]
    assert (first["state"], first["why"], first["job"]) == ("failed", "ValueError: no images today", None)
    assert (second["state"], second["done"], second["total"], second["process"]) == ("running", 1, 4, 7)


@pytest.mark.parametrize("columns", [80, 120])
def test_nothing_is_wider_than_the_screen(
    columns: int, store: Store, slurm: Slurm, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for image in IMAGES:
        finish(store, image)
    for student in STUDENTS[:30]:
        heartbeat.write(
            store, student.id, {"done": 1, "total": 4, "pid": 7, "host": "a-node-with-a-name", "time": time.time()}
        )
    fail(store, STUDENTS[40], "ValueError: " + "word " * 40)
    shown = say("status", code=1)
    assert max(map(len, shown.splitlines())) <= columns
    assert "… and 10 more" in shown


def test_one_grid_or_all(store: Store, slurm: Slurm, say: Say) -> None:
    small = the_grid().model_copy(update={"cells": tuple(IMAGES[:1])})
    manifest.keep(store, small)
    assert say("status").count("cells, requested") == 1
    assert small.id in say("status") and the_grid().id in say("status", "--grid", the_grid().id[:11])
    assert say("status", "--all").count("cells, requested") == 2
    assert "unknown grid 'digitz' (did you mean" in say("status", "--grid", "digitz", code=2)


def test_watching_ends_when_nothing_is_left(
    store: Store, slurm: Slurm, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = {"done": 1, "total": 4, "pid": 7, "host": "n1", "time": time.time()}
    heartbeat.write(store, IMAGES[0].id, beat)
    naps = iter([lambda: None, lambda: heartbeat.clear(store, IMAGES[0].id)])
    monkeypatch.setattr(time, "sleep", lambda _: next(naps)())
    monkeypatch.setattr(screen, "LINE_EVERY", 0.0)
    shown = say("status", "--watch")
    assert shown.count("cells, requested") == 2  # at first and at last
    assert "UTC  distill 0/3  evaluate 0/60  1 running, 0 queued" in shown

    heartbeat.write(store, IMAGES[0].id, beat)

    def interrupted(_: float) -> Iterator[None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    assert "running: 1" in say("status", "--watch")


def test_a_follower_reads_the_heartbeats_it_shows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.execution.scheduling import Schedule

    schedule = Schedule(the_grid(), {cell.id: "running" for cell in the_grid().cells})
    for cell in the_grid().cells:
        heartbeat.write(store, cell.id, {"done": 1, "total": 4, "pid": 7, "host": "n1", "time": time.time()})
    read: list[str] = []
    real = heartbeat.read
    monkeypatch.setattr(heartbeat, "read", lambda store, cell_id: [read.append(cell_id), real(store, cell_id)][1])
    monkeypatch.setattr(screen, "LINE_EVERY", 0.0)
    out = screen.console()
    with out.capture() as told:
        screen.LiveRun(store, out).update(schedule)
    assert f"distill 0/3  evaluate 0/60  now: {IMAGES[0].id} 25%;" in told.get()
    assert "and 43 more" in told.get() and len(read) == 20


def test_a_terminal_shows_a_line_with_the_time_left_per_running_cell(store: Store) -> None:
    from rich.console import Console

    from bench.execution.scheduling import Schedule

    schedule = Schedule(the_grid(), dict.fromkeys((cell.id for cell in the_grid().cells), "todo"))
    for image in IMAGES[:2]:
        schedule.state[image.id] = "running"
    now = time.time()
    facts = {"done": 25, "total": 100, "pid": 7, "host": "n1", "time": now, "started": now - 50, "first": 0}
    heartbeat.write(store, IMAGES[0].id, facts)
    out = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100, height=40)
    with screen.LiveRun(store, out) as live:
        live.update(schedule)
    assert isinstance(out.file, io.StringIO)
    lines = [line.split() for line in out.file.getvalue().splitlines()]
    assert [IMAGES[0].id, "━━╸", "25%", "2", "min", "30", "s", "left"] in lines
    assert [IMAGES[1].id, "0%"] in lines
    assert any("distill" in line and line[-2:] == ["2", "1"] for line in lines), "running, to do"


def test_the_time_left_of_a_run_follows_from_cells_like_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.execution.scheduling import Schedule

    seeds = [made(f"images-{label}-s{seed}", "distill") for label in "ab" for seed in range(4)]
    for cell in seeds:  # alike are cells whose fields and prefixes differ in seeds alone
        cell.fields.update(name=cell.prefix[:8], seed=int(cell.prefix[-1]))
    grid = the_grid().model_copy(update={"cells": tuple(seeds)})
    schedule = Schedule(grid, dict.fromkeys((cell.id for cell in seeds), "todo"))
    monkeypatch.setattr(screen, "LINE_EVERY", 0.0)
    out = screen.console()
    live = screen.LiveRun(store, out, jobs=2)

    def line(seconds: float, *done: Cell, display: screen.LiveRun = live) -> str:
        for cell in done:
            finish(store, cell, seconds)
            schedule.settle(cell, "done")
        with out.capture() as told:
            display.update(schedule)
        return told.get().partition("  now: ")[0].partition("/8")[2]

    assert line(0) == "", "nothing like it has run"
    assert line(600, seeds[0]) == "  at least 15 min left", (
        "3 x 10 min, two in parallel; of the others nothing is known"
    )
    assert line(3600, seeds[4]) == "  about 1 h 45 min left"
    assert line(0, display=screen.LiveRun(store, out)) == "", "how many run in parallel is not known"
    schedule.state[seeds[5].id] = "running"
    now = time.time()
    facts = {"done": 25, "total": 100, "pid": 7, "host": "n1", "time": now, "started": now - 3590, "first": 0}
    heartbeat.write(store, seeds[5].id, facts)
    assert line(0) == "  about 3 h 00 min left", "a cell at its own pace, longer than all others on the other job"
    terminal = screen.Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100, height=40)
    with screen.LiveRun(store, terminal, jobs=1) as live:
        live.update(schedule)
    assert isinstance(terminal.file, io.StringIO)
    assert " s so far, about 5 h 30 min left; Ctrl-C stops" in terminal.file.getvalue()
    assert live.like.left([IMAGES[0], seeds[5]], {seeds[5].id: 59.0}, 1) == "", "at least 0 min"
    assert live.like.left([seeds[5]], {seeds[5].id: 59.0}, 1) == "about 1 min left"


def test_logs_of_a_task_and_of_none(store: Store, slurm: Slurm, say: Say) -> None:
    here = submit(store, "13", [IMAGES[0], IMAGES[1]], [IMAGES[2]])
    (here.folder / "13_0_0_log.out").write_text("one\ntwo\nthree\n")
    (here.folder / "13_0_0_log.err").write_text("slurmstepd: killed\n")
    shown = say("logs", "images-0")
    assert shown.startswith("one\ntwo\nthree\n")
    assert "13_0_0_log.out, of job 13_0, which it shares with 1 other cell" in shown
    assert say("logs", IMAGES[1].id, "-n", "1").startswith("three\n")
    assert say("logs", "images-1*", "--err").startswith("slurmstepd: killed\n")
    assert "job 13_1 has not started" in say("logs", IMAGES[2].id, code=1)
    assert "is the beginning of" in say("logs", "images", code=2)
    assert "expected one cell" in say("logs", "images-*", code=2)
    assert "did you mean" in say("logs", IMAGES[0].id[:-1] + "#", code=2)
    for index in range(60):
        finish(store, STUDENTS[index])
    assert "; expected one of 63 ids, a glob or a stage" in say("logs", "nosuch", code=2)
    fail(store, STUDENTS[0])
    shown = say("logs", STUDENTS[0].id)
    assert shown.startswith("Traceback: deep\n") and "a run without Slurm leaves no logs" in shown


def test_a_log_is_followed_until_its_task_is_over(
    store: Store, slurm: Slurm, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = submit(store, "13", [IMAGES[0]])
    log = here.folder / "13_0_log.out"
    slurm.queue = [pending("13")]

    def begins() -> None:
        log.write_text("one\n")

    def grows() -> None:
        with log.open("a") as stream:
            stream.write("two\n")
        slurm.queue = []

    naps = iter([begins, grows])
    monkeypatch.setattr(time, "sleep", lambda _: next(naps)())
    monkeypatch.setattr(queue.ThrottledSlurm, "queued", lambda _: queue.queued())
    assert say("logs", "images-0", "--follow").startswith("one\ntwo\n")


def test_cancel_says_what_it_takes_along(store: Store, slurm: Slurm, say: Say) -> None:
    assert "Ctrl-C" in say("cancel", "--all")
    here = submit(store, "13", [IMAGES[0], IMAGES[1]], [IMAGES[2]])
    there = submit(store, "14", *([student] for student in STUDENTS))
    slurm.queue = [pending("13_0"), pending("13_1"), *(pending(f"14_{index}") for index in range(1, 60))]
    shown = say("cancel", "images-1")
    assert slurm.cancelled == ["13_0"]
    assert f"cancelled job 13_0 (pending): {IMAGES[0].id} and 1 more of the same task" in shown
    assert [event["jobs"] for event in here.events() if event["event"] == "cancelled"] == [["13_0"]]
    assert not [event for event in there.events() if event["event"] == "cancelled"]
    assert f"unknown cell or stage '{STUDENTS[0].id}'" in say("cancel", STUDENTS[0].id, code=2), "it is not queued"
    assert "40 jobs cancelled, 40 cells to do again" in say("cancel", "student-*-of-images-[12]-*")
    assert "19 jobs cancelled" in say("cancel", "evaluate")
    slurm.queue = [pending("13_1")]
    slurm.cancelled.clear()
    assert "1 job cancelled, 1 cell to do again" in say("cancel", "--all")
    assert slurm.cancelled == ["13_1"]
    submit(store, "15", *([student] for student in STUDENTS))
    slurm.queue = [pending(f"15_{index}") for index in range(60)]
    assert len(say("cancel", "--all").splitlines()) == 22
    assert "or --all for everything" in say("cancel", code=2)


def test_what_was_cancelled_is_to_do_again(store: Store, slurm: Slurm, say: Say) -> None:
    submit(store, "13", [IMAGES[0]], [IMAGES[1]])
    slurm.queue = [pending("13_0"), pending("13_1")]
    say("cancel", IMAGES[0].id)
    slurm.queue = [pending("13_1")]
    assert list(last_tasks(store)) == [IMAGES[1].id]
    cells = json.loads(say("status", "--json"))["grids"][0]["cells"]
    assert [cell["state"] for cell in cells[:3]] == ["todo", "queued", "todo"]
    shown = say("retry", "--failed")
    assert "nothing failed in " in shown and "; 63 cells not done, with which the same bench run goes on" in shown


@pytest.fixture
def retried(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is handed on to be computed."""
    calls: list[dict[str, Any]] = []

    def compute(out: Any, grid: Grid, arguments: Any, **more: Any) -> int:
        calls.append({"grid": grid.id, **vars(arguments), **more})
        return 0

    monkeypatch.setattr(launch, "compute", compute)
    monkeypatch.setattr(launch, "preflight", lambda grid, _, only: calls.append({"checked": set(only)}))
    return calls


def test_retry_takes_what_failed_and_what_stands_on_it(
    store: Store, slurm: Slurm, say: Say, retried: list[dict[str, Any]]
) -> None:
    assert (
        "cells not done, with which the same bench run goes on" in (said := say("retry")) and "nothing failed" in said
    )
    assert retried == []
    finish(store, IMAGES[1])
    fail(store, IMAGES[0])
    fail(store, STUDENTS[20])
    assert f"{the_grid().id}: 2 failed cells, 20 more depend on them" in say("retry")
    assert retried.pop(0)["checked"] == retried[0]["only"]
    assert retried[0]["only"] == {IMAGES[0].id, STUDENTS[20].id, *(student.id for student in STUDENTS[:20])}
    assert (retried[0]["device"], retried[0]["threads"]) == ("auto", 1)
    say("retry", "evaluate")
    retried.pop(1)
    assert retried[1]["only"] == {STUDENTS[20].id}
    assert "none of the named cells is among the 2 that failed" in say("retry", IMAGES[2].id)
    both = made("both", "evaluate", IMAGES[0], IMAGES[2])
    grid = the_grid().model_copy(update={"cells": (*the_grid().cells, both)})
    fail(store, IMAGES[2])
    for chosen, more in ((IMAGES[:1], False), ((IMAGES[0], IMAGES[2]), True)):
        assert (both.id in with_descendants(look(grid, store), {image.id for image in chosen})) is more
    assert "unknown cell or stage 'evaluat'" in say("retry", "evaluat", code=2)
    assert len(retried) == 2


def test_retry_asks_slurm_for_more_and_otherwise_as_before(
    store: Store, slurm: Slurm, say: Say, retried: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(store, "13", [IMAGES[0]], threads=3, data_root=Path("/data"))
    slurm.accounting = ["13|OUT_OF_MEMORY|0:125|n1||2000M"]
    assert "--memory and --minutes are for Slurm" in say("retry", "--memory", "64", code=2)
    monkeypatch.setattr(queue, "available", lambda: True)
    say("retry", "--memory", "64", "--minutes", "90", "--device", "cuda")
    _, call = retried
    assert (call["device"], call["threads"], call["data_root"]) == ("cuda", 3, Path("/data"))
    asked = call["profile"].resources_of("default", "distill")
    assert (asked.memory_gb, asked.minutes) == (64.0, 90)
    assert "expected gigabytes above 0" in say("retry", "--memory", "-1", code=2)


@pytest.mark.parametrize("how", [[], ["--json"], ["--watch"]])
def test_a_pipe_that_closes_is_no_error(store: Store, how: list[str]) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", *command(["status", *how])],
        cwd=store.root.parent, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == "" and done.returncode == 0
