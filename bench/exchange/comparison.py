"""Two outcomes that may be compared: a cell's record with its ancestry, or an entry of a board, which knows less."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.store.entries import Entry
from bench.store.record import Record

Flat = dict[str, Any]
Lookup = Callable[[str], "Side | None"]

# what a board's row is called in an answer; the order is that of weight
ROW = {
    "dataset": "the data set",
    "method": "the method",
    "labels": "the labels",
    "ipc": "the images per class",
    "protocol": "the protocol",
    "protocol_version": "the protocol's version",
    "student": "the student",
    "student_seed": "the student's seed",
    "seed": "the seed",
}


@dataclass(frozen=True)
class Side:
    """One outcome. ``own`` is what was asked of the cell itself, flat; ``made`` its files, path -> digest."""

    id: str
    kind: str  # "cell" or "entry": two of a kind have the same keys
    stage: str
    state: str
    own: Flat
    row: Flat
    parents: Mapping[str, str]  # role -> id
    inputs: Mapping[str, str]  # parent id -> digest of what was read
    environment: Mapping[str, str]
    made: Mapping[str, str]
    metrics: Flat
    content: str | None  # digest of results and files
    parent: Lookup = field(repr=False)


@dataclass(frozen=True)
class Change:
    """A value that is not the same on both sides; None where a side has none."""

    name: str
    a: Any
    b: Any

    @property
    def delta(self) -> float | None:
        """b - a of two numbers."""
        numbers = (int, float)
        if isinstance(self.a, bool) or not isinstance(self.a, numbers) or not isinstance(self.b, numbers):
            return None
        return float(self.b - self.a)


@dataclass(frozen=True)
class Level:
    """What differs at one place of the ancestry; ``path`` is the roles that lead there, empty for the two."""

    path: tuple[str, ...]
    a: str
    b: str
    stage: str
    configuration: tuple[Change, ...]
    environment: tuple[Change, ...]
    artifacts: tuple[Change, ...]
    metrics: tuple[Change, ...]
    absent: str = ""  # why nobody could look further


def of_record(record: Record, lookup: Callable[[str], Record | None]) -> Side:
    """A cell's side; ``lookup`` finds the records of its parents."""

    def parent(cell_id: str) -> Side | None:
        found = lookup(cell_id)
        return None if found is None else of_record(found, lookup)

    cell = record.cell
    own = {"stage": cell.stage, "computed by": cell.by, "version": cell.version}
    return Side(
        id=record.id,
        kind="cell",
        stage=cell.stage,
        state=record.state,
        own={**own, **flat(cell.fields, "fields."), **flat(cell.call, "call.")},
        row=_row(cell.row),
        parents=cell.parents,
        inputs=record.inputs,
        environment=record.run.environment,
        made={path: facts.sha256[:16] for path, facts in record.files.items()},
        metrics=flat(record.result) | {"seconds": record.run.seconds, "peak_memory": record.run.peak_memory},
        content=record.content if record.state == "done" else None,
        parent=parent,
    )


def of_entry(entry: Entry) -> Side:
    """The side of an entry of a board."""
    facts = entry.model_dump(mode="json")
    metrics = {name: facts[name] for name in ("top1", "oracle_top1", "image_bytes", "label_bytes", "peak_memory")}
    return Side(
        id=entry.cell,
        kind="entry",
        stage="evaluate",
        state=entry.state,
        own=flat(entry.changed, "changed.") | {name: facts[name] for name in ("epochs", "images")},
        row=_row(facts),
        parents=entry.parents,
        inputs={},
        environment=entry.environment,
        made={},
        metrics={**metrics, **flat(list(entry.curve), "curve"), "seconds": entry.seconds.get("evaluate")},
        content=None,
        parent=lambda _: None,
    )


def _row(facts: Mapping[str, Any]) -> Flat:
    found = {name: facts[name] for name in ROW if name in facts}
    if found and found.get("student_seed") is None:
        found["student_seed"] = found["seed"]  # one student a set, of its seed
    return found


def flat(value: Any, start: str = "") -> Flat:
    """Nested plain values as one level: ``{"plan": {"seed": 1}}`` → ``{"plan.seed": 1}``; lists by position."""
    if isinstance(value, Mapping):
        pairs: Iterator[tuple[str, Any]] = ((f"{start}{key}", inner) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        pairs = ((f"{start}[{index}]", inner) for index, inner in enumerate(value))
    else:
        return {start.rstrip("."): value}
    found: Flat = {}
    for name, inner in pairs:
        found |= flat(inner, f"{name}." if isinstance(inner, Mapping) else name)
    return found
