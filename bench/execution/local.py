"""Run cells on this machine: in a pool of processes that live as long as the run, or in this process.

A slot of the pool is a process with an accelerator of its own, or on CPUs alone. A cell that ``processes`` can share
takes as many slots. A process that dies (out of memory, killed) costs its cell alone: the cell is recorded as failed,
and a new process takes its place. SIGTERM and SIGUSR1 let cells in flight save their work and stop.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from bench import stopping
from bench.api import registry
from bench.errors import UserError
from bench.execution import workers
from bench.execution.environment import Options, accelerators
from bench.execution.heartbeat import record_death
from bench.execution.scheduling import Schedule, Watcher, pass_of, shareable
from bench.planning.grid import Grid
from bench.store.artifacts import Store
from bench.store.cell import Cell

_TICK = 0.5  # seconds between two looks
_BUSY_PAUSE = 2.0  # seconds before another try at a cell that another run computes
_DIED = "the worker process died (killed, or out of memory)"


def count_slots(grid: Grid, options: Options, jobs: int | None = None, processes: int = 1) -> int:
    """Return how many slots a run has: ``jobs``, else accelerators, else cores; one where time is measured.

    Raises:
        UserError: fewer accelerators than ``processes`` that are to share a cell.
    """
    devices = accelerators(options.device)
    if devices and processes > devices:
        raise UserError(f"--processes {processes}: each needs an accelerator of its own, and {devices} are here")
    if jobs is None:
        timed = any(registry.evaluator(name).exclusive for name in {cell.by for cell in grid.stage("evaluate")})
        jobs = 1 if timed else devices or len(os.sched_getaffinity(0)) // options.threads
    return max(processes, min(jobs, devices) if devices and processes > 1 else jobs)


def run(schedule: Schedule, options: Options, jobs: int, watcher: Watcher, processes: int = 1) -> None:
    """Work off a schedule in ``jobs`` slots.

    Args:
        processes: how many share a cell that can be shared.

    Raises:
        UserError: from a cell; the others in flight are stopped, finished cells are kept.
    """
    devices = 0 if ":" in options.device else accelerators(options.device)
    changes = [{"device": f"cuda:{slot % devices}"} if devices else {} for slot in range(jobs)]
    own = [options.model_copy(update=change) for change in changes]
    pools: dict[int, ProcessPoolExecutor] = {}  # slot -> its process
    running: dict[str, tuple[Cell, dict[int, Future[str]]]] = {}  # cell -> slot -> the work there
    resting: dict[str, float] = {}  # busy cells -> when to try again
    try:
        with stopped_by(_interrupt):
            while not schedule.over:
                now = time.monotonic()
                free = [slot for slot in range(jobs) if all(slot not in team for _, team in running.values())]
                passes = {pass_of(cell) for cell, _ in running.values()} - {None}
                for cell in [cell for cell in schedule.ready() if resting.get(cell.id, 0) <= now]:
                    if (views := pass_of(cell)) in passes:
                        continue  # its labels are being made along
                    size = min(processes, jobs) if shareable(cell) else 1
                    if size > len(free):
                        break  # smaller cells don't overtake: a team would wait for ever
                    slots, free = free[:size], free[size:]
                    schedule.state[cell.id] = "running"
                    passes |= {views} - {None}
                    team = {}
                    for slot, group in zip(slots, _groups(size), strict=True):
                        pools[slot] = pools.get(slot) or workers.pool()
                        team[slot] = pools[slot].submit(workers.compute, schedule.along(cell), cell, own[slot], group)
                    running[cell.id] = cell, team
                watcher.update(schedule)
                at_work = [future for _, team in running.values() for future in team.values() if not future.done()]
                if at_work:
                    wait(at_work, timeout=_TICK, return_when=FIRST_COMPLETED)
                else:
                    time.sleep(_TICK)
                for cell, team in list(running.values()):
                    if (outcome := _outcome(list(team.values()))) is None:
                        continue
                    del running[cell.id]
                    if outcome in ("died", "team failed"):
                        workers.end(workers.processes_of([pools.pop(slot) for slot in team]), seconds=0)
                        if outcome == "died":
                            record_death(Store(options.store), cell, _DIED)
                        outcome = "failed"
                    if outcome in ("busy", "blocked"):
                        resting[cell.id] = time.monotonic() + _BUSY_PAUSE
                    schedule.settle(cell, outcome)
            watcher.update(schedule)
    finally:
        workers.end(workers.processes_of(list(pools.values())))  # a cell in flight goes on from its checkpoint


def run_inline(schedule: Schedule, options: Options, watcher: Watcher) -> None:
    """Work off a schedule in this process, one cell after the other: for tests, tutorials and debuggers.

    Raises:
        UserError: from a cell; the run stops there.
    """
    from bench.execution.worker import run_cell  # imports torch

    with stopped_by(stopping.ask):
        while not schedule.over:
            progressed = False
            for cell in schedule.ready():
                schedule.state[cell.id] = "running"
                watcher.update(schedule)
                outcome = run_cell(schedule.along(cell), cell, options)
                schedule.settle(cell, outcome)
                if progressed := outcome not in ("busy", "blocked"):
                    break  # children of this cell may be ready, and their stage may come first
            watcher.update(schedule)
            if not progressed:
                time.sleep(_TICK)


@contextmanager
def stopped_by(react: Callable[[], None]) -> Iterator[None]:
    """React to SIGTERM and SIGUSR1 for the time of the context; elsewhere than in a main thread, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: react()) for number in workers.WARNINGS}
    try:
        yield
    except stopping.Stopped:
        raise KeyboardInterrupt from None
    finally:
        stopping.forget()
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _groups(size: int) -> list[dict[str, str]]:
    """Return the variables of each member of a team, see :mod:`bench.kit.distributed`."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    return [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def _outcome(team: Sequence[Future[str]]) -> str | None:
    """Return the outcome of a cell; None while it is computed.

    Raises:
        UserError: from the cell.
    """
    found = []
    for future in team:
        if future.done():
            try:
                found.append(future.result())
            except BrokenProcessPool:
                found.append("died")
            except workers.TeamFailed:
                return "team failed"
    return "died" if "died" in found else found[0] if len(found) == len(team) else None
