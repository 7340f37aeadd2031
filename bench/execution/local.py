"""Run cells on this machine: in a pool of processes that live as long as the run, or in this process.

A process of the pool that dies (out of memory, killed) costs its cell alone: the cell is recorded as failed, and a new
process takes its place. When the main process dies, its workers end by themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for

from bench.execution.heartbeat import record_death
from bench.execution.options import Options
from bench.execution.scheduling import Schedule, Watcher
from bench.planning.grid import Grid
from bench.store.artifacts import Store
from bench.store.cell import Cell

_TICK = 0.5  # seconds between two looks
_BUSY_PAUSE = 2.0  # seconds before another try at a cell that another run computes


def run(schedule: Schedule, options: Options, jobs: int, watcher: Watcher) -> None:
    """Work off a schedule with at most ``jobs`` parallel cells.

    Raises:
        UserError: from a cell; the others in flight are abandoned, finished cells are kept.
    """
    slots: list[ProcessPoolExecutor | None] = [None] * jobs
    running: dict[Future[str], tuple[int, Cell]] = {}
    resting: dict[str, float] = {}  # busy cells -> when to try again
    empty = schedule.grid.model_copy(update={"cells": ()})  # a worker gets its cell alone: grids may be large
    try:
        while not schedule.over:
            now = time.monotonic()
            waiting = [cell for cell in schedule.ready() if resting.get(cell.id, 0) <= now]
            free = [slot for slot in range(jobs) if slot not in {slot for slot, _ in running.values()}]
            for slot, cell in zip(free, waiting, strict=False):
                pool = slots[slot] or _pool(slot, options)
                slots[slot] = pool
                schedule.state[cell.id] = "running"
                running[pool.submit(_run, empty, cell, options)] = (slot, cell)
            watcher.update(schedule)
            done, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED) if running else (set(), set())
            if not running:
                time.sleep(_TICK)
            for future in done:
                slot, cell = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    slots[slot], outcome = None, "failed"
                    record_death(Store(options.store), cell, "the worker process died (killed, or out of memory)")
                if outcome in ("busy", "blocked"):
                    resting[cell.id] = time.monotonic() + _BUSY_PAUSE
                schedule.settle(cell, outcome)
        watcher.update(schedule)
    finally:
        pools = [pool for pool in slots if pool is not None]
        processes = [process for pool in pools for process in (pool._processes or {}).values()]
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()  # a cell in flight goes on from its checkpoint next time
        for process in processes:
            process.join()


def run_inline(schedule: Schedule, options: Options, watcher: Watcher) -> None:
    """Work off a schedule in this process, one cell after the other: for tests, tutorials and debuggers.

    Raises:
        UserError: from a cell; the run stops there.
    """
    while not schedule.over:
        progressed = False
        for cell in schedule.ready():
            schedule.state[cell.id] = "running"
            watcher.update(schedule)
            outcome = _run(schedule.grid, cell, options)
            schedule.settle(cell, outcome)
            if progressed := outcome not in ("busy", "blocked"):
                break  # children of this cell may be ready, and their stage may come first
        watcher.update(schedule)
        if not progressed:
            time.sleep(_TICK)


def _pool(slot: int, options: Options) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # fork and a threaded torch don't go together
    return ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(slot, options))


def _begin(slot: int, options: Options) -> None:
    """Initialise a worker process: end with the parent, leave Ctrl-C to it, and use an accelerator of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible and options.device == "auto":
        devices = visible.split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _run(grid: Grid, cell: Cell, options: Options) -> str:
    from bench.execution.worker import run_cell  # imports torch

    return run_cell(grid, cell, options)
