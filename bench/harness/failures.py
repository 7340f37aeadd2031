"""The record of a cell that could not tell itself what went wrong."""

from __future__ import annotations

from datetime import UTC, datetime

from bench.harness.environment import environment
from bench.harness.identity import Cell
from bench.harness.options import Options
from bench.harness.record import Record, RunFacts
from bench.harness.store import Store


def note_death(cell: Cell, options: Options, reason: str) -> None:
    """Note a cell as failed on behalf of a worker that is gone."""
    store = Store(options.store)
    facts = RunFacts(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        peak_memory=0,
        environment=environment(options.device, options.threads),
    )
    store.fail(Record(id=cell.id, cell=cell, state="failed", run=facts, error=reason))
    store.still(cell.id)
