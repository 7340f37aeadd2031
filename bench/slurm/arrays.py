"""The job arrays of a run: a pure function of the schedule, the profile, and Slurm's limits.

An array holds the cells of one plug-in, stage and resource class that depend on the same earlier arrays, so that none
waits for what it doesn't use. Where each of its tasks depends on the task of the same number, it waits task by task;
several students per distilled set therefore become several arrays. Short cells are packed: a task computes several,
one after the other, each with its own record. A long cell of independent blocks can be split: the tasks of further
arrays help with it, and no array waits for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from bench.execution.scheduling import Schedule, pass_of
from bench.slurm.profile import Profile, Resources
from bench.store.cell import Cell

_T = TypeVar("_T")
Pack = tuple[str, ...]  # the ids of the cells that one task computes, in order
_MOST_NAMED = 16  # tasks of an array that a dependency names; beyond that it waits for the whole array
_MOST_LAYERS = 24  # arrays into which a group is split to wait task by task


@dataclass(frozen=True)
class After:
    """The dependencies of an array.

    ``each``: arrays (by index) whose task i must succeed before task i starts (aftercorr).
    ``all``: arrays of which every task must have ended, with any outcome (afterany): the task checks its parents.
    ``some``: single tasks (array, number) that must have ended.
    ``jobs``: ids of jobs that an earlier submission left in the queue.
    """

    each: tuple[int, ...] = ()
    all: tuple[int, ...] = ()
    some: tuple[tuple[int, int], ...] = ()
    jobs: tuple[str, ...] = ()

    def in_sbatch(self, submitted: Sequence[Sequence[str]]) -> str | None:
        """Return the value of ``--dependency``, given the job ids of the tasks of the earlier arrays."""
        whole = [tasks[0].partition("_")[0] for tasks in submitted]
        every = [whole[index] for index in self.all] + [submitted[array][number] for array, number in self.some]
        jobs = self.jobs if len(self.jobs) <= _MOST_NAMED else sorted({job.partition("_")[0] for job in self.jobs})
        kinds = {"aftercorr": [whole[index] for index in self.each], "afterany": [*every, *jobs]}
        return ",".join(":".join([kind, *jobs]) for kind, jobs in kinds.items() if jobs) or None


@dataclass(frozen=True)
class Array:
    """One call of sbatch. An array of one task is submitted as a plain job."""

    stage: str
    name: str  # of the resource class
    resources: Resources
    packs: tuple[Pack, ...]  # an empty pack: a job that computes no cell
    after: After = After()
    max_parallel: int | None = None  # tasks; None: unlimited
    helps: tuple[float, ...] = ()  # each task, with cells of an earlier array, from this share of their blocks on

    @property
    def processes(self) -> int:
        """Per task."""
        return self.resources.processes or 1


def plan_arrays(
    schedule: Schedule,
    profile: Profile,
    *,
    max_tasks: int,
    max_parallel: int | None,
    shareable: Callable[[Cell], bool],
    splittable: Callable[[Cell], bool],
    seconds: Callable[[Cell], float | None],
    in_queue: Mapping[str, str],
) -> list[Array]:
    """Return the arrays of all cells to do, in the order of submission.

    Args:
        max_tasks: the most tasks per array that Slurm allows.
        max_parallel: the most running tasks of a stage and resource class; None: the profile's throttle.
        shareable: whether several processes can share a cell.
        splittable: whether they can do so by its blocks alone, each in a task of its own.
        seconds: the expected duration of a cell; None if unknown.
        in_queue: cell id → job id of the cells submitted before: left out, and depended on.
    """
    most = min(max_tasks, profile.max_array or max_tasks)
    throttle = max_parallel or profile.throttle
    arrays: list[Array] = []
    helping: list[Array] = []  # behind all others: they take what is idle
    place: dict[str, tuple[int, int]] = {}  # cell id -> array and task
    for stage, wave in schedule.waves():
        groups: dict[tuple[str, int, int, str, frozenset[object]], list[Cell]] = {}
        for cell in wave:
            if cell.id not in in_queue:
                name = profile.class_of(stage, cell.by)
                resources = profile.resources_of(name, stage)
                tasks = (resources.tasks or 1) if splittable(cell) else 1
                processes = (resources.processes or 1) if shareable(cell) and tasks == 1 else 1
                waits = {place[parent][0] for parent in cell.parents.values() if parent in place}
                queued = {in_queue[parent].partition("_")[0] for parent in cell.parents.values() if parent in in_queue}
                groups.setdefault((name, processes, tasks, cell.by, frozenset(waits | queued)), []).append(cell)
        first = len(arrays)
        for (name, processes, tasks, *_), cells in groups.items():
            resources = profile.resources_of(name, stage).scaled(processes)
            size, limit = 1 if processes * tasks > 1 else resources.pack, profile.pack_minutes * 60
            units = _units(cells)
            chunks = [chunk for layer in _layers(units) for chunk in _chunks(_packs(layer, size, seconds, limit), most)]
            after = [_after(chunk, arrays, place, in_queue) for chunk in chunks]
            if throttle is not None or len(chunks) > _MOST_LAYERS or not all(one.each for one in after):
                chunks = _chunks(_packs(units, size, seconds, limit), most)
                after = [_after(chunk, arrays, place, in_queue) for chunk in chunks]
            for chunk, one in zip(chunks, after, strict=True):
                ids = tuple(tuple(cell.id for cell in pack) for pack in chunk)
                arrays.append(Array(stage, name, resources, ids, one))
                help_one = replace(arrays[-1], after=replace(one, each=(), all=(*one.each, *one.all)))
                for some in _chunks([(pack, part / tasks) for part in range(1, tasks) for pack in ids], most):
                    packs, parts = zip(*some, strict=True)
                    helping.append(replace(help_one, packs=packs, helps=parts))
        for index, array in enumerate(arrays[first:], start=first):
            for task, pack in enumerate(array.packs):
                place |= dict.fromkeys(pack, (index, task))
    arrays += helping
    if throttle is None:
        return arrays
    count: Counter[tuple[str, str]] = Counter()
    for array in arrays:
        count[array.stage, array.name] += len(array.packs)
    shares = [max(1, throttle * len(one.packs) // count[one.stage, one.name]) for one in arrays]
    return [replace(array, max_parallel=share) for array, share in zip(arrays, shares, strict=True)]


def _units(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Put cells together that one task must compute: stored labels that one pass of their label model makes."""
    units: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        units.setdefault(pass_of(cell) or cell.id, []).append(cell)
    return list(units.values())


def _layers(units: Sequence[list[Cell]]) -> list[list[list[Cell]]]:
    """Split units into layers that hold one per set of parents each."""
    layers: dict[int, list[list[Cell]]] = {}
    seen: Counter[tuple[str, ...]] = Counter()
    for unit in units:
        parents = tuple(sorted(unit[0].parents.values()))
        layers.setdefault(seen[parents], []).append(unit)
        seen[parents] += 1
    return list(layers.values())


def _chunks(packs: list[_T], most: int) -> list[list[_T]]:
    return [packs[start : start + most] for start in range(0, len(packs), most)]


def _packs(
    units: list[list[Cell]], size: int | None, seconds: Callable[[Cell], float | None], max_seconds: float
) -> list[list[Cell]]:
    """Pack units by ``size``; if None, by expected duration, up to ``max_seconds`` per pack."""
    if size is not None:
        return [[cell for unit in some for cell in unit] for some in _chunks(units, size)]
    packs: list[list[Cell]] = []
    left = 0.0
    for unit in units:
        known = [expected for cell in unit if (expected := seconds(cell)) is not None]
        spent = sum(known) if len(known) == len(unit) else None
        if not packs or spent is None or spent > left:
            packs.append([])
            left = max_seconds
        packs[-1] += unit
        left = 0.0 if spent is None else left - spent
    return packs


def _after(
    packs: Sequence[Sequence[Cell]],
    arrays: Sequence[Array],
    place: Mapping[str, tuple[int, int]],
    in_queue: Mapping[str, str],
) -> After:
    parents = [{parent for cell in pack for parent in cell.parents.values()} for pack in packs]
    places = [{place[parent] for parent in needed if parent in place} for needed in parents]
    each: list[int] = []
    every: list[int] = []
    some: list[tuple[int, int]] = []
    for index in sorted({array for needed in places for array, _ in needed}):
        tasks = [{task for array, task in needed if array == index} for needed in places]
        used, count = sorted(set().union(*tasks)), len(arrays[index].packs)
        matched = all(found == {number} for number, found in enumerate(tasks))
        if matched and len(packs) == count > 1:  # an array of one task is a plain job without task 0
            each.append(index)
        elif len(used) < count and len(used) <= _MOST_NAMED:
            some += [(index, task) for task in used]
        else:
            every.append(index)
    waiting = {in_queue[parent] for needed in parents for parent in needed if parent in in_queue}
    return After(tuple(each), tuple(every), tuple(some), tuple(sorted(waiting)))
