"""What a board knows of one evaluate cell, and ``<dataset>.records.jsonl``, the file that keeps it.

The file holds one entry a line as canonical JSON, in the order of the board, so that the same entries are the
same bytes. Importing this module imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from bench.api import BaseConfig
from bench.errors import UserError
from bench.store.cell import canonical
from bench.store.record import BackboneFacts
from bench.store.upgrades import ENTRIES, upgraded

SCHEMA_VERSION = 1  # raise it with what an entry holds, and say in bench.store.upgrades how an older one becomes so
SHOWN = 60  # characters of a line that can't be read

Fraction = Annotated[float, Field(ge=0, le=1)]
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Cost(BaseConfig):
    """What training a student takes, of evaluators that measure that: see ``evaluators.efficiency``."""

    batch_size: Annotated[int, Field(ge=1)]
    iterations: Annotated[int, Field(ge=1)]  # that were timed
    seconds_per_iteration: Seconds  # median of the blocks
    milliseconds_per_image: Seconds  # the same, and the extremes of the blocks:
    fastest: Seconds
    slowest: Seconds
    times_bare: Seconds  # over a loop without views and soft labels
    accelerator_bytes: Bytes | None  # None: there was none
    host_bytes: Bytes


class Entry(BaseConfig):
    """One evaluate cell: where it stands on the board, how it went and what stands behind it."""

    schema_version: Literal[1] = 1
    cell: str
    dataset: str
    title: str  # of the data set
    method: str  # who made the images
    labels: str  # which labels the student learned from: "projector", "teacher", "hard", ...
    asked: str = ""  # the choice of --labels that brought it; empty: it rides along
    via: str = ""  # the name in --methods that brought it; empty: not known
    ipc: Annotated[int, Field(ge=1)] | None  # None: the whole training set
    student: str
    protocol: str
    protocol_version: int
    seed: int  # of the distilled set
    student_seed: int | None = None  # None: the same
    state: Literal["done", "failed", "missing"]
    reason: str | None = None  # of a failure
    metric: str = "top-1"  # what its evaluator measures; "cost" has no accuracy
    cost: Cost | None = None
    top1: Fraction | None = None  # last epoch
    oracle_top1: Fraction | None = None  # best epoch on the test set
    image_bytes: Bytes | None = None
    label_bytes: Bytes | None = None
    label_parameters: Annotated[int, Field(ge=0)] | None = None  # of the model that labels; None: it stores answers
    public: tuple[BackboneFacts, ...] = ()
    full_label_bytes: Bytes | None = None  # fp16 labels of every view: epochs · images · classes · 2, of all steps
    seconds: dict[str, Seconds] = Field(default_factory=dict)  # stage -> wall time of its cells
    environment: dict[str, str] = Field(default_factory=dict)
    curve: tuple[tuple[int, Fraction], ...] = ()  # (epoch, top-1), as far as it was tested
    steps: tuple[tuple[int, Fraction], ...] = ()  # where classes arrive in steps: (classes seen, top-1 on these)
    epochs: int | None = None
    images: int | None = None  # how many the student learned from
    parents: dict[str, str] = Field(default_factory=dict)  # role ("images", "labels") -> cell
    peak_memory: Bytes | None = None  # of the student: resident on the CPU, allocated on an accelerator
    recipe: str = ""  # a digest of the protocol without its name and its augmentation
    augmented: bool = True  # did the student see anything but the images as they are?
    damaged: tuple[str, ...] = ()  # what is wrong with records of this cell and of what stands behind it
    # Beyond the names: {"set": ["hello.conv_rank=4"], "clip": "icon-clip", "teacher": "resnet18.pth"}
    changed: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _done_means_measured(self) -> Entry:
        if self.state == "done" and self.top1 is None and self.cost is None:
            raise ValueError(f"{self.cell} is done but has neither top1 nor cost")
        return self

    @property
    def row(self) -> tuple[Any, ...]:
        """The board's row this entry belongs to; sorts boards by protocol, IPC (full data last) and names."""
        protocol = (self.protocol, self.protocol_version)
        scale = (self.ipc is None, self.ipc or 0)
        return (self.dataset, protocol, scale, self.student, self.method, self.labels)

    @property
    def base(self) -> str:
        """The method without its settings: ``hello`` of ``hello[conv_rank=4]``."""
        return self.method.partition("[")[0]

    @property
    def seeds(self) -> tuple[int, int]:
        """Of the distilled set, and of the student."""
        return self.seed, self.seed if self.student_seed is None else self.student_seed

    @cached_property
    def line(self) -> str:
        """The entry as canonical JSON, without what is as usual."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        return canonical({**values, "schema_version": SCHEMA_VERSION})


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The entries in the order of the board, exact repeats dropped; the same for any order they came in."""
    by_line = {entry.line: entry for entry in entries}
    keyed = sorted((entry.row, entry.seeds, line) for line, entry in by_line.items())
    return [by_line[line] for _, _, line in keyed]


def environment(entries: Iterable[Entry]) -> dict[str, str]:
    """What entries were computed with: each fact by its name, in order, with all its values."""
    facts: dict[str, set[str]] = {}
    for entry in entries:
        for name, value in entry.environment.items():
            facts.setdefault(name, set()).add(value)
    return {name: ", ".join(sorted(facts[name])) for name in sorted(facts)}


def unread(entries: Iterable[Entry]) -> list[str]:
    """What is wrong with the records that entries are made of, each once."""
    return sorted({text for entry in entries for text in entry.damaged})


def render_jsonl(entries: Iterable[Entry], left_out: Iterable[LeftOut] = ()) -> str:
    """The entries as canonical JSON, one a line, in the order of the board, and then as they were the lines that
    could not be read: a newer release may know them."""
    return "".join(f"{entry.line}\n" for entry in in_order(entries)) + "".join(f"{one.line}\n" for one in left_out)


@dataclass(frozen=True)
class LeftOut:
    """A line of a board's file that is no entry."""

    line: str
    why: str  # one line

    def __str__(self) -> str:
        return f"{self.line[:SHOWN]}{'…' if len(self.line) > SHOWN else ''} ({self.why})"


class Kept(NamedTuple):
    """What a board's file holds."""

    entries: list[Entry]
    left_out: list[LeftOut]


def read_jsonl(path: Path) -> Kept:
    """The entries of a file that :func:`render_jsonl` made, and the lines that are none.

    Raises:
        UserError: the file can't be read.
    """
    try:
        lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}; `bench report` writes it") from None
    entries: list[Entry] = []
    left_out: dict[str, LeftOut] = {}
    for line in lines:
        if not line.strip():
            continue
        try:
            entries.append(_parse(line))
        except ValueError as error:
            left_out[line] = LeftOut(line, str(error))
    return Kept(entries, [left_out[line] for line in sorted(left_out)])


def _parse(line: str) -> Entry:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        values = upgraded(json.loads(line), SCHEMA_VERSION, ENTRIES)
    try:
        return Entry.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))) from None
