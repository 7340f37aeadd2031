"""One evaluate cell as a board knows it, and ``<dataset>.records.jsonl``, the public file of such entries.

The file holds one entry per line as canonical JSON, in the order of the board, so the same entries are the same bytes.
In front stands the digest of the line; lines of earlier releases have none, and stay so. Lines that can't be read, or
are not what their digest says, are named, counted and kept as they are until their cell is published again: a newer
release may know them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from bench.api import BaseConfig, FrozenBackbone
from bench.api.config import first_problem
from bench.store.cell import canonical
from bench.store.sealing import sealed, unsealed

SUFFIX = ".records.jsonl"
LONGEST_LINE = 1 << 20  # characters; an entry has a few thousand
SHOWN = 60  # characters of a line that can't be read

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Cost(BaseConfig):
    """The cost of training a student, from evaluators that measure it."""

    batch_size: Annotated[int, Field(ge=1)]
    iterations: Annotated[int, Field(ge=1)]  # that were timed
    seconds_per_iteration: Seconds  # median of the blocks
    milliseconds_per_image: Seconds  # the same, and the extremes of the blocks:
    fastest: Seconds
    slowest: Seconds
    times_bare: Seconds  # over a loop without augmentation and soft labels
    accelerator_bytes: Count | None  # None: there was no accelerator
    host_bytes: Count


class Entry(BaseConfig):
    """One evaluate cell: its place on the board, its outcome and its provenance."""

    schema_version: Literal[1] = 1
    cell: str
    dataset: str
    title: str  # of the data set
    method: str  # who made the images, with settings: "hello[conv_rank=4]"
    labels: str  # what the student learned from: "projector", "teacher", "hard", ...
    asked: str = ""  # the choice of --labels behind it; empty: it is a baseline of the run
    via: str = ""  # the name in --methods behind it; empty: not known
    ipc: Annotated[Count, Field(ge=1)] | None  # None: the whole training set
    student: str
    protocol: str
    protocol_version: Count
    seed: Count  # of the distilled set
    student_seed: Count | None = None  # None: the same
    state: Literal["done", "failed", "missing"]
    reason: str | None = None  # of a failure
    metric: str = "top-1"  # what its evaluator measures; "cost" has no accuracy
    cost: Cost | None = None
    top1: Fraction | None = None  # last epoch
    oracle_top1: Fraction | None = None  # best epoch on the test set
    test_images: Count | None = None
    image_bytes: Count | None = None
    label_bytes: Count | None = None
    label_parameters: Count | None = None  # of the label model; None: labels are stored
    public: tuple[FrozenBackbone, ...] = ()
    full_label_bytes: Count | None = None  # fp16 labels of every view: epochs · images · classes · 2, over all steps
    seconds: dict[str, Seconds] = Field(default_factory=dict)  # stage -> wall time of its cells
    environment: dict[str, str] = Field(default_factory=dict)
    curve: tuple[tuple[int, Fraction], ...] = ()  # (epoch, top-1) where it was tested
    steps: tuple[tuple[int, Fraction], ...] = ()  # class-incremental: (classes seen, top-1 on these)
    epochs: Count | None = None
    images: Count | None = None  # that the student learned from
    parents: dict[str, str] = Field(default_factory=dict)  # role ("images", "labels") -> cell
    peak_memory: Count | None = None  # bytes of the student: resident on the CPU, allocated on an accelerator
    recipe: str = ""  # digest of the protocol without its name and its augmentation
    augmented: bool = True  # False: the student saw the images as they are
    damaged: tuple[str, ...] = ()  # what is wrong with records of this cell and of its parents
    # Beyond the names: {"set": ["hello.conv_rank=4"], "clip": "icon-clip", "teacher": "resnet18.pth"}
    changed: dict[str, Any] = Field(default_factory=dict)
    data_digest: str = ""  # of the data set's contents; empty in this and the next two: not recorded
    overlap: dict[str, Count] = Field(default_factory=dict)  # copies of test images: as in Record
    protocol_digest: str = ""
    plugin_digests: dict[str, str] = Field(default_factory=dict)  # plug-in -> digest of its source
    plugin_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)  # method -> all its settings
    _sealed: bool = PrivateAttr(True)  # False: its line had no digest

    @classmethod
    def parse(cls, line: str) -> Entry:
        """Parse a line of a records file.

        Raises:
            ValueError: it is none, or not what its digest says.
        """
        if len(line) > LONGEST_LINE:
            raise ValueError(f"{len(line):,} characters; at most {LONGEST_LINE:,} are read")
        with_digest = line.startswith('{"digest"')
        try:
            entry = cls.model_validate_json(unsealed(line.encode()) if with_digest else line)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None
        entry._sealed = with_digest
        return entry

    @model_validator(mode="after")
    def _done_means_measured(self) -> Entry:
        if self.state == "done" and self.top1 is None and self.cost is None:
            raise ValueError(f"{self.cell} is done but has neither top1 nor cost")
        return self

    @property
    def place(self) -> tuple[Any, ...]:
        """Sort key of the board: protocol, IPC (full data last), names, seeds."""
        scale = (self.ipc is None, self.ipc or 0)
        names = (self.dataset, self.protocol, self.protocol_version, scale, self.student, self.method, self.labels)
        return (*names, *self.seeds)

    @property
    def base(self) -> str:
        """Method without its settings: ``hello`` of ``hello[conv_rank=4]``."""
        return self.method.partition("[")[0]

    @property
    def seeds(self) -> tuple[int, int]:
        """Of the distilled set, and of the student."""
        return self.seed, self.seed if self.student_seed is None else self.student_seed

    @cached_property
    def line(self) -> str:
        """Entry as canonical JSON, without defaults."""
        return canonical({**self.model_dump(mode="json", exclude_defaults=True), "schema_version": 1})

    @property
    def text(self) -> str:
        """Line of a records file, with its digest unless it was read without one."""
        return sealed(self.line).replace("\n", " ", 1) if self._sealed else self.line


@dataclass(frozen=True)
class LeftOut:
    """Line of a records file that is no entry."""

    line: str
    why: str  # one line

    @property
    def cell(self) -> str:
        """Cell that it seems to be of; empty where it does not say."""
        found = re.search(r'"cell":"([^"\\]{1,150})"', self.line)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.cell or self.line[:SHOWN]}{'…' if len(self.line) > SHOWN and not self.cell else ''} ({self.why})"


class Loaded(NamedTuple):
    """Contents of a records file."""

    entries: list[Entry]
    left_out: list[LeftOut]


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Sort entries as the board shows them and drop exact repeats."""
    by_line = {entry.line: entry for entry in entries}
    return [by_line[line] for _, line in sorted((entry.place, line) for line, entry in by_line.items())]


def write_jsonl(entries: Iterable[Entry], left_out: Iterable[LeftOut] = ()) -> str:
    """Render entries, then the unreadable lines as they were, one per line."""
    return "".join(f"{line}\n" for line in [*(one.text for one in in_order(entries)), *(one.line for one in left_out)])


def read_jsonl(path: Path) -> Loaded:
    """Read a records file; a file that can't be read at all is one thing left out."""
    if not path.is_file():
        return Loaded([], [LeftOut("", f"{path.name} is no regular file")])
    try:
        lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    except OSError as error:
        return Loaded([], [LeftOut("", f"{path.name} can't be read: {error.strerror}")])
    entries: list[Entry] = []
    left_out: dict[str, LeftOut] = {}
    for line in filter(str.strip, lines):
        try:
            entries.append(Entry.parse(line))
        except ValueError as error:
            left_out[line] = LeftOut(line, str(error))
    return Loaded(entries, [left_out[line] for line in sorted(left_out)])
