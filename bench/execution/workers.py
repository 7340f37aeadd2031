"""The processes that compute cells for :mod:`bench.execution.local`: one by one, or in teams that share a cell.

Each ends with its parent. SIGTERM, SIGUSR1 and the parent's end let it save its work first.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from typing import Any

from bench import stopping
from bench.errors import UserError
from bench.execution.heartbeat import record_death
from bench.execution.jobs import Options
from bench.planning.grid import Grid
from bench.store.artifacts import Store
from bench.store.cell import Cell

WARNINGS = (signal.SIGTERM, signal.SIGUSR1)
DIED = "the worker process died (killed, or out of memory)"
_SAVING = 20.0  # seconds in which a process that is asked to stop may save its work
_TICK = 0.5  # seconds between two looks at a team

# A server without threads imports torch once, and every worker is a fork of it: a threaded launcher can't be forked.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["bench.execution.worker"])


def end(processes: Sequence[BaseProcess]) -> None:
    """Ask processes to save their work and end; kill those that take too long, and all on a second Ctrl-C."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _SAVING
    try:
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.join()


def begin(devices: str | None) -> None:
    """Initialise a worker process: its accelerators; save and end when warned, or with the parent; no Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in WARNINGS:
        signal.signal(number, lambda *_: _stop())
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    _stop()


_at_work = threading.Event()


def _stop() -> None:
    """Stop this process once its work is saved; at once without work."""
    stopping.ask()
    threading.Timer(_SAVING if _at_work.is_set() else 0.0, os._exit, (1,)).start()


def compute(grid: Grid, cell: Cell, options: Options, team: tuple[str | None, int] | None) -> str:
    """Compute a cell in a process of the pool, alone or with a team of (accelerators, processes)."""
    _at_work.set()
    try:
        return run(grid, cell, options) if team is None else _lead(grid, cell, options, *team)
    except stopping.Stopped:
        os._exit(1)
    finally:
        _at_work.clear()


def run(grid: Grid, cell: Cell, options: Options) -> str:
    from bench.execution.worker import run_cell  # imports torch

    return run_cell(grid, cell, options)


def _lead(grid: Grid, cell: Cell, options: Options, devices: str | None, processes: int) -> str:
    """Start the processes of a team and return the outcome of their cell; one that fails ends the others."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(found.getsockname()[1]), "WORLD_SIZE": str(processes)}
    outcomes = context.SimpleQueue()
    ranks = [
        context.Process(target=_member, args=(rank, group, devices, grid, cell, options, outcomes))
        for rank in range(processes)
    ]
    for process in ranks:
        process.start()
    while any(process.exitcode is None for process in ranks):
        wait_for([process.sentinel for process in ranks if process.exitcode is None], timeout=_TICK)
        if stopping.asked():
            end(ranks)
        elif any(process.exitcode for process in ranks):  # the others may wait for it
            for process in ranks:
                process.kill()
    if stopping.asked():
        raise stopping.Stopped
    told = dict(outcomes.get() for _ in iter(outcomes.empty, True))
    if UserError in told:
        raise UserError(told[UserError])
    if any(process.exitcode for process in ranks) and "failed" not in told.values():
        record_death(Store(options.store), cell, DIED)
        return "failed"
    return "failed" if "failed" in told.values() else str(told[0])


def _member(
    rank: int, group: dict[str, str], devices: str | None, grid: Grid, cell: Cell, options: Options, outcomes: Any
) -> None:
    """Compute a cell as one of a team."""
    begin(devices)
    os.environ.update(group, RANK=str(rank), LOCAL_RANK=str(rank))
    _at_work.set()
    from bench.execution.worker import team_member  # imports torch

    code = 1
    try:
        with team_member(options):
            outcomes.put((rank, outcome := run(grid, cell, options)))
            if outcome == "failed":
                os._exit(code)  # not by way of the group, where the others may wait for ever
        code = 0
    except UserError as error:
        outcomes.put((UserError, str(error)))
    except stopping.Stopped:
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)
