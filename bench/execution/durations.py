"""Expected durations of cells, from the records of the same setting under other seeds."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import mean

from bench.execution.scheduling import Schedule
from bench.store.artifacts import Damaged, Store
from bench.store.cell import Cell

_SEED = re.compile(r"-s\d+(?=-|$)")


def expected_seconds(schedule: Schedule, store: Store) -> Callable[[Cell], float | None]:
    """Return a function from a cell of the schedule to its expected seconds; None if no cell like it is done."""
    known: dict[tuple[str, str, str], list[float]] = {}
    for cell in schedule.grid.cells:
        if schedule.state[cell.id] == "done":
            try:
                record = store.record(cell.id)
            except Damaged:
                continue
            if record is not None:
                known.setdefault(_kind(cell), []).append(record.run.seconds)
    means = {kind: mean(seconds) for kind, seconds in known.items()}
    return lambda cell: means.get(_kind(cell))


def _kind(cell: Cell) -> tuple[str, str, str]:
    return cell.stage, cell.by, _SEED.sub("", cell.prefix)
