"""The schedule: it knows at any time what a look at every cell would tell, and a survey tells what is to be done."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from bench.execution.scheduling import Schedule, State, prepare, survey
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan
from bench.store.artifacts import Store
from bench.store.cell import STAGES, Cell
from bench.store.record import Record, RunFacts

RUN = RunFacts(started="2026-01-01T00:00:00+00:00", seconds=1.0, peak_memory=1, environment={})


@pytest.fixture(scope="module")
def grid() -> Grid:
    return plan(Request(methods=("hello", "sre2l"), ipc=(1,), seeds=(0, 1)))


def looked_at(schedule: Schedule) -> tuple[list[Cell], dict[str, Counter[str]], bool]:
    """What could start, how many are in which state, and whether all is over: by a look at every cell."""
    state = schedule.state
    ready = [
        cell
        for cell in schedule.grid.cells
        if state[cell.id] == "todo" and all(state[parent] == "done" for parent in cell.parents.values())
    ]
    counts = {stage: Counter(state[cell.id] for cell in schedule.grid.stage(stage)) for stage in STAGES}
    return ready, counts, not {"todo", "running"} & set(state.values())


@pytest.mark.parametrize("seed", range(5))
def test_a_run_knows_what_a_look_at_every_cell_would_tell(grid: Grid, seed: int) -> None:
    schedule, chance = Schedule(grid, dict.fromkeys((cell.id for cell in grid.cells), "todo")), random.Random(seed)
    running: list[Cell] = []
    while not schedule.over:
        ready, counts, over = looked_at(schedule)
        assert schedule.ready() == ready
        assert {stage: schedule.counts(stage) for stage in STAGES} == counts
        assert not over and (ready or running)
        if ready and chance.random() < 0.7:
            running.append(chance.choice(ready))
            schedule.state[running[-1].id] = "running"
        elif running:
            cell = running.pop(chance.randrange(len(running)))
            schedule.settle(cell, chance.choice(["done", "done", "done", "already", "busy", "failed"]))
    ready, counts, over = looked_at(schedule)
    assert not ready and over
    failed = {cell.id for cell in grid.cells if schedule.state[cell.id] == "failed"}
    for cell in grid.cells:
        behind = {schedule.state[parent] for parent in cell.parents.values()}
        assert (schedule.state[cell.id] == "blocked") == bool(behind & {"failed", "blocked"})
    assert failed or counts["evaluate"] == {"done": len(grid.stage("evaluate"))}


def test_a_cell_that_is_taken_back_takes_its_children_back(grid: Grid) -> None:
    schedule = Schedule(grid, dict.fromkeys((cell.id for cell in grid.cells), "todo"))
    teacher = schedule.ready()[0]
    schedule.settle(teacher, "done")
    before = len(schedule.ready())
    schedule.settle(teacher, "busy")
    assert (schedule.ready(), schedule.counts("teacher")) == (looked_at(schedule)[0], {"todo": 1})
    assert len(schedule.ready()) < before


def made(store: Store, grid: Grid, cell: Cell, content: str = "") -> None:
    """Commit a made-up artifact on what its parents hold now."""
    parents = [store.record(parent) for parent in cell.parents.values()]
    with store.draft(cell.id) as draft:
        (draft / "file").write_text(content)
        inputs = {parent.id: parent.content for parent in parents if parent is not None}
        facts = store.facts(draft)
        store.commit(draft, Record(id=cell.id, cell=cell, state="done", inputs=inputs, files=facts, run=RUN))


@pytest.fixture
def store(grid: Grid, tmp_path: Path) -> Store:
    """A store in which all of the grid is done."""
    found = Store(tmp_path)
    for cell in grid.cells:
        made(found, grid, cell)
    return found


def states(schedule: Schedule) -> dict[State, set[str]]:
    found: dict[State, set[str]] = {}
    for cell_id, state in schedule.state.items():
        found.setdefault(state, set()).add(cell_id)
    return found


def descendants(grid: Grid, cell: Cell) -> set[str]:
    found = {cell.id}
    for child in grid.cells:
        if found & set(child.parents.values()):
            found.add(child.id)
    return found


def test_all_is_done(grid: Grid, store: Store) -> None:
    assert set(states(survey(grid, store, check_files=True))) == {"done"}


def test_what_stands_on_something_else_than_it_was_made_from_is_to_do(grid: Grid, store: Store) -> None:
    images = grid.stage("distill")[0]
    made(store, grid, images, "others")
    assert states(survey(grid, store, check_files=False))["todo"] == descendants(grid, images) - {images.id}


def test_a_missing_cell_leaves_all_that_stands_on_it_to_do(grid: Grid, store: Store) -> None:
    """Also what stands on it through another one, which may come out another."""
    teacher = grid.stage("teacher")[0]
    store.discard(teacher.id)
    assert states(survey(grid, store, check_files=False))["todo"] == descendants(grid, teacher)


@pytest.mark.parametrize("what", ["record", "file"])
def test_damage_is_said_once_and_removed(grid: Grid, store: Store, what: str) -> None:
    images = grid.stage("distill")[0]
    (store.folder(images.id) / ("record.json" if what == "record" else "file")).write_text("{")
    assert len(survey(grid, store, check_files=False).remade) == (what == "record")
    assert store.folder(images.id).exists()
    schedule = prepare(grid, store)
    assert len(schedule.remade) == 1 and images.id in schedule.remade[0]
    assert not store.folder(images.id).exists()
    assert len(list((store.root / "cells").iterdir())) == len(grid.cells) - 1
    made(store, grid, images)
    assert set(states(survey(grid, store, check_files=True))) == {"done"}


def test_damage_behind_a_missing_cell_is_removed_too(grid: Grid, store: Store) -> None:
    teacher, images = grid.stage("teacher")[0], next(cell for cell in grid.stage("distill") if cell.parents)
    store.discard(teacher.id)
    (store.folder(images.id) / "file").write_text("{")
    prepare(grid, store)
    assert not store.folder(images.id).exists()
