"""The outcome of one cell: ``record.json``, written last, read by everything that reports."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.store.cell import Cell, digest
from bench.store.upgrades import RECORDS, upgraded

SCHEMA_VERSION = 1  # raise it with what a record holds, and say in bench.store.upgrades how an older one becomes so


class FileFacts(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class BackboneFacts(BaseModel):
    """A frozen backbone an artifact stands on; its bytes are counted apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    bytes: int


class RunFacts(BaseModel):
    """The circumstances of a run: everything that may differ between two runs of the same cell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    started: str  # ISO 8601, UTC
    seconds: float  # wall time of the last uninterrupted stretch
    peak_memory: int  # bytes: resident set on the CPU, allocated on an accelerator
    environment: dict[str, str]


class PluginFacts(BaseModel):
    """The code behind a cell, and all its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["method", "evaluator", "harness"]
    name: str
    distribution: str | None  # None: it was installed by nobody
    version: str | None
    source: str  # SHA-256 (hex) of its Python files
    settings: dict[str, Any]  # all of them, defaults included


class Record(BaseModel):
    """The record of a cell.

    ``result`` and ``files`` are the same in every run on the same kind of CPU with the same number of threads; ``run``
    is not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    id: str
    cell: Cell
    state: Literal["done", "failed"]
    inputs: dict[str, str] = Field(default_factory=dict)  # parent id -> content digest of what was read
    result: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, FileFacts] = Field(default_factory=dict)  # relative path -> facts
    public: tuple[BackboneFacts, ...] = ()
    plugins: tuple[PluginFacts, ...] = ()  # whose code made it
    run: RunFacts
    error: str | None = None  # failed: one line
    traceback: str | None = None

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Parse a record as it was written, by an older release too.

        Raises:
            ValueError: it is none, or of a schema version that this release doesn't know.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError:  # nearly all are of this version: only of the others is it asked which
            values = upgraded(json.loads(text), SCHEMA_VERSION, RECORDS)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    @property
    def bytes(self) -> int:
        """The size of the artifact: all its files, record.json itself left out."""
        return sum(facts.bytes for facts in self.files.values())

    @property
    def content(self) -> str:
        """A digest of what this cell made; children note it as their input."""
        return digest([self.result, {path: facts.sha256 for path, facts in self.files.items()}])
