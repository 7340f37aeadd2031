"""The record of a cell that could not tell itself what went wrong."""

from __future__ import annotations

from datetime import UTC, datetime

from bench.execution.environment import code
from bench.store.artifacts import Store
from bench.store.cell import Cell
from bench.store.record import Record, RunFacts


def note_death(store: Store, cell: Cell, reason: str, log: str | None = None) -> None:
    """Note a cell as failed on behalf of a worker that is gone.

    Args:
        reason: one line.
        log: the last it had to say.
    """
    facts = RunFacts(
        started=datetime.now(UTC).isoformat(timespec="seconds"), seconds=0.0, peak_memory=0, environment=code()
    )
    store.fail(Record(id=cell.id, cell=cell, state="failed", run=facts, error=reason, traceback=log or None))
    store.still(cell.id)
