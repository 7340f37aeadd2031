"""Store → entries: what a board says of every evaluate cell that was asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from bench.api import DatasetInfo, Protocol, registry
from bench.api.augmentation import AugmentationConfig
from bench.planning import manifest, variants
from bench.planning.grid import Request
from bench.planning.plan import shared_settings
from bench.report_legacy.entries import Entry
from bench.store.artifacts import Damaged, Store
from bench.store.cell import Cell, canonical, digest
from bench.store.record import Record

_ROW = ("dataset", "method", "labels", "ipc", "student", "protocol", "protocol_version", "seed")
_RESULT = (
    "top1",
    "oracle_top1",
    "image_bytes",
    "label_bytes",
    "label_parameters",
    "epochs",
    "images",
    "curve",
    "steps",
    "cost",
)


def collect(store: Store, suite: str | None = "") -> list[Entry]:
    """One entry for each (row, seed) of the grids of a store that belong to a suite, or to none (""), or of all
    (None); the newest grid decides which cell stands there."""
    looked_up = _LookedUp(store, store.ids("failures"))
    recipes = _Recipes()
    found: dict[tuple[Any, ...], Entry] = {}
    for kept in manifest.newest_first(store):
        if suite is not None and kept.grid.request.suite != suite:
            continue
        cells = {cell.id: cell for cell in kept.grid.cells}
        for cell in kept.grid.stage("evaluate"):
            student_seed = cell.row.get("student_seed", cell.row["seed"])
            key = (*(str(cell.row[name]) for name in _ROW), student_seed)
            if key not in found:
                facts = {
                    "cell": cell.id,
                    **{key: value for key, value in cell.row.items() if key != "protocol_digest"},
                    "state": "missing",
                    "parents": cell.parents,
                }
                facts |= {"changed": _changed(kept.grid.request, cell.row)}
                facts |= recipes.facts(cell, kept.grid.dataset)
                found[key] = _entry(facts, cell, cells, looked_up)
    return list(found.values())


@dataclass(frozen=True)
class _LookedUp:
    """What entries say of the cells behind a student, which many of them share: read once, and no more of it kept than
    that, because a store may hold very many."""

    store: Store
    failed: set[str]
    times: dict[str, float | None] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def record(self, cell_id: str) -> Record | None:
        try:
            record = self.store.record(cell_id)
        except Damaged as error:
            self.damaged[cell_id] = str(error)
            record = None
        self.times[cell_id] = None if record is None else record.run.seconds
        return record

    def seconds(self, cell_id: str) -> float | None:
        """None: the cell is not done."""
        if cell_id not in self.times:
            self.record(cell_id)
        return self.times[cell_id]

    def failure(self, cell_id: str) -> Record | None:
        if cell_id not in self.failed:
            return None
        failure = self.store.failure(cell_id)
        if failure is None:
            self.damaged[cell_id] = f"failures/{cell_id}.json: it can't be read"
        return failure


class _Recipes:
    """Protocols without what sets them apart in name or augmentation; few, and each in many cells."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}

    def facts(self, cell: Cell, dataset: DatasetInfo) -> dict[str, Any]:
        text = canonical(cell.fields["protocol"])
        if text not in self.known:
            self.known[text] = self._facts(cell, dataset)
        return self.known[text]

    @staticmethod
    def _facts(cell: Cell, dataset: DatasetInfo) -> dict[str, Any]:
        evaluator = registry.evaluator(cell.by)()
        try:
            protocol = evaluator.Config.model_validate(cell.fields["protocol"])
        except ValidationError:  # of a release whose protocols had other fields
            return {"recipe": "", "augmented": True, "metric": evaluator.metric}
        plan = evaluator.schedule(protocol, dataset, ipc=1, seed=0).plan
        augmented = (plan.crop, plan.flip, plan.shuffle, plan.mix) != ("none", False, 1, "none")
        apart = {*Protocol.model_fields, *AugmentationConfig.model_fields}
        recipe = digest(protocol.model_dump(mode="json", exclude=apart))
        return {"recipe": recipe, "augmented": augmented, "metric": evaluator.metric}


def _changed(request: Request, row: dict[str, Any]) -> dict[str, Any]:
    """What was asked for beyond the names of the grid, as far as it concerns a row. Of a checkpoint only the name of
    its file is kept: where it lay says nothing on another machine."""
    changed: dict[str, Any] = {}
    via = row.get("via", "")
    if row["ipc"] is None:
        concerned: tuple[str, ...] = ("protocol",)
    else:
        concerned = (variants.read(via).method, *shared_settings()) if via else tuple(request.overrides)
    if settings := sorted(
        f"{name}.{key}={_argument(value)}"
        for name in concerned
        for key, value in request.overrides.get(name, {}).items()
    ):
        changed["set"] = settings
    if row["ipc"] is None:
        return changed
    if request.clip:
        changed["clip"] = request.clip
    if request.teacher:
        changed["teacher"] = request.teacher.name
    return changed


def _argument(value: Any) -> str:
    """A value as ``--set`` reads it: JSON, or else plain text."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return canonical(value)


def _entry(facts: dict[str, Any], cell: Cell, cells: dict[str, Cell], looked_up: _LookedUp) -> Entry:
    classes = facts.pop("classes")
    lineage = _lineage(cell, cells)
    record = looked_up.record(cell.id)
    for member in lineage:
        if looked_up.seconds(member.id) is None and (failure := looked_up.failure(member.id)) is not None:
            reason = failure.error if member is cell else f"{member.id}: {failure.error}"
            facts |= {"state": "failed", "reason": reason}
    facts["damaged"] = tuple(looked_up.damaged[member.id] for member in lineage if member.id in looked_up.damaged)
    if record is None:
        return Entry(**facts)
    result = record.result
    seconds: dict[str, float] = {}
    for member in lineage:
        if (took := looked_up.seconds(member.id)) is not None:
            seconds[member.stage] = seconds.get(member.stage, 0.0) + took
    facts |= {
        "state": "done",
        "reason": None,
        "public": record.public,
        "full_label_bytes": None if facts["ipc"] is None else _full_label_bytes(result, classes),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "environment": record.run.environment,
        "peak_memory": record.run.peak_memory,
        **{name: result[name] for name in _RESULT if name in result},
    }
    return Entry(**facts)


def _full_label_bytes(result: dict[str, Any], classes: int) -> int | None:
    """What fp16 labels of every view would weigh: as the evaluator says, or by its epochs and images; else None."""
    if "full_label_bytes" in result or not {"epochs", "images"} <= result.keys():
        return result.get("full_label_bytes")
    return int(result["epochs"] * result["images"] * classes * 2)


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
