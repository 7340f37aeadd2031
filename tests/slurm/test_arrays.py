"""Which job arrays a run becomes: who waits for whom, limits, packs, and what is in the queue already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bench.execution.scheduling import Schedule, shareable, splittable
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan
from bench.slurm import profile_values
from bench.slurm.arrays import After, Array, plan_arrays
from bench.slurm.profile import Profile, Resources
from bench.store.cell import Cell


def made(*chain: tuple[str, str, Sequence[str]]) -> Grid:
    """Cells of (stage, name, names of parents) in a grid of nothing else."""
    base = plan(Request(methods=("random_real",), ipc=(1,), seeds=(0,), baselines=False))
    cells: dict[str, Cell] = {}
    for stage, name, parents in chain:
        above = {str(index): cells[parent].id for index, parent in enumerate(parents)}
        by = name.split("_")[0].rstrip("0123456789ab") or "it"
        facts: dict[str, Any] = {"stage": stage, "by": by, "version": 1, "fields": {}, "parents": above}
        cells[name] = Cell(**facts, prefix=name)
    return base.model_copy(update={"cells": tuple(cells.values())})


def arrays_of(grid: Grid, profile: Profile | None = None, done: Sequence[str] = (), **given: Any) -> list[Array]:
    state: dict[str, Any] = {cell.id: "done" if cell.prefix in done else "todo" for cell in grid.cells}
    values: dict[str, Any] = {"max_tasks": 1000, "max_parallel": None, "in_queue": {}}
    values |= {"shareable": lambda cell: False, "splittable": lambda cell: False, "seconds": lambda cell: None, **given}
    return plan_arrays(Schedule(grid, state), profile or Profile(), **values)


def names(array: Array) -> list[list[str]]:
    return [[cell_id.rpartition("-")[0] for cell_id in pack] for pack in array.packs]


# two methods, x and y; of x two sets with two students each, on labels of a teacher of its own
DIAMOND = made(
    ("teacher", "t1", ()), ("teacher", "t2", ()),
    ("distill", "x_1", ("t1",)), ("distill", "x_2", ("t1",)), ("distill", "y_1", ("t1", "t2")),
    ("label", "lx_1", ("x_1",)), ("label", "lx_2", ("x_2",)), ("label", "ly_1", ("y_1",)),
    ("evaluate", "e1", ("x_1", "lx_1")), ("evaluate", "e2", ("x_1", "lx_1")), ("evaluate", "e3", ("x_2", "lx_2")),
    ("evaluate", "e4", ("x_2", "lx_2")), ("evaluate", "e5", ("y_1", "ly_1")), ("evaluate", "e6", ()),
)  # fmt: skip
PLANNED = [
    ([["t1"], ["t2"]], After()),
    ([["x_1"], ["x_2"]], After(some=((0, 0),))),
    ([["y_1"]], After(all=(0,))),
    ([["lx_1"], ["lx_2"]], After(each=(1,))),
    ([["ly_1"]], After(all=(2,))),
    ([["e1"], ["e3"]], After(each=(1, 3))),  # a student of each set, as soon as its set is labelled
    ([["e2"], ["e4"]], After(each=(1, 3))),
    ([["e5"]], After(all=(2, 4))),
    ([["e6"]], After()),
]


def test_no_cell_waits_for_what_it_does_not_use() -> None:
    assert [(names(array), array.after) for array in arrays_of(DIAMOND)] == PLANNED
    found = After(each=(1,), all=(0,), some=((1, 0),), jobs=("77_3",)).in_sbatch([["8"], ["9_0", "9_1"]])
    assert found == "aftercorr:9,afterany:8:9_0:77_3"


def test_under_a_throttle_students_stay_in_one_array() -> None:
    arrays = arrays_of(DIAMOND, Profile(throttle=3))
    assert (names(arrays[5]), arrays[5].after) == ([["e1"], ["e2"], ["e3"], ["e4"]], After(all=(1, 3)))
    assert [array.max_parallel for array in arrays] == [3, 2, 1, 2, 1, 2, 1, 1]


def test_what_is_done_is_not_waited_for() -> None:
    arrays = arrays_of(DIAMOND, done=("t1", "t2", "x_1", "lx_1", "e6"))
    assert [(names(array), array.after) for array in arrays[:2]] == [([["x_2"]], After()), ([["y_1"]], After())]
    assert [(names(array), array.after) for array in arrays[4:]] == [
        ([["e1"], ["e2"]], After()), ([["e3"], ["e4"]], After(all=(0, 2))), ([["e5"]], After(all=(1, 3))),
    ]  # fmt: skip


def test_what_is_in_the_queue_is_waited_for_and_not_submitted_again() -> None:
    queued = {
        cell.id: f"77_{number}" for number, cell in enumerate(DIAMOND.cells) if cell.prefix in ("t1", "t2", "x_1")
    }
    arrays = arrays_of(DIAMOND, in_queue=queued)
    assert [(names(array), array.after) for array in arrays[:4]] == [
        ([["x_2"]], After(jobs=("77_0",))),
        ([["y_1"]], After(jobs=("77_0", "77_1"))),
        ([["lx_1"]], After(jobs=("77_2",))),
        ([["lx_2"]], After(all=(0,))),
    ]


def test_waves_of_a_stage_are_arrays_of_their_own() -> None:
    chain = made(("distill", "a", ()), ("label", "m", ()), ("label", "s", ("a", "m")))
    assert [names(array) for array in arrays_of(chain)] == [[["a"]], [["m"]], [["s"]]]
    assert arrays_of(chain)[2].after == After(all=(0, 1))


def many(count: int) -> Grid:
    distilled = [("distill", f"d{index}", ()) for index in range(count)]
    labels = [("label", f"l{index}", (f"d{index}",)) for index in range(count)]
    return made(*distilled, *labels)


@pytest.mark.parametrize("longest", [1, 3, 4, 7, 10])
def test_no_array_is_longer_than_slurm_allows(longest: int) -> None:
    arrays = arrays_of(many(10), max_tasks=longest)
    assert all(len(array.packs) <= longest for array in arrays)
    assert sorted(name for array in arrays for pack in names(array) for name in pack) == sorted(
        [*(f"d{index}" for index in range(10)), *(f"l{index}" for index in range(10))]
    )
    whole = 10 // longest if longest > 1 else 0
    matched = [array for array in arrays if array.after.each]
    assert len(matched) == whole + (10 % longest > 1), "chunks match, but for those of one task"
    assert all(len(array.after.each) == 1 and array.after.all == () for array in matched)


def test_the_profile_may_ask_for_shorter_ones_and_chunks_share_the_throttle() -> None:
    profile = Profile(max_array=4, throttle=7)
    assert [(len(a.packs), a.max_parallel) for a in arrays_of(many(10), profile)[:3]] == [(4, 2), (4, 2), (2, 1)]
    assert {a.max_parallel for a in arrays_of(many(10), profile, max_parallel=1)} == {1}, "never none at all"
    assert {a.max_parallel for a in arrays_of(many(10))} == {None}


def test_resource_classes_are_arrays_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_values.registry, "METHODS", {"x": None})  # whose cells these are
    profile = Profile(
        minutes=60,
        resources={
            "big": Resources(cells=("distill:x",), memory_gb=64, minutes=600),
            "small": Resources(cells=("distill", "evaluate"), cpus=2),
        },
    )
    arrays = arrays_of(DIAMOND, profile)
    assert [(a.stage, a.name) for a in arrays[:4]] == [
        ("teacher", "default"), ("distill", "big"), ("distill", "small"), ("label", "default")
    ]  # fmt: skip
    big, small = profile.resources_of("big", "distill"), profile.resources_of("small", "distill")
    assert (big.memory_gb, big.minutes, big.cpus) == (64, 600, None)
    assert (small.memory_gb, small.minutes, small.cpus) == (None, 60, 2)
    assert Profile().resources_of("default", "evaluate").minutes == 8 * 60


def test_packs_of_a_given_size() -> None:
    profile = Profile(resources={"x": Resources(cells=("distill", "label"), pack=4)})
    first, second = arrays_of(many(10), profile)
    assert [len(pack) for pack in first.packs] == [4, 4, 2]
    assert second.after == After(each=(0,)), "packs match too"


def seconds(of: dict[str, float]) -> Callable[[Cell], float | None]:
    return lambda cell: of.get(cell.prefix)


def test_short_cells_are_packed_up_to_the_minutes_of_the_profile() -> None:
    known = {"d0": 200.0, "d1": 300.0, "d2": 100.0, "d3": 1.0, "d5": 2000.0, "d6": 10.0, "d8": 10.0, "d9": 10.0}
    packs = names(arrays_of(many(10), Profile(pack_minutes=10), seconds=seconds(known))[0])
    assert packs == [["d0", "d1", "d2"], ["d3"], ["d4"], ["d5"], ["d6"], ["d7"], ["d8", "d9"]]
    one_each = arrays_of(many(10), Profile(pack_minutes=0), seconds=seconds(known))[0]
    assert all(len(pack) == 1 for pack in one_each.packs)


def test_work_of_no_time_is_packed_too() -> None:
    assert names(arrays_of(many(2), seconds=lambda cell: 0.0)[0]) == [["d0", "d1"]]


def test_only_work_that_can_be_shared_gets_several_processes_and_such_tasks_are_not_packed() -> None:
    profile = Profile(resources={"wide": Resources(cells=("distill", "label"), processes=4, pack=5)})
    arrays = arrays_of(many(10), profile, shareable=lambda cell: cell.stage == "distill")
    assert [(a.stage, a.processes, len(a.packs)) for a in arrays] == [("distill", 4, 10), ("label", 1, 2)]
    assert [a.processes for a in arrays_of(many(2), Profile(processes=3), shareable=lambda cell: True)] == [3, 3]


def test_a_cell_of_blocks_is_split_over_tasks_that_nobody_waits_for() -> None:
    profile = Profile(resources={"long": Resources(cells=("distill", "label"), tasks=4, processes=8, pack=5)})
    given = {"shareable": lambda cell: True, "splittable": lambda cell: cell.stage == "distill"}
    main, labels, *helping = arrays_of(many(2), profile, max_tasks=4, **given)
    assert (names(main), main.processes, main.helps) == ([["d0"], ["d1"]], 1, ())
    assert (labels.processes, labels.after, labels.helps) == (8, After(each=(0,)), ())
    assert [pack for array in helping for pack in names(array)] == [["d0"], ["d1"]] * 3
    assert [array.helps for array in helping] == [(0.25, 0.25, 0.5, 0.5), (0.75, 0.75)]
    assert {(array.processes, array.after) for array in helping} == {(1, After())}


def test_those_that_help_wait_for_what_the_cells_stand_on() -> None:
    split = {"splittable": lambda cell: cell.prefix[0] == "l"}
    arrays = arrays_of(many(2), Profile(tasks=2, throttle=4), **split)
    assert [(array.stage, array.after, array.helps) for array in arrays] == [
        ("distill", After(), ()), ("label", After(each=(0,)), ()), ("label", After(all=(0,)), (0.5, 0.5)),
    ]  # fmt: skip
    assert [array.max_parallel for array in arrays] == [4, 2, 2]


def test_stored_labels_of_one_pass_are_one_task() -> None:
    labels = ("stored:fp16", "stored:topk3", "stored:prune2", "stored:features8")
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0, 1), labels=labels, baselines=False))
    codecs = {cell.id: cell.call["codec"] for cell in grid.stage("label") if cell.by == "stored"}
    found = [
        [tuple(codecs[cell] for cell in pack) for pack in array.packs]
        for array in arrays_of(grid, Profile(resources={"x": Resources(cells=("label",), pack=1)}))
        if array.packs[0][0] in codecs
    ]
    assert found == [[("fp16", "topk3+fp16")] * 2, [("prune2+fp16",)] * 2, [("features8+fp16",)] * 2], (
        "a set each, as they are ready"
    )


@pytest.mark.parametrize(
    ("gres", "one", "four"),
    [
        ("gpu:8", "gpu:1", "gpu:4"), ("gpu", "gpu:1", "gpu:4"), ("gpu:h200:2", "gpu:h200:1", "gpu:h200:4"),
        ("gpu:0", "gpu:0", "gpu:0"), ("shard:3,gpu:h100", "shard:3,gpu:h100:1", "shard:3,gpu:h100:4"), ("", "", ""),
    ],
)  # fmt: skip
def test_a_task_requests_an_accelerator_per_process(gres: str, one: str, four: str) -> None:
    assert [Resources(gres=gres).scaled(processes).gres for processes in (1, 4)] == [one, four]
    assert Resources().scaled(4).gres is None


def test_what_can_be_shared() -> None:
    grid = plan(Request(methods=("sre2l", "g_vbsm", "hello"), ipc=(1,), seeds=(0,)))
    shared = {(cell.stage, cell.by) for cell in grid.cells if shareable(cell)}
    assert {("teacher", "teacher"), ("prepare", "g_vbsm"), ("distill", "sre2l"), ("label", "hello")} <= shared
    assert not {("evaluate", "classification"), ("distill", "random_real"), ("label", "stored")} & shared
    assert ("distill", "g_vbsm") not in shared, "its official batches build on one another"
    split = {(cell.stage, cell.by) for cell in grid.cells if splittable(cell)}
    assert split == {one for one in shared if one[0] in ("prepare", "distill")}
    apart = {"g_vbsm": {"ema_reset": "per_batch", "iterations": 10}}
    grid = plan(Request(methods=("g_vbsm",), ipc=(1,), seeds=(0,), overrides=apart))
    assert all(shareable(cell) for cell in grid.stage("distill") if cell.by == "g_vbsm")


def test_more_for_a_retry() -> None:
    profile = Profile(minutes=60, resources={"x": Resources(cells=("label",), memory_gb=4, pack=2)})
    more = profile.with_limits(memory_gb=32, minutes=None)
    assert more.resources_of("x", "label").memory_gb == more.resources_of("default", "teacher").memory_gb == 32
    assert more.resources_of("x", "label").minutes == 60
    assert more.resources["x"].pack == 2
