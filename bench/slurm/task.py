"""The work of Slurm tasks: the cells of one pack, and the reaction to the warning before a task's end.

Cells are computed in a thread, so that the main thread can react to Slurm's warning (USR2) at once: it asks for a
stop, waits until the work is saved, and lets submitit queue the task again. The computing thread blocks the signal,
and processes started from it inherit that: the warning reaches the main process alone, whatever workers a data loader
or a plug-in has, forked or spawned.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import stopping
from bench.errors import UserError
from bench.execution.heartbeat import log, record_death
from bench.slurm.journal import ArrayPlan, Run
from bench.store.artifacts import Store

_PAUSE = 2.0  # seconds before another try at a cell that another process computes


class Task:
    """Compute the cells of a task of an array; submitit pickles the path of the array's plan and the task's number.

    The exit code is not 0 if a cell fails or depends on one that failed.
    """

    def __init__(self, plan: str, index: int):
        self.plan, self.index = plan, index
        self._thread: threading.Thread | None = None
        self._save_seconds = 0.0

    def __call__(self) -> None:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # the root's handlers are submitit's
        plan = ArrayPlan.model_validate_json(Path(self.plan).read_bytes())
        self._save_seconds = plan.save_seconds
        errors: list[str] = []
        self._thread = threading.Thread(target=_compute, args=(plan, self.index, errors), name="cells", daemon=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})  # a thread inherits the mask of its creator
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        self._thread.join()
        if errors:
            raise SystemExit("; ".join(errors))

    def checkpoint(self) -> Any:
        """Save and stop; submitit calls this from its signal handler, and then queues the task again.

        Work that is not saved in time is lost since the last regular checkpoint.
        """
        stopping.ask()
        if self._thread is not None:
            self._thread.join(self._save_seconds)
        return _delayed(Task(self.plan, self.index))


@dataclass(frozen=True)
class Report:
    """Write the boards of a submission's data set from the records: its last job."""

    run: str  # the path of run.json

    def __call__(self) -> None:
        from bench.report import publish

        run = Run.model_validate_json(Path(self.run).read_bytes())
        for _ in publish.update_of_grid(Store(run.options.store), run.dataset, run.suite, run.out):
            pass

    def checkpoint(self) -> Any:
        """Start again."""
        return _delayed(self)


def _delayed(call: Any) -> Any:
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(call)


def _compute(plan: ArrayPlan, index: int, errors: list[str]) -> None:
    """Compute the cells of a pack; add the errors of those that failed, in one line each."""
    from bench.execution.worker import run_cell  # imports torch

    cells, helps = {cell.id: cell for cell in plan.grid.cells}, plan.helps[index] if plan.helps else 0.0
    grid = plan.grid.model_copy(update={"cells": tuple(cells[one] for one in plan.packs[index])})
    cell_id = ""
    try:
        with _process_group(plan):
            for cell_id in plan.packs[index]:
                try:
                    while (outcome := run_cell(grid, cells[cell_id], plan.options, helps)) == "busy":
                        if stopping.asked():
                            raise stopping.Stopped
                        time.sleep(_PAUSE)
                    if outcome not in ("done", "already", "helped"):
                        errors.append(f"{cell_id}: {outcome}")
                except UserError as error:  # elsewhere it stops the run; here only the record reaches the user
                    if not helps:
                        record_death(Store(plan.options.store), cells[cell_id], str(error))
                    errors.append(f"{cell_id}: {error}")
    except stopping.Stopped:
        log.info("stopped; all work is saved")
    except BaseException as error:  # a thread's exceptions reach nobody
        log.critical("%s", cell_id, exc_info=error)
        errors.append(f"{type(error).__name__}: {error}")


@contextmanager
def _process_group(plan: ArrayPlan) -> Iterator[None]:
    """Join the other processes of this task, if there are any."""
    if plan.processes == 1:
        yield
        return
    from submitit.helpers import TorchDistributedEnvironment

    from bench.execution.worker import team_member

    # every process sees all accelerators of the task, and takes that of its LOCAL_RANK: submitit's own choice of
    # CUDA_VISIBLE_DEVICES forgets which ones Slurm gave
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["MASTER_ADDR"] = "127.0.0.1"  # all are on one node, whose name in Slurm may not resolve
    # the port is the same for all processes of a task and another after a restart: submitit's follows from the job's
    # number alone, so that a port in use would be met again at every restart
    start = [str(plan.options.store), *(os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "RESTART_COUNT"))]
    port = 20_000 + zlib.crc32(" ".join(start).encode()) % 12_000  # below Linux's ephemeral ports
    os.environ["MASTER_PORT"] = str(port)
    with team_member(plan.options):
        yield
