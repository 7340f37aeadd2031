"""A task of an array, in a process of its own, as submitit runs it: outcomes, the warning of its end, and what its
children make of that. No Slurm and no torch: the worker is made up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.execution.environment import Options
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan
from bench.slurm.journal import ArrayPlan
from bench.store.artifacts import Store
from bench.store.cell import Cell

# Runs a Task as submitit does, with its signal handler, but says "requeued" instead of asking scontrol for it.
DRIVER = """
import multiprocessing, os, pathlib, signal, sys, time, types
from submitit.core import job_environment, utils
from submitit.slurm.slurm import SlurmJobEnvironment
from bench import stopping

home, plan, kind = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def child(number):
    (home / f"child-{number}").write_text(str(os.getpid()))
    while not (home / "stop children").exists():
        time.sleep(0.02)
    (home / f"child-{number} ended well").touch()

def run_cell(grid, cell, options, helps):
    if kind == "wrong":
        return {"0": "done", "1": "failed", "2": "blocked"}[cell.id.split("-")[0]]
    if kind == "broken":
        raise ZeroDivisionError("of the harness itself")
    context = multiprocessing.get_context(kind)
    children = [context.Process(target=child, args=(number,)) for number in range(2)]
    for one in children:
        one.start()
    (home / "computing").write_text(str(os.getpid()))
    while not stopping.asked():
        time.sleep(0.02)
    (home / "saved").write_text((home / "saved").read_text() + "x" if (home / "saved").exists() else "x")
    time.sleep(0.3)  # a second warning meanwhile changes nothing
    (home / "stop children").touch()
    for one in children:
        one.join()
    raise stopping.Stopped

def main():
    worker = types.ModuleType("bench.execution.worker")
    worker.run_cell = run_cell
    sys.modules["bench.execution.worker"] = worker
    from bench.slurm.task import Task
    os.environ.update(SUBMITIT_FOLDER=str(home), SLURM_JOB_ID="7", SLURM_NTASKS="1", SUBMITIT_EXECUTOR="slurm")
    delayed = utils.DelayedSubmission(Task(plan, 0))
    delayed.set_timeout(60, 3)
    env = SlurmJobEnvironment()
    env._requeue = lambda countdown: (home / "requeued").write_text(str(countdown))
    env._handle_signals(env.paths, delayed)
    delayed.result()

if __name__ == "__main__":
    main()
"""


def grid_of_three() -> Grid:
    grid = plan(Request(methods=("random_real",), ipc=(1,), seeds=(0,), baselines=False))
    cells = tuple(Cell(**{**grid.cells[0].model_dump(), "prefix": str(number)}) for number in range(3))
    return grid.model_copy(update={"cells": cells})


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    grid = grid_of_three()
    (tmp_path / "driver.py").write_text(DRIVER)
    store = Store(tmp_path / "store")
    packs = (tuple(cell.id for cell in grid.cells),)
    work = ArrayPlan(grid=grid, packs=packs, options=Options(store=store.root), processes=1, save_seconds=20.0)
    (tmp_path / "array-0.json").write_text(work.model_dump_json())

    def run(kind: str) -> subprocess.Popen[str]:
        command = [sys.executable, tmp_path / "driver.py", tmp_path, tmp_path / "array-0.json", kind]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    return run


def test_a_pack_goes_on_after_a_failure_and_ends_with_it(start: Start) -> None:
    process = start("wrong")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    cells = [cell.id for cell in grid_of_three().cells]
    assert told.strip().endswith(f"{cells[1]}: failed; {cells[2]}: blocked")


def test_an_error_of_the_harness_itself_is_no_success(start: Start) -> None:
    process = start("broken")
    log, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ZeroDivisionError: of the harness itself" in told
    assert "Traceback" in log


def awaited(path: Path, seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} didn't come"
        time.sleep(0.02)
    return path.read_text()


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_warning_to_every_process_is_answered_by_the_main_one_alone(kind: str, start: Start, tmp_path: Path) -> None:
    process = start(kind)
    awaited(tmp_path / "computing")
    if kind == "fork":  # spawned ones are warned while they start: there is no moment at which they'd mind
        awaited(tmp_path / "child-0"), awaited(tmp_path / "child-1")
    os.killpg(process.pid, signal.SIGUSR2)  # as Slurm does to a step
    awaited(tmp_path / "saved")
    os.killpg(process.pid, signal.SIGUSR2)
    process.communicate(timeout=60)
    assert process.returncode == 255, "submitit ends a task that is queued again with -1"
    assert (tmp_path / "saved").read_text() == "x"
    assert (tmp_path / "requeued").read_text() == "3", "preempted, not timed out"
    assert (tmp_path / "child-0 ended well").exists()
    assert (tmp_path / "child-1 ended well").exists()
