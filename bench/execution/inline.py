"""Run one cell after the other in this process: for tests, tutorials and debuggers."""

from __future__ import annotations

import time

from bench.execution.options import Options
from bench.execution.scheduling import Schedule, Watcher

_PAUSE = 0.5  # seconds before another try at a cell that another run computes


def run(schedule: Schedule, options: Options, watcher: Watcher) -> None:
    """Work off a schedule.

    Raises:
        UserError: from a cell; the run stops there.
    """
    from bench.execution.worker import run_cell  # imports torch

    while not schedule.over:
        moved = False
        for cell in schedule.ready():
            schedule.state[cell.id] = "running"
            watcher.update(schedule)
            outcome = run_cell(schedule.grid, cell, options)
            schedule.settle(cell, outcome)
            moved |= outcome not in ("busy", "blocked")
            if outcome not in ("busy", "blocked"):
                break  # children of this cell may be ready, and their stage may come first
        watcher.update(schedule)
        if not moved:
            time.sleep(_PAUSE)
