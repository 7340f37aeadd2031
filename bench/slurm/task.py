"""What runs in a task of an array: the cells of one pack, and what happens when its end is announced.

The cells are computed in a thread, so that the main thread is free to answer Slurm's warning (USR2) at once: it asks
for a stop, waits until the work is saved, and lets submitit queue the task again. The computing thread blocks the
signal, and processes started from it inherit that: whatever workers a data loader or a plug-in has, forked or
spawned, the warning reaches the main process alone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import stopping
from bench.errors import UserError
from bench.execution.failures import note_death
from bench.execution.heartbeat import log
from bench.slurm.journal import ArrayPlan, Run
from bench.store.artifacts import Store
from bench.store.cell import Cell

_PAUSE = 2.0  # seconds before looking again at a cell that somebody else computes


class Task:
    """A task of an array, as submitit carries it: a path and a number, looked up where it runs.

    It ends with an exit code other than 0 when one of its cells fails or stands on one that failed.
    """

    def __init__(self, plan: str, index: int):
        self.plan, self.index = plan, index
        self._thread: threading.Thread | None = None
        self._patience = 0.0

    def __call__(self) -> None:
        _speak()
        plan = ArrayPlan.model_validate_json(Path(self.plan).read_bytes())
        self._patience = plan.patience
        wrong: list[str] = []
        self._thread = threading.Thread(target=_compute, args=(plan, self.index, wrong), name="cells", daemon=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # threads inherit the mask they are started under
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        self._thread.join()
        if wrong:
            raise SystemExit("; ".join(wrong))

    def checkpoint(self) -> Any:
        """Save and stop; submitit calls this from its signal handler, and then queues the task again.

        What is not saved in time is lost, and gone on with from the last regular checkpoint.
        """
        from submitit.helpers import DelayedSubmission

        stopping.ask()
        if self._thread is not None:
            self._thread.join(self._patience)
        return DelayedSubmission(Task(self.plan, self.index))


def _speak() -> None:
    """What the cells say goes to the task's log."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # the root's handlers are submitit's


def _compute(plan: ArrayPlan, index: int, wrong: list[str]) -> None:
    cells = {cell.id: cell for cell in plan.grid.cells}
    cell_id = ""
    try:
        with _team(plan):
            for cell_id in plan.packs[index]:
                if (problem := _one(plan, cells[cell_id])) is not None:
                    wrong.append(f"{cell_id}: {problem}")
    except stopping.Stopped:
        log.info("stopped; what was done is saved")
    except BaseException as error:  # nobody hears of it in a thread
        log.critical("%s", cell_id, exc_info=error)
        wrong.append(f"{type(error).__name__}: {error}")


def _one(plan: ArrayPlan, cell: Cell) -> str | None:
    """Compute a cell; what went wrong, in a line."""
    from bench.execution.worker import run_cell  # imports torch

    try:
        while (outcome := run_cell(plan.grid, cell, plan.options)) == "busy":
            if stopping.asked():
                raise stopping.Stopped
            time.sleep(_PAUSE)
    except UserError as error:  # elsewhere it stops the run; here nobody looks but at the records
        note_death(Store(plan.options.store), cell, str(error))
        return str(error)
    return None if outcome in ("done", "already") else outcome


@contextmanager
def _team(plan: ArrayPlan) -> Iterator[None]:
    """Join the processes of this task, where there are several."""
    if plan.processes == 1:
        yield
        return
    from submitit.helpers import TorchDistributedEnvironment

    from bench.execution.worker import team_member

    TorchDistributedEnvironment().export(overwrite=True)
    os.environ["MASTER_ADDR"] = "127.0.0.1"  # all are on one node, whose name in Slurm need not be one in the network
    os.environ["MASTER_PORT"] = str(_port(plan.options.store))
    with team_member(plan.options):
        yield


def _port(store: Path) -> int:
    """Where the processes of a task meet: the same for all of them, and another when it is begun again. submitit's
    follows from the job's number alone, so that a port that is taken would be met at every start."""
    start = " ".join([str(store), *(os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "RESTART_COUNT"))])
    return 20_000 + zlib.crc32(start.encode()) % 12_000  # below those that Linux gives away by itself


def report(run: str) -> None:
    """The last job of a submission: the boards of its data set, from the records."""
    from bench.report import publish

    asked = Run.model_validate_json(Path(run).read_bytes())
    boards = publish.from_store(Store(asked.options.store))
    for _ in publish.update((one for one in boards if one.is_of(asked.dataset, asked.suite)), asked.out):
        pass
