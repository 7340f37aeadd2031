"""Store → entries: what a board says of every requested evaluate cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from bench.api import DatasetInfo, Protocol, registry
from bench.api.augmentation import AugmentationConfig
from bench.api.config import first_problem
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
    "steps", "cost", "full_label_bytes",
)  # fmt: skip
_NO_AUGMENTATION = ("none", False, 1, "none")


def collect(store: Store) -> dict[str, list[Entry]]:
    """Map each suite (empty: none) to one entry for each row and seed of its grids.

    The newest grid decides which cell stands there.
    """
    known = _Records(store)
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
            entries[key] = _entry(facts, _lineage(cell, cells), known)
    return {suite: list(entries.values()) for suite, entries in found.items()}


class _Made(NamedTuple):
    """A finished cell: seconds, digests of code and settings by plug-in, contents of its parents and its own."""

    seconds: float
    code: dict[str, str]
    settings: dict[str, dict[str, Any]]
    inputs: dict[str, str]
    content: str


class _Records:
    """Records of cells, which many students share; each is read once. ``damaged``: what is wrong with one."""

    def __init__(self, store: Store):
        self.store, self.failed = store, store.ids("failures")
        self.damaged: dict[str, str] = {}
        self.facts: dict[str, _Made | None] = {}

    def read(self, cell: Cell) -> Record | None:
        """Record of a finished cell; keeps its seconds, and the code and settings of its plug-ins."""
        record = None
        try:
            record = self.store.record(cell.id)
        except Damaged as error:
            self.damaged[cell.id] = str(error)
        own = [one for one in record.plugins if one.kind != "harness"] if record else []
        settings = {one.name: one.settings for one in own if one.kind == "method"}
        code = {one.name: one.source[:10] for one in own}
        self.facts[cell.id] = (
            None if record is None else _Made(record.run.seconds, code, settings, record.inputs, record.content)
        )
        return record

    def changed(self, made: _Made, parent: str) -> bool:
        """Check for a cell that was made from other content of a parent, which is read already, than there is now."""
        now = self.facts[parent]
        return now is not None and made.inputs.get(parent, now.content) != now.content

    def failure(self, cell: Cell) -> Record | None:
        failure = self.store.failure(cell.id) if cell.id in self.failed else None
        if failure is None and cell.id in self.failed:
            self.damaged[cell.id] = f"failures/{cell.id}.json: it can't be read"
        return failure


def _protocol_facts(cell: Cell, dataset: DatasetInfo) -> dict[str, Any]:
    evaluator = registry.evaluator(cell.by)()
    try:
        protocol = evaluator.Config.model_validate(cell.fields["protocol"])
        plan = evaluator.schedule(protocol, dataset, ipc=1, seed=0).plan
    except ValidationError:  # of a release whose protocols had other fields
        return {"metric": evaluator.metric}
    named = {*Protocol.model_fields, *AugmentationConfig.model_fields}
    return {
        "metric": evaluator.metric,
        "augmented": (plan.crop, plan.flip, plan.shuffle, plan.mix) != _NO_AUGMENTATION,
        "recipe": digest(protocol.model_dump(mode="json", exclude=named, exclude_defaults=True)),
    }


def _changed(request: Request, row: dict[str, Any]) -> dict[str, Any]:
    """Choices beyond the names of the grid, as far as they concern a row; of a checkpoint only its file's name."""
    concerned: tuple[str, ...] = tuple(request.overrides)
    if row["ipc"] is None:
        concerned = ("protocol",)
    elif via := row.get("via", ""):
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


def _entry(facts: dict[str, Any], lineage: list[Cell], known: _Records) -> Entry:
    """Entry of the last cell of a lineage."""
    cell, classes, record = lineage[-1], facts.pop("classes"), known.read(lineage[-1])
    measured: dict[str, Any] = {"seconds": {}, "plugin_digests": {}, "plugin_settings": {}}
    for member in lineage:
        if member.id not in known.facts:
            known.read(member)
        if made := known.facts[member.id]:
            measured["seconds"][member.stage] = measured["seconds"].get(member.stage, 0.0) + made.seconds
            measured["plugin_digests"] |= made.code
            measured["plugin_settings"] |= made.settings
            if stale := [parent for parent in member.parents.values() if known.changed(made, parent)]:
                known.damaged[member.id] = f"cells/{member.id}: made from another {stale[0]} than is there now"
                record = None
        elif failure := known.failure(member):
            reason = failure.error if member is cell else f"{member.id}: {failure.error}"
            facts |= {"state": "failed", "reason": reason}
    damaged = tuple(known.damaged[member.id] for member in lineage if member.id in known.damaged)
    if record is None:
        return Entry(**facts, damaged=damaged)
    result = record.result
    if facts["ipc"] is not None and {"epochs", "images"} <= result.keys():  # in fp16, of every view
        measured["full_label_bytes"] = int(result["epochs"] * result["images"] * classes * 2)
    measured |= {name: result[name] for name in _RESULT if name in result}
    measured |= {"public": record.public, "peak_memory": record.run.peak_memory}
    measured |= {"data_digest": record.data_digest or facts["data_digest"], "overlap": record.overlap}
    measured |= {"environment": record.run.environment, "state": "done", "reason": None}
    measured["seconds"] = {stage: round(value, 3) for stage, value in measured["seconds"].items()}
    try:
        return Entry(**(facts | measured), damaged=damaged)
    except ValidationError as error:  # a number that can't be
        wrong = f"cells/{cell.id}/record.json: {first_problem(error)}"
        return Entry(**(facts | {"state": "missing", "reason": None}), damaged=(*damaged, wrong))


def _lineage(cell: Cell, cells: dict[str, Cell]) -> list[Cell]:
    """Ancestors of a cell, once each, and itself last."""
    found: dict[str, Cell] = {}
    for parent in cell.parents.values():
        found |= {member.id: member for member in _lineage(cells[parent], cells)}
    return [*found.values(), cell]
