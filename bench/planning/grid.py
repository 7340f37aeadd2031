"""The request of a user, and the grid of cells that answers it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from bench.api import BaseConfig, DatasetInfo
from bench.store.cell import STAGES, Cell, Stage, digest


class Axes(BaseConfig):
    """The axes of a grid but for the data set."""

    methods: tuple[str, ...] = ()
    ipc: tuple[int, ...] = (1, 10, 50)
    students: tuple[str, ...] = ()  # empty: the data set's own
    seeds: tuple[int, ...] = (0, 1, 2)
    student_seeds: tuple[int, ...] = ()  # of every distilled set; empty: one student each, of its set's seed
    protocols: tuple[str, ...] = ("common",)
    labels: tuple[str, ...] = ("native",)
    baselines: bool = True
    clip: str | None = None


class Request(Axes):
    """A user's request."""

    methods: tuple[str, ...]
    dataset: str = "digits"
    teacher: tuple[str, ...] = ()  # FILE, ARCH=FILE, or "torchvision": teachers that are not trained
    teacher_trajectory: tuple[str, ...] = ()  # DIR or pattern, or with ARCH= in front
    overrides: dict[str, dict[str, Any]] = Field(default={})  # method -> field -> value
    imported: dict[str, dict[str, Any]] = Field(default={})  # METHOD:SET -> the settings that say which set it is
    data_root: Path | None = None
    suite: str = ""  # its suite, which has boards of its own

    @field_validator("teacher", "teacher_trajectory", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Split ``ARCH=FILE,ARCH=FILE`` at the commas before an architecture; files may have commas in their names."""
        return re.split(r",(?=[\w:.-]+=|torchvision$)", str(value)) if isinstance(value, str | Path) else value


class Grid(BaseConfig):
    """The cells of a request, parents before children."""

    request: Request
    dataset: DatasetInfo
    cells: tuple[Cell, ...]

    @property
    def id(self) -> str:
        """Stable for the same set of cells of the same suite."""
        suite = [self.request.suite] if self.request.suite else []
        return f"{self.dataset.name}-{digest([*sorted(cell.id for cell in self.cells), *suite])}"

    def stage(self, stage: Stage) -> list[Cell]:
        """List the cells of one stage."""
        return [cell for cell in self.cells if cell.stage == stage]

    def reduced(self, ids: Collection[str]) -> Grid:
        """Return the grid of some cells and all their ancestors."""
        found = set(ids)
        for cell in reversed(self.cells):  # children before parents
            if cell.id in found:
                found.update(cell.parents.values())
        return self.model_copy(update={"cells": tuple(cell for cell in self.cells if cell.id in found)})


def levels(cells: Iterable[Cell]) -> dict[str, tuple[int, int]]:
    """Sort cells, parents before children, into levels that depend on lower levels alone.

    A cell belongs to its own stage, or to the stage of a parent that comes later: images that are made with their
    label model come in the wave after it. Parents may be missing.

    Returns:
        id -> (stage, wave within it), from 0.
    """
    found: dict[str, tuple[int, int]] = {}
    for cell in cells:
        own = STAGES.index(cell.stage)
        above = [found[parent] for parent in cell.parents.values() if parent in found]
        found[cell.id] = max([(own, 0), *((stage, wave + 1) for stage, wave in above if stage >= own)])
    return found
