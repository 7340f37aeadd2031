"""Store → entries: what a board says of every evaluate cell that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.harness import manifest
from bench.harness.identity import Cell
from bench.harness.record import Record
from bench.harness.report.entries import Entry
from bench.harness.store import Damaged, Store

_ROW = ("dataset", "method", "labels", "ipc", "student", "protocol", "protocol_version", "seed")


def collect(store: Store) -> list[Entry]:
    """One entry for each (row, seed) of all grids of a store; the newest grid decides which cell stands there."""
    looked_up = _LookedUp(store, store.ids("failures"), {})
    found: dict[tuple[Any, ...], Entry] = {}
    for kept in manifest.newest_first(store):
        cells = {cell.id: cell for cell in kept.grid.cells}
        for cell in kept.grid.stage("evaluate"):
            key = tuple(str(cell.row[name]) for name in _ROW)
            if key not in found:
                found[key] = _entry(cell, cells, looked_up)
    return list(found.values())


@dataclass(frozen=True)
class _LookedUp:
    """What entries say of the cells behind a student, which many of them share: read once, and no more of it kept than
    that, because a store may hold very many."""

    store: Store
    failed: set[str]
    times: dict[str, float | None]

    def record(self, cell_id: str) -> Record | None:
        try:
            record = self.store.record(cell_id)
        except Damaged:
            record = None
        self.times[cell_id] = None if record is None else record.run.seconds
        return record

    def seconds(self, cell_id: str) -> float | None:
        """None: the cell is not done."""
        if cell_id not in self.times:
            self.record(cell_id)
        return self.times[cell_id]

    def failure(self, cell_id: str) -> Record | None:
        return self.store.failure(cell_id) if cell_id in self.failed else None


def _entry(cell: Cell, cells: dict[str, Cell], looked_up: _LookedUp) -> Entry:
    row = dict(cell.row)
    classes = row.pop("classes")
    facts: dict[str, Any] = {"cell": cell.id, **row, "state": "missing"}
    lineage = _lineage(cell, cells)
    record = looked_up.record(cell.id)
    for member in lineage:
        if looked_up.seconds(member.id) is None and (failure := looked_up.failure(member.id)) is not None:
            reason = failure.error if member is cell else f"{member.id}: {failure.error}"
            facts |= {"state": "failed", "reason": reason}
    if record is None:
        return Entry(**facts)
    result = record.result
    seconds: dict[str, float] = {}
    for member in lineage:
        if (took := looked_up.seconds(member.id)) is not None:
            seconds[member.stage] = seconds.get(member.stage, 0.0) + took
    full = row["ipc"] is None
    return Entry(
        **{
            **facts,
            "state": "done",
            "reason": None,
            "top1": result["top1"],
            "oracle_top1": result["oracle_top1"],
            "image_bytes": result["image_bytes"],
            "label_bytes": result["label_bytes"],
            "public": record.public,
            "full_label_bytes": None if full else result["epochs"] * result["images"] * classes * 2,
            "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "environment": record.run.environment,
        }
    )


def _lineage(cell: Cell, cells: dict[str, Cell]) -> list[Cell]:
    """A cell and everything it stands on, once each; itself last."""
    found: dict[str, Cell] = {}

    def visit(member: Cell) -> None:
        for parent in member.parents.values():
            if parent not in found:
                visit(cells[parent])
        found[member.id] = member

    visit(cell)
    return list(found.values())
