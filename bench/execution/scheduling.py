"""The schedule of a grid: the state of every cell, and which may start. All launchers work it off."""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from bench.planning.grid import Grid, levels
from bench.store.artifacts import Damaged, Store
from bench.store.cell import STAGES, Cell, Stage
from bench.store.locks import lease
from bench.store.record import Record

State = Literal["todo", "running", "done", "failed", "blocked"]


def finished(store: Store, cell: Cell) -> bool:
    """Check that the cell is done, and was made from the present content of its parents.

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


class States(dict[str, State]):
    """The state of every cell of a grid, by id.

    Setting one updates the counts and the ready cells, which launchers query after every cell: no pass over the grid.
    """

    def __init__(self, grid: Grid, states: Mapping[str, State]):
        super().__init__(states)
        self.cells = grid.cells
        self.places = {cell.id: place for place, cell in enumerate(grid.cells)}
        self.children: dict[str, list[Cell]] = {cell.id: [] for cell in grid.cells}
        self.missing: dict[str, int] = {}  # cell -> how many of its parents are not done
        self.counts: dict[Stage, Counter[State]] = {stage: Counter() for stage in STAGES}
        self.ready: list[int] = []  # places of the cells that may start, in order
        for place, cell in enumerate(grid.cells):
            parents = set(cell.parents.values())
            for parent in parents:
                self.children[parent].append(cell)
            self.missing[cell.id] = sum(self[parent] != "done" for parent in parents)
            self.counts[cell.stage][self[cell.id]] += 1
            if self._may_start(cell):
                self.ready.append(place)

    def __setitem__(self, cell_id: str, state: State) -> None:
        before = self[cell_id]
        super().__setitem__(cell_id, state)
        cell = self.cells[self.places[cell_id]]
        self.counts[cell.stage][before] -= 1
        self.counts[cell.stage][state] += 1
        self._enlist(cell)
        change = (before == "done") - (state == "done")
        if change:
            for child in self.children[cell_id]:
                self.missing[child.id] += change
                self._enlist(child)

    def _may_start(self, cell: Cell) -> bool:
        return self[cell.id] == "todo" and not self.missing[cell.id]

    def _enlist(self, cell: Cell) -> None:
        place = self.places[cell.id]
        at = bisect_left(self.ready, place)
        listed = at < len(self.ready) and self.ready[at] == place
        if self._may_start(cell) and not listed:
            self.ready.insert(at, place)
        elif listed and not self._may_start(cell):
            del self.ready[at]


@dataclass
class Schedule:
    """The cells of a grid by state. Cells run in the order of the stages; within a stage, in the order of the plan."""

    grid: Grid
    state: dict[str, State]  # of every cell; becomes States
    computed: list[str] = field(default_factory=list)  # in this run, by this process
    remade: list[str] = field(default_factory=list)  # one line per damaged artifact that is made again

    def __post_init__(self) -> None:
        self._states = self.state = States(self.grid, self.state)

    def ready(self) -> list[Cell]:
        """Return the cells that may start now: to do, with every parent done."""
        return [self.grid.cells[place] for place in self._states.ready]

    def settle(self, cell: Cell, outcome: str) -> None:
        """Set the outcome of a cell; the descendants of a failed one are blocked."""
        match outcome:
            case "done":
                self.computed.append(cell.id)
                self.state[cell.id] = "done"
            case "already":
                self.state[cell.id] = "done"
            case "failed":
                self.state[cell.id] = "failed"
                self._block(cell)
            case _:  # busy: computed by another process; blocked: a parent disappeared. Try again later
                self.state[cell.id] = "todo"

    def _block(self, cell: Cell) -> None:
        for child in self._states.children[cell.id]:
            if self.state[child.id] == "todo":
                self.state[child.id] = "blocked"
                self._block(child)

    @property
    def over(self) -> bool:
        """Nothing is running or to do."""
        return not any(counts["todo"] or counts["running"] for counts in self._states.counts.values())

    def waves(self) -> list[tuple[Stage, list[Cell]]]:
        """Return the cells to do, in groups of one stage that depend on earlier groups alone.

        Stored labels come after the label model that computes them.
        """
        todo = [cell for cell in self.grid.cells if self.state[cell.id] == "todo"]
        level = levels(todo)
        groups: dict[tuple[tuple[int, int], Stage], list[Cell]] = {}
        for cell in todo:
            groups.setdefault((level[cell.id], cell.stage), []).append(cell)
        order = sorted(groups, key=lambda key: (key[0], STAGES.index(key[1])))
        return [(key[1], groups[key]) for key in order]

    def counts(self, stage: Stage) -> Counter[str]:
        """Count the cells of a stage by state."""
        return Counter({state: count for state, count in self._states.counts[stage].items() if count})


class Watcher(Protocol):
    """Observer of a run."""

    def update(self, schedule: Schedule) -> None:
        """Show the state of a run; called about twice a second."""


def survey(grid: Grid, store: Store, check_files: bool) -> Schedule:
    """Compare a grid with a store, changing nothing.

    A cell is done if its record says so, all its parents are done, and it was made from their present content. Every
    record is read once.

    Args:
        check_files: also compare the digest of every file of the finished artifacts; damaged ones are to do.
    """
    states: dict[str, State] = dict.fromkeys((cell.id for cell in grid.cells), "todo")
    contents: dict[str, str] = {}  # of the cells that are done
    remade = []
    there = store.ids("cells")
    for cell in grid.cells:  # parents come before children
        if cell.id not in there:
            continue
        try:
            record = store.record(cell.id)
            if record is None or not _made_from(record, cell, contents):
                continue
            if check_files:
                store.verify(record)
        except Damaged as damage:
            remade.append(str(damage))
            continue
        contents[cell.id] = record.content
        states[cell.id] = "done"
    return Schedule(grid, states, remade=remade)


def _made_from(record: Record, cell: Cell, contents: Mapping[str, str]) -> bool:
    """Check that the cell was made from the present ``contents`` of its parents, which holds those that are done."""
    return all(parent in contents and record.inputs.get(parent) == contents[parent] for parent in cell.parents.values())


def prepare(grid: Grid, store: Store, force: Iterable[Stage] = ()) -> Schedule:
    """Prepare a store for a run: remove the artifacts of forced stages, damaged ones, and the remains of killed runs.

    A forced or damaged cell is computed again; its descendants only if its content changed.
    """
    for stage in STAGES:
        if stage in force:
            for cell in grid.stage(stage):
                _discard(store, cell)
    schedule = survey(grid, store, check_files=True)
    there = store.ids("cells")
    for cell in grid.cells:
        if schedule.state[cell.id] == "todo" and cell.id in there:
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
            store.remove_stale_drafts(cell.id)
