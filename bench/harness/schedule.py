"""What is to be done in a grid, and in which order: the state that every launcher works off."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from bench.harness.grid import Grid
from bench.harness.identity import STAGES, Cell, Stage
from bench.harness.lease import lease
from bench.harness.store import Damaged, Store

State = Literal["todo", "running", "done", "failed", "blocked"]


def finished(store: Store, cell: Cell) -> bool:
    """Is the cell done, and made from what its parents hold now?

    Raises:
        Damaged: its record or a parent's can't be read.
    """
    record = store.record(cell.id)
    if record is None:
        return False
    for parent in cell.parents.values():
        made = store.record(parent)
        if made is None or record.inputs.get(parent) != made.content:
            return False
    return True


@dataclass
class Schedule:
    """The cells of a grid by state. Cells run in the order of the stages; within one, in the order of the plan."""

    grid: Grid
    state: dict[str, State]
    computed: list[str] = field(default_factory=list)  # in this run, by this process
    remade: list[str] = field(default_factory=list)  # one line for each damaged artifact that is made again

    def ready(self) -> list[Cell]:
        """The cells that could start now: to do, with every parent done."""
        return [
            cell
            for cell in self.grid.cells
            if self.state[cell.id] == "todo" and all(self.state[p] == "done" for p in cell.parents.values())
        ]

    def settle(self, cell: Cell, outcome: str) -> None:
        """Note how a cell ended; what stands on a failed one is blocked."""
        match outcome:
            case "done":
                self.computed.append(cell.id)
                self.state[cell.id] = "done"
            case "already":
                self.state[cell.id] = "done"
            case "failed":
                self.state[cell.id] = "failed"
                self._block()
            case _:  # busy: somebody else is at it; blocked: a parent went away. Look again later
                self.state[cell.id] = "todo"

    def _block(self) -> None:
        for cell in self.grid.cells:  # parents come before children
            if self.state[cell.id] == "todo" and any(
                self.state[p] in ("failed", "blocked") for p in cell.parents.values()
            ):
                self.state[cell.id] = "blocked"

    @property
    def over(self) -> bool:
        """Is nothing left to do or running?"""
        return not any(state in ("todo", "running") for state in self.state.values())

    def waves(self, stage: Stage) -> list[list[Cell]]:
        """The cells of a stage that are to do, in groups that stand on earlier groups alone: stored labels come after
        the label model that answers."""
        waves: list[list[Cell]] = []
        wave_of: dict[str, int] = {}
        for cell in self.grid.stage(stage):  # parents come before children
            if self.state[cell.id] == "todo":
                wave = max((wave_of[p] + 1 for p in cell.parents.values() if p in wave_of), default=0)
                wave_of[cell.id] = wave
                waves += [[]] if wave == len(waves) else []
                waves[wave].append(cell)
        return waves

    def counts(self, stage: Stage) -> Counter[str]:
        """How many cells of a stage are in which state."""
        return Counter(self.state[cell.id] for cell in self.grid.stage(stage))


def survey(grid: Grid, store: Store, check_files: bool) -> Schedule:
    """Hold a grid against a store, changing nothing.

    Args:
        check_files: read every file of the finished artifacts and compare digests; damaged ones are to do.
    """
    schedule = Schedule(grid, {})
    for cell in grid.cells:
        schedule.state[cell.id] = "todo"
        try:
            if finished(store, cell):
                if check_files:
                    record = store.record(cell.id)
                    assert record is not None
                    store.verify(record)
                schedule.state[cell.id] = "done"
        except Damaged as damage:
            schedule.remade.append(str(damage))
    return schedule


def prepare(grid: Grid, store: Store, force: Iterable[Stage] = ()) -> Schedule:
    """Make a store ready for a run: forced stages and damaged artifacts are removed, and what is left of kills.

    A forced or damaged cell is computed again; what stands on it is computed again only if it comes out another.
    """
    for stage in STAGES:
        if stage in force:
            for cell in grid.stage(stage):
                _discard(store, cell)
    schedule = survey(grid, store, check_files=True)
    for cell in grid.cells:
        if schedule.state[cell.id] == "todo":
            try:
                record = store.record(cell.id)
                if record is not None:
                    store.verify(record)
            except Damaged:
                _discard(store, cell)
    return schedule


def _discard(store: Store, cell: Cell) -> None:
    with lease(store.root, cell.id) as ours:
        if ours:
            store.discard(cell.id)
            shutil.rmtree(store.root / "work" / cell.id, ignore_errors=True)
            store.sweep(cell.id)
