"""Two runs compared: their configuration, environment and results.

A run is a cell with its ancestry, or an entry of a board, which knows less. Where two cells are made from different
ones, their ancestry is followed down to the cells whose own configuration differs: those decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.store.entries import Entry
from bench.store.record import Record

Flat = Mapping[str, Any]

# the place of a run on a board, the weightiest first
ROW = {
    "dataset": "the data set", "method": "the method", "labels": "the labels", "ipc": "the images per class",
    "protocol": "the protocol", "protocol_version": "the protocol's version", "student": "the student",
    "student_seed": "the student's seed", "seed": "the seed",
}  # fmt: skip


@dataclass(frozen=True)
class RunView:
    """Everything known of one run; ``configuration`` is its own, without that of its parents."""

    id: str
    kind: Literal["cell", "entry"]
    stage: str
    state: str
    configuration: Flat
    row: Flat
    parents: Mapping[str, str]  # role -> id
    environment: Mapping[str, str]
    metrics: Flat
    inputs: Mapping[str, str] = field(default_factory=dict)  # parent id -> digest of what was read
    files: Mapping[str, str] = field(default_factory=dict)  # path -> digest
    content: str | None = None  # digest of results and files
    parent: Callable[[str], RunView | None] = field(default=lambda _: None, repr=False)

    @classmethod
    def of_record(cls, record: Record, lookup: Callable[[str], Record | None]) -> RunView:
        """View a cell; ``lookup`` finds the records of its parents."""
        cell, run = record.cell, record.run
        own = {"stage": cell.stage, "computed by": cell.by, "version": cell.version}
        return cls(
            record.id, "cell", cell.stage, record.state,
            configuration={**own, **flat(cell.fields, "fields"), **flat(cell.call, "call")},
            row=_row(cell.row), parents=cell.parents, environment=run.environment,
            metrics=flat(record.result) | {"seconds": run.seconds, "peak_memory": run.peak_memory},
            inputs=record.inputs, files={path: facts.sha256[:16] for path, facts in record.files.items()},
            content=record.content if record.state == "done" else None,
            parent=lambda one: None if (found := lookup(one)) is None else cls.of_record(found, lookup),
        )  # fmt: skip

    @classmethod
    def of_entry(cls, entry: Entry) -> RunView:
        """View an entry of a board."""
        facts = entry.model_dump(mode="json")
        names = ("top1", "oracle_top1", "image_bytes", "label_bytes", "peak_memory")
        return cls(
            entry.cell, "entry", "evaluate", entry.state,
            configuration=flat(entry.changed, "changed") | {name: facts[name] for name in ("epochs", "images")},
            row=_row(facts), parents=entry.parents, environment=entry.environment,
            metrics={name: facts[name] for name in names}
            | {**flat(facts["curve"], "curve"), "seconds": entry.seconds.get("evaluate")},
        )  # fmt: skip


@dataclass(frozen=True)
class Change:
    """A value that differs; None where a run has none."""

    name: str
    a: Any
    b: Any

    @property
    def delta(self) -> float | None:
        """B - a of two numbers."""
        if any(isinstance(one, bool) or not isinstance(one, int | float) for one in (self.a, self.b)):
            return None
        return float(self.b - self.a)


@dataclass(frozen=True)
class Level:
    """The differences at one place of the ancestry; ``path`` is the roles that lead there, empty for the two runs."""

    path: tuple[str, ...]
    a: str
    b: str
    stage: str
    configuration: tuple[Change, ...]
    environment: tuple[Change, ...]
    artifacts: tuple[Change, ...]
    metrics: tuple[Change, ...]
    absent: str = ""  # why the comparison ends here


def compare(a: RunView, b: RunView) -> tuple[tuple[Change, ...], tuple[Level, ...]]:
    """Return the changes of the row, and the levels that differ: the two runs first, every pair of cells once."""
    return changes(a.row, b.row, shared=a.kind != b.kind), tuple(_levels(a, b, (), set()))


def changes(a: Flat, b: Flat, shared: bool = False) -> tuple[Change, ...]:
    """Return the changes in the order of ``a``, then ``b``; with ``shared`` those of names in both."""
    names = [name for name in dict.fromkeys([*a, *b]) if not shared or (name in a and name in b)]
    return tuple(Change(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name))


def _levels(a: RunView, b: RunView, path: tuple[str, ...], seen: set[tuple[str, str]]) -> Iterator[Level]:
    seen.add((a.id, b.id))
    absent: list[str] = []
    below: list[Level] = []
    for role in sorted(a.parents.keys() & b.parents.keys()):
        one, other = a.parents[role], b.parents[role]
        if (one == other and a.inputs.get(one) == b.inputs.get(other)) or (one, other) in seen:
            continue
        mine, theirs = a.parent(one), b.parent(other)
        if mine is not None and theirs is not None:
            below += _levels(mine, theirs, (*path, role), seen)
        elif one != other:
            absent.append(one if mine is None else other)
    mixed = a.kind != b.kind
    mine_from, theirs_from = (
        {f"made from {role}": parent for role, parent in sorted(run.parents.items())} for run in (a, b)
    )
    yield Level(
        path, a.id, b.id, a.stage,
        configuration=changes(a.configuration, b.configuration, mixed) + changes(mine_from, theirs_from, mixed),
        environment=changes(a.environment, b.environment),
        artifacts=() if mixed else changes(a.files, b.files),
        metrics=changes(a.metrics, b.metrics, mixed),
        absent=f"{', '.join(absent)} can't be looked at: not in the store" if absent else "",
    )  # fmt: skip
    yield from below


def _row(facts: Flat) -> Flat:
    found = {name: facts[name] for name in ROW if name in facts}
    if found and found.get("student_seed") is None:
        found["student_seed"] = found["seed"]  # one student per set, with its seed
    return found


def flat(value: Any, start: str = "") -> dict[str, Any]:
    """Nested plain values as one level: ``{"plan": {"seed": 1}}`` → ``{"plan.seed": 1}``; lists by position."""
    if isinstance(value, Mapping):
        pairs = [(f"{start}.{key}".removeprefix("."), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple):
        pairs = [(f"{start}[{index}]", inner) for index, inner in enumerate(value)]
    else:
        return {start: value}
    return {name: leaf for key, inner in pairs for name, leaf in flat(inner, key).items()}
