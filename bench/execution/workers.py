"""The processes that compute cells for :mod:`bench.execution.local`, alone or as a team that shares one.

Each ends with its parent. SIGTERM, SIGUSR1 and the parent's end let it save its work first.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess

from bench import stopping
from bench.execution.environment import Options
from bench.planning.grid import Grid
from bench.store.cell import Cell

WARNINGS = (signal.SIGTERM, signal.SIGUSR1)
_SAVING = 20.0  # seconds in which a process that is asked to stop may save its work

# A server without threads imports torch once, and every worker is a fork of it: a threaded launcher can't be forked.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["bench.execution.worker"])
_at_work = threading.Event()


class TeamFailed(Exception):
    """A member of a team has recorded its cell as failed; the others may wait for it for ever."""


def pool() -> ProcessPoolExecutor:
    """Return a pool of one process."""
    return ProcessPoolExecutor(1, mp_context=_context, initializer=_begin)


def processes_of(pools: Sequence[ProcessPoolExecutor]) -> list[BaseProcess]:
    """Return the processes of pools that take no more work from now on."""
    found: list[BaseProcess] = [process for pool in pools for process in (pool._processes or {}).values()]
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    return found


def end(processes: Sequence[BaseProcess], seconds: float = _SAVING) -> None:
    """Ask processes to save their work and end; kill those that take too long, and all on a second Ctrl-C."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + seconds
    try:
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.join()


def compute(grid: Grid, cell: Cell, options: Options, group: Mapping[str, str]) -> str:
    """Compute a cell in a process of a pool.

    Args:
        group: the variables of the team that shares the cell, see :mod:`bench.kit.distributed`.

    Raises:
        TeamFailed: the cell failed here, and is shared.
    """
    from bench.execution.worker import run_cell, team_member  # imports torch

    os.environ.update(group)
    _at_work.set()
    try:
        with team_member(options):
            outcome = run_cell(grid, cell, options)
            if outcome == "failed" and group["WORLD_SIZE"] != "1":
                raise TeamFailed
            return outcome
    except stopping.Stopped:
        os._exit(1)
    finally:
        _at_work.clear()


def _begin() -> None:
    """Initialise a worker process: it saves and ends when warned, or with the parent, and ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in WARNINGS:
        signal.signal(number, lambda *_: _stop())
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    _stop()


def _stop() -> None:
    """Stop this process once its work is saved; at once without work."""
    stopping.ask()
    threading.Timer(_SAVING if _at_work.is_set() else 0.0, os._exit, (1,)).start()
