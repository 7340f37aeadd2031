"""The outcome of one cell: ``record.json``, written last, read by everything that reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from bench.api import BaseConfig, FrozenBackbone
from bench.api.config import first_problem
from bench.store.cell import Cell, digest
from bench.store.sealing import sealed

SCHEMA_VERSION = 1  # raise it with what a record holds, and say in UPGRADES how an older one becomes so
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # version -> what makes it one of the next


class FileFacts(BaseConfig):
    """One file of an artifact."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: str


class RunFacts(BaseConfig):
    """The circumstances of a run: everything that may differ between two runs of the same cell."""

    started: str  # ISO 8601, UTC
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]  # wall time of the last uninterrupted stretch
    peak_memory: Annotated[int, Field(ge=0)]  # bytes: resident set on the CPU, allocated on an accelerator
    environment: dict[str, str]


class PluginFacts(BaseConfig):
    """The code behind a cell, and all its settings."""

    kind: Literal["method", "evaluator", "student", "codec", "harness"]
    name: str
    distribution: str | None  # None: it was installed by nobody
    version: str | None
    source: str  # SHA-256 (hex) of its Python files
    settings: dict[str, Any]  # all of them, defaults included


class Record(BaseConfig):
    """The record of a cell.

    ``result`` and ``files`` are the same in every run on the same kind of CPU with the same number of threads; ``run``
    is not.
    """

    schema_version: Literal[1] = 1
    id: str
    cell: Cell
    state: Literal["done", "failed"]
    inputs: dict[str, str] = Field(default_factory=dict)  # parent id -> content digest of what was read
    result: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, FileFacts] = Field(default_factory=dict)  # relative path -> facts
    public: tuple[FrozenBackbone, ...] = ()
    plugins: tuple[PluginFacts, ...] = ()  # whose code made it
    data_digest: str = ""  # of the data set that it was made from
    # "training": test images that are training images, too; "images": synthetic images that are test images and no
    # training images; "repeated": those that are another synthetic image again; "allowed": 1 where copies of test
    # images are more than a run computes without --allow-overlap
    overlap: dict[str, int] = Field(default_factory=dict)
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
        except ValidationError as error:  # nearly all records are of this version: look at the others alone
            problem, values = first_problem(error), _plain(text)
        if not isinstance(values, dict) or (version := values.get("schema_version", 1)) == SCHEMA_VERSION:
            raise ValueError(problem)
        if type(version) is not int or version not in UPGRADES:
            raise ValueError(f"schema version {version!r} is not known to this release, which writes {SCHEMA_VERSION}")
        return cls.parse(json.dumps({**UPGRADES[version](values), "schema_version": version + 1}))

    @property
    def text(self) -> str:
        """The content of its file."""
        return sealed(self.model_dump_json(indent=1) + "\n")

    @property
    def bytes(self) -> int:
        """The size of the artifact: all its files, record.json itself left out."""
        return sum(facts.bytes for facts in self.files.values())

    @property
    def content(self) -> str:
        """A digest of what this cell made; children note it as their input."""
        return digest([self.result, {path: facts.sha256 for path, facts in self.files.items()}])


def _plain(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
