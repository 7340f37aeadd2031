"""The schedule of a grid: the state of every cell, and which may start. All launchers work it off."""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol

from bench.api import registry
from bench.api.stored.codec import LabelCodec
from bench.planning.cells import method_of
from bench.planning.grid import Grid, levels
from bench.store.artifacts import Damaged, Store
from bench.store.cell import STAGES, Cell, Stage, canonical
from bench.store.locks import lease
from bench.store.record import Record

State = Literal["todo", "running", "done", "failed", "blocked"]


def finished(store: Store, cell: Cell) -> bool:
    """Check that the cell is done, and was made from the present content of its parents.

    Raises:
        Damaged: its record or a parent's can't be read.
    """
    parents = {parent: store.record(parent) for parent in cell.parents.values()}
    contents = {parent: record.content for parent, record in parents.items() if record is not None}
    record = store.record(cell.id)
    return record is not None and _made_from(record, cell, contents)


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
        for cell in grid.cells:
            parents = set(cell.parents.values())
            for parent in parents:
                self.children[parent].append(cell)
            self.missing[cell.id] = sum(self[parent] != "done" for parent in parents)
            self.counts[cell.stage][self[cell.id]] += 1
            self._enlist(cell)

    def __setitem__(self, cell_id: str, state: State) -> None:
        before = self[cell_id]
        super().__setitem__(cell_id, state)
        cell = self.cells[self.places[cell_id]]
        self.counts[cell.stage] += Counter({before: -1, state: 1})
        self._enlist(cell)
        if change := (before == "done") - (state == "done"):
            for child in self.children[cell_id]:
                self.missing[child.id] += change
                self._enlist(child)

    def _enlist(self, cell: Cell) -> None:
        place = self.places[cell.id]
        at = bisect_left(self.ready, place)
        listed = at < len(self.ready) and self.ready[at] == place
        may_start = self[cell.id] == "todo" and not self.missing[cell.id]
        if may_start and not listed:
            self.ready.insert(at, place)
        elif listed and not may_start:
            del self.ready[at]


class Schedule:
    """The cells of a grid by state. Cells run in the order of the stages; within a stage, in the order of the plan."""

    def __init__(self, grid: Grid, state: Mapping[str, State], remade: Sequence[str] = (), made: Sequence[Record] = ()):
        self.grid, self.state = grid, States(grid, state)
        self.remade = remade  # one line per damaged artifact that is made again
        self.made = made  # of the cells that were done before
        self.computed: list[Cell] = []  # in this run, by this process

    def ready(self) -> list[Cell]:
        """Return the cells that may start now: to do, with every parent done."""
        return [self.grid.cells[place] for place in self.state.ready]

    def along(self, cell: Cell) -> Grid:
        """Return a grid of a cell and those that can be made along with it: a worker gets these, as grids are large."""
        found, views = [cell], pass_of(cell)
        if views is not None:
            others = self.state.children[cell.parents["images"]]
            found += [one for one in others if one.id != cell.id and pass_of(one) == views]
        return self.grid.model_copy(update={"cells": tuple(found)})

    def settle(self, cell: Cell, outcome: str) -> None:
        """Set the outcome of a cell; the descendants of a failed one are blocked."""
        # busy: computed by another process; blocked: a parent disappeared. Try again later
        states: dict[str, State] = {"done": "done", "already": "done", "failed": "failed"}
        self.state[cell.id] = states.get(outcome, "todo")
        if outcome == "done":
            self.computed.append(cell)
        elif outcome == "failed":
            self._block(cell)

    def _block(self, cell: Cell) -> None:
        for child in self.state.children[cell.id]:
            if self.state[child.id] == "todo":
                self.state[child.id] = "blocked"
                self._block(child)

    @property
    def over(self) -> bool:
        """Nothing is running or to do."""
        return not any(counts["todo"] or counts["running"] for counts in self.state.counts.values())

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
        return [(stage, groups[where, stage]) for where, stage in order]

    def counts(self, stage: Stage) -> Counter[str]:
        """Count the cells of a stage by state."""
        return +Counter[str](self.state.counts[stage])


def shareable(cell: Cell) -> bool:
    """Check that several processes can share the cell: always a teacher, others if their method declares it."""
    return cell.stage == "teacher" or (cell.by in registry.method_names() and cell.stage in method_of(cell).shared())


def pass_of(cell: Cell) -> Hashable:
    """Return what cells have in common whose stored labels one pass of the label model can make; None: nothing."""
    if cell.by != "stored" or (batches := LabelCodec.parse(cell.call["codec"]).batches) is None:
        return None
    return canonical([cell.parents, cell.call["schedule"]]), batches


@contextmanager
def along(store: Store, grid: Grid, cell: Cell) -> Iterator[dict[Path, LabelCodec]]:
    """Take the leases of the cells of a grid whose labels can be made along with a cell's.

    Yields:
        The codec of each that is to do and that nobody else has, by its work folder.
    """
    views = pass_of(cell)
    with ExitStack() as held:
        found = {}
        for other in grid.cells if views is not None else ():
            if other.id != cell.id and pass_of(other) == views:
                with suppress(Damaged):
                    if held.enter_context(lease(store.root, other.id)) and not finished(store, other):
                        found[store.work(other.id)] = LabelCodec.parse(other.call["codec"])
        yield found


def splittable(cell: Cell) -> bool:
    """Check that a cell can be shared by blocks alone, which no process group is needed for.

    A method that deals out something else than independent blocks is left alone once its stage runs.
    """
    return cell.stage in ("prepare", "distill") and shareable(cell)


class Watcher(Protocol):
    """Observer of a run."""

    def update(self, schedule: Schedule) -> None:
        """Show the state of a run; called about twice a second."""


def survey(grid: Grid, store: Store, check_files: bool) -> Schedule:
    """Compare a grid with a store.

    A cell is done if its record says so, all its parents are done, and it was made from their present content. Every
    record is read once.

    Args:
        check_files: also compare the digest of every file of its artifacts, and remove damaged ones.
    """
    states: dict[str, State] = dict.fromkeys((cell.id for cell in grid.cells), "todo")
    contents: dict[str, str] = {}  # of the cells that are done
    remade, made = [], []
    there = store.ids("cells")
    for cell in (cell for cell in grid.cells if cell.id in there):  # parents come before children
        try:
            record = store.record(cell.id)
            if record is not None and check_files:
                store.verify(record)
        except Damaged as damage:
            remade.append(str(damage))
            if check_files:
                _discard(store, cell)
            continue
        if record is not None and _made_from(record, cell, contents):
            contents[cell.id] = record.content
            states[cell.id] = "done"
            made.append(record)
    return Schedule(grid, states, remade, made)


def _made_from(record: Record, cell: Cell, contents: Mapping[str, str]) -> bool:
    """Check that the cell was made from the present ``contents`` of its parents, which holds those that are done."""
    return all(parent in contents and record.inputs.get(parent) == contents[parent] for parent in cell.parents.values())


def prepare(grid: Grid, store: Store, force: Iterable[Stage] = ()) -> Schedule:
    """Prepare a store for a run: remove the artifacts of forced stages, damaged ones, and the remains of killed runs.

    A forced or damaged cell is computed again; its descendants only if its content changed.
    """
    for stage in force:
        for cell in grid.stage(stage):
            _discard(store, cell)
    return survey(grid, store, check_files=True)


def _discard(store: Store, cell: Cell) -> None:
    with lease(store.root, cell.id) as ours:
        if ours:
            store.discard(cell.id)
            shutil.rmtree(store.root / "work" / cell.id, ignore_errors=True)
            store.remove_stale_drafts(cell.id)
