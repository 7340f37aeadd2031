"""Store → entries: what a board says of every evaluate cell that was asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.api import DatasetInfo, Protocol, registry
from bench.api.augmentation import AugmentationConfig
from bench.planning import manifest, variants
from bench.planning.grid import Request
from bench.planning.plan import shared_settings
from bench.store.artifacts import Damaged, Store
from bench.store.cell import Cell, canonical, digest
from bench.store.entries import Entry
from bench.store.record import Record

_ROW = ("dataset", "method", "labels", "ipc", "student", "protocol", "protocol_version", "seed")
_RESULT = (
    "top1", "oracle_top1", "test_images", "image_bytes", "label_bytes", "label_parameters", "epochs", "images", "curve",
    "steps", "cost",
)  # fmt: skip
_NO_AUGMENTATION = ("none", False, 1, "none")


def collect(store: Store) -> dict[str, list[Entry]]:
    """Map each suite (empty: none) to one entry for each row and seed of its grids.

    The newest grid decides which cell stands there.
    """
    lookup = _Lookup(store, store.ids("failures"))
    protocols: dict[str, dict[str, Any]] = {}  # few, and each in many cells
    found: dict[str, dict[tuple[Any, ...], Entry]] = {}
    for kept in manifest.newest_first(store):
        grid, request = kept.grid, kept.grid.request
        entries = found.setdefault(request.suite, {})
        cells = {cell.id: cell for cell in grid.cells}
        for cell in grid.stage("evaluate"):
            student_seed = cell.row.get("student_seed", cell.row["seed"])
            key = (*(str(cell.row[name]) for name in _ROW), student_seed, grid.dataset.fingerprint)
            if key in entries:
                continue
            if (protocol := canonical(cell.fields["protocol"])) not in protocols:
                protocols[protocol] = _protocol_facts(cell, grid.dataset)
            facts = {"cell": cell.id, **cell.row, "state": "missing", "parents": cell.parents, **protocols[protocol]}
            facts |= {"changed": _changed(request, cell.row), "data_digest": grid.dataset.fingerprint or ""}
            entries[key] = _entry(facts, cell, cells, lookup)
    return {suite: list(entries.values()) for suite, entries in found.items()}


@dataclass(frozen=True)
class _Lookup:
    """Facts on the cells behind a student, which many of them share; each is read once."""

    store: Store
    failed: set[str]
    times: dict[str, float | None] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    code: dict[str, dict[str, str]] = field(default_factory=dict)  # cell -> plug-in -> digest of its source

    def record(self, cell_id: str) -> Record | None:
        try:
            record = self.store.record(cell_id)
        except Damaged as error:
            self.damaged[cell_id] = str(error)
            record = None
        self.times[cell_id] = None if record is None else record.run.seconds
        plugins = () if record is None else record.plugins
        self.code[cell_id] = {one.name: one.source[:10] for one in plugins if one.kind != "harness"}
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


def _protocol_facts(cell: Cell, dataset: DatasetInfo) -> dict[str, Any]:
    evaluator = registry.evaluator(cell.by)()
    try:
        protocol = evaluator.Config.model_validate(cell.fields["protocol"])
    except ValidationError:  # of a release whose protocols had other fields
        return {"metric": evaluator.metric}
    plan = evaluator.schedule(protocol, dataset, ipc=1, seed=0).plan
    named = {*Protocol.model_fields, *AugmentationConfig.model_fields}
    return {
        "metric": evaluator.metric,
        "augmented": (plan.crop, plan.flip, plan.shuffle, plan.mix) != _NO_AUGMENTATION,
        "recipe": digest(protocol.model_dump(mode="json", exclude=named)),
    }


def _changed(request: Request, row: dict[str, Any]) -> dict[str, Any]:
    """Choices beyond the names of the grid, as far as they concern a row; of a checkpoint only its file's name."""
    via = row.get("via", "")
    concerned: tuple[str, ...] = tuple(request.overrides)
    if row["ipc"] is None:
        concerned = ("protocol",)
    elif via:
        concerned = (variants.read(via).method, *shared_settings())
    settings = sorted(
        f"{name}.{key}={_argument(value)}"
        for name in concerned
        for key, value in request.overrides.get(name, {}).items()
    )
    changed: dict[str, Any] = {"set": settings} if settings else {}
    if ":" in request.dataset:  # as it was typed: its name alone says not where it lies
        changed["dataset"] = request.dataset
    if row["ipc"] is not None:
        changed |= {"clip": request.clip} if request.clip else {}
        files = {"teacher": request.teacher, "teacher_trajectory": request.teacher_trajectory}
        changed |= {flag: ",".join(map(_without_folder, texts)) for flag, texts in files.items() if texts}
    return changed


def _without_folder(text: str) -> str:
    """``resnet18=folder/r18.pth`` → ``resnet18=r18.pth``."""
    arch, equals, place = text.rpartition("=")
    return arch + equals + Path(place).name


def _argument(value: Any) -> str:
    """Value as ``--set`` reads it: JSON, or else plain text."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return canonical(value)


def _entry(facts: dict[str, Any], cell: Cell, cells: dict[str, Cell], lookup: _Lookup) -> Entry:
    classes = facts.pop("classes")
    lineage = _lineage(cell, cells)
    record = lookup.record(cell.id)
    for member in lineage:
        if lookup.seconds(member.id) is None and (failure := lookup.failure(member.id)) is not None:
            reason = failure.error if member is cell else f"{member.id}: {failure.error}"
            facts |= {"state": "failed", "reason": reason}
    damaged = {member.id: lookup.damaged[member.id] for member in lineage if member.id in lookup.damaged}
    if record is None:
        return Entry(**facts, damaged=tuple(damaged.values()))
    result = record.result
    seconds: dict[str, float] = {}
    for member in lineage:
        if (took := lookup.seconds(member.id)) is not None:
            seconds[member.stage] = seconds.get(member.stage, 0.0) + took
    measured = {
        "state": "done",
        "reason": None,
        "public": record.public,
        "data_digest": record.data_digest,
        "overlap": record.overlap,
        "full_label_bytes": None if facts["ipc"] is None else _full_label_bytes(result, classes),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "environment": record.run.environment,
        "plugin_digests": {name: code for member in lineage for name, code in lookup.code[member.id].items()},
        "peak_memory": record.run.peak_memory,
        **{name: result[name] for name in _RESULT if name in result},
    }
    try:
        return Entry(**(facts | measured), damaged=tuple(damaged.values()))
    except ValidationError as error:  # a number that can't be
        first = error.errors(include_url=False)[0]
        wrong = f"cells/{cell.id}/record.json: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        return Entry(**(facts | {"state": "missing", "reason": None}), damaged=(*damaged.values(), wrong))


def _full_label_bytes(result: dict[str, Any], classes: int) -> int | None:
    """Bytes of fp16 labels of every view: as the evaluator says, or by its epochs and images; else None."""
    if "full_label_bytes" in result or not {"epochs", "images"} <= result.keys():
        return result.get("full_label_bytes")
    return int(result["epochs"] * result["images"] * classes * 2)


def _lineage(cell: Cell, cells: dict[str, Cell]) -> list[Cell]:
    """Cell and its ancestors, once each; itself last."""
    found: dict[str, Cell] = {}

    def visit(member: Cell) -> None:
        for parent in member.parents.values():
            if parent not in found:
                visit(cells[parent])
        found[member.id] = member

    visit(cell)
    return list(found.values())
