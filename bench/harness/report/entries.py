"""What a board knows of one evaluate cell, and ``<dataset>.records.jsonl``, the file that keeps it.

The file holds one entry a line as canonical JSON, in the order of the board, so that the same entries are the
same bytes. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from bench.contract import Settings
from bench.errors import UserError
from bench.harness.identity import canonical
from bench.harness.record import PublicFacts
from bench.harness.store import write_atomically

Fraction = Annotated[float, Field(ge=0, le=1)]
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Entry(Settings):
    """One evaluate cell: where it stands on the board, how it went and what stands behind it."""

    cell: str
    dataset: str
    title: str  # of the data set
    method: str  # who made the images
    labels: str  # which labels the student learned from: "projector", "teacher", "hard", ...
    asked: str = ""  # the choice of --labels that brought it; empty: it rides along
    ipc: Annotated[int, Field(ge=1)] | None  # None: the whole training set
    student: str
    protocol: str
    protocol_version: int
    seed: int
    state: Literal["done", "failed", "missing"]
    reason: str | None = None  # of a failure
    top1: Fraction | None = None  # last epoch
    oracle_top1: Fraction | None = None  # best epoch on the test set
    image_bytes: Bytes | None = None
    label_bytes: Bytes | None = None
    public: tuple[PublicFacts, ...] = ()
    full_label_bytes: Bytes | None = None  # fp16 labels of every view: epochs · images · classes · 2
    seconds: dict[str, Seconds] = Field(default_factory=dict)  # stage -> wall time of its cells
    environment: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _done_means_measured(self) -> Entry:
        if self.state == "done" and self.top1 is None:
            raise ValueError(f"{self.cell} is done but has no top1")
        return self

    @property
    def row(self) -> tuple[Any, ...]:
        """The board's row this entry belongs to; sorts boards by protocol, IPC (full data last) and names."""
        protocol = (self.protocol, self.protocol_version)
        scale = (self.ipc is None, self.ipc or 0)
        return (self.dataset, protocol, scale, self.student, self.method, self.labels)

    @cached_property
    def line(self) -> str:
        """The entry as canonical JSON."""
        return canonical(self.model_dump(mode="json"))


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The entries in the order of the board, exact repeats dropped; the same for any order they came in."""
    by_line = {entry.line: entry for entry in entries}
    keyed = sorted((entry.row, entry.seed, line) for line, entry in by_line.items())
    return [by_line[line] for _, _, line in keyed]


def render_jsonl(entries: Iterable[Entry]) -> str:
    """The entries as canonical JSON, one a line, in the order of the board."""
    return "".join(f"{entry.line}\n" for entry in in_order(entries))


def write_jsonl(path: Path, entries: Iterable[Entry]) -> None:
    """Write ``path`` atomically with :func:`render_jsonl`."""
    write_atomically(path, render_jsonl(entries))


def read_jsonl(path: Path) -> list[Entry]:
    """The entries of a file that :func:`write_jsonl` wrote.

    Raises:
        UserError: the file can't be read, or a line is not an entry.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}; `bench report` writes it") from None
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _parse(line: bytes, place: str) -> Entry:
    try:
        return Entry.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        where = f"{place}: {field}" if field else place
        raise UserError(f"{where}: {first['msg']}; expected an entry as `bench report` writes it") from None
