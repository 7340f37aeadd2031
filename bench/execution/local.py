"""Run cells on this machine: in a pool of processes that live as long as the run, or in this process.

A slot of the pool is a process with an accelerator of its own, or on CPUs alone. A cell that ``processes`` can share
takes as many slots, and the first of them starts a team (:mod:`bench.execution.workers`). A process that dies (out of
memory, killed) costs its cell alone: the cell is recorded as failed, and a new process takes its place. SIGTERM and
SIGUSR1 let cells in flight save their work and stop.
"""

from __future__ import annotations

import os
import signal
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
from bench.execution.environment import accelerators
from bench.execution.heartbeat import record_death
from bench.execution.jobs import Options
from bench.execution.scheduling import Schedule, Watcher, shareable
from bench.planning.grid import Grid
from bench.store.artifacts import Store
from bench.store.cell import Cell

_TICK = 0.5  # seconds between two looks
_BUSY_PAUSE = 2.0  # seconds before another try at a cell that another run computes


def count_slots(grid: Grid, options: Options, jobs: int | None = None, processes: int = 1) -> int:
    """Return how many slots a run has: ``jobs``, else accelerators, else cores; one where time is measured.

    Raises:
        UserError: fewer accelerators than ``processes`` that are to share a cell.
    """
    devices = accelerators(options.device)
    if devices and processes > len(devices):
        raise UserError(f"--processes {processes}: each needs an accelerator of its own, and {len(devices)} are here")
    if jobs is None:
        timed = any(registry.evaluator(name).exclusive for name in {cell.by for cell in grid.stage("evaluate")})
        jobs = 1 if timed else len(devices) or len(os.sched_getaffinity(0)) // options.threads
    return max(processes, min(jobs, len(devices)) if devices and processes > 1 else jobs)


def run(schedule: Schedule, options: Options, jobs: int, watcher: Watcher, processes: int = 1) -> None:
    """Work off a schedule in ``jobs`` slots.

    Args:
        processes: how many share a cell that can be shared.

    Raises:
        UserError: from a cell; the others in flight are stopped, finished cells are kept.
    """
    devices = () if ":" in options.device else accelerators(options.device)
    slots: list[ProcessPoolExecutor | None] = [None] * jobs
    running: dict[Future[str], tuple[list[int], Cell]] = {}
    resting: dict[str, float] = {}  # busy cells -> when to try again
    empty = schedule.grid.model_copy(update={"cells": ()})  # a worker gets its cell alone: grids may be large
    try:
        with stopped_by(_interrupt):
            while not schedule.over:
                now = time.monotonic()
                taken = {slot for own, _ in running.values() for slot in own}
                free = [slot for slot in range(jobs) if slot not in taken]
                for cell in [cell for cell in schedule.ready() if resting.get(cell.id, 0) <= now]:
                    size = min(processes, jobs) if shareable(cell) else 1
                    if size > len(free):
                        break  # smaller cells don't overtake: a team would wait for ever
                    own, free = free[:size], free[size:]
                    pool = slots[own[0]] or _pool(_own(devices, own[:1]))
                    slots[own[0]] = pool
                    schedule.state[cell.id] = "running"
                    team = (_own(devices, own), size) if size > 1 else None
                    running[pool.submit(workers.compute, empty, cell, options, team)] = (own, cell)
                watcher.update(schedule)
                done, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED) if running else (set(), set())
                if not running:
                    time.sleep(_TICK)
                for future in done:
                    own, cell = running.pop(future)
                    try:
                        outcome = future.result()
                    except BrokenProcessPool:
                        slots[own[0]], outcome = None, "failed"
                        record_death(Store(options.store), cell, workers.DIED)
                    if outcome in ("busy", "blocked"):
                        resting[cell.id] = time.monotonic() + _BUSY_PAUSE
                    schedule.settle(cell, outcome)
            watcher.update(schedule)
    finally:
        pools = [pool for pool in slots if pool is not None]
        started = [process for pool in pools for process in (pool._processes or {}).values()]
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        workers.end(started)  # a cell in flight goes on from its checkpoint next time


def run_inline(schedule: Schedule, options: Options, watcher: Watcher) -> None:
    """Work off a schedule in this process, one cell after the other: for tests, tutorials and debuggers.

    Raises:
        UserError: from a cell; the run stops there.
    """
    with stopped_by(stopping.ask):
        while not schedule.over:
            progressed = False
            for cell in schedule.ready():
                schedule.state[cell.id] = "running"
                watcher.update(schedule)
                outcome = workers.run(schedule.grid, cell, options)
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


def _own(devices: Sequence[str], slots: Sequence[int]) -> str | None:
    """Return CUDA_VISIBLE_DEVICES for a process of these slots; None where there is no choice of accelerators."""
    return ",".join(devices[slot % len(devices)] for slot in slots) if devices else None


def _pool(devices: str | None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=workers.context, initializer=workers.begin, initargs=(devices,))
