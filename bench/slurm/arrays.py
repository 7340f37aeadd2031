"""The job arrays of a run: a pure function of what is to do, the profile, and what Slurm allows.

An array holds the cells of one stage and one resource class that stand on earlier arrays alone. Short cells are
packed: a task computes several, one after the other, each with a record of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.execution.scheduling import Schedule
from bench.slurm.profile import Profile
from bench.store.cell import Cell

Pack = tuple[str, ...]  # the ids of the cells that one task computes, in order


@dataclass(frozen=True)
class After:
    """What must be over before an array starts.

    ``each``: arrays (by index) of which task i waits for task i alone, and needs its success (aftercorr).
    ``all``: arrays of which every task must have ended, in whatever way (afterany): the task looks for itself.
    ``jobs``: ids of jobs that an earlier submission left in the queue.
    """

    each: tuple[int, ...] = ()
    all: tuple[int, ...] = ()
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Array:
    """One call of sbatch. An array of one task is submitted as a plain job."""

    stage: str
    resources: str  # the name of the resource class
    processes: int
    packs: tuple[Pack, ...]
    after: After
    at_a_time: int | None  # tasks; None: no limit of ours


def plan_arrays(
    schedule: Schedule,
    profile: Profile,
    *,
    longest: int,
    at_a_time: int | None,
    shared: Callable[[Cell], bool],
    seconds: Callable[[Cell], float | None],
    in_queue: Mapping[str, str],
) -> list[Array]:
    """The arrays of everything that is to do, in the order of their submission.

    Args:
        longest: the most tasks that Slurm allows in an array.
        at_a_time: the most tasks of a stage and resource class that may run; None: the profile's throttle.
        shared: can several processes share the work of a cell?
        seconds: what a cell is expected to take; None where nothing is known.
        in_queue: cell id → job id of what is submitted already: left out here, and waited for.
    """
    most = min(longest, profile.max_array or longest)
    throttle = at_a_time or profile.throttle
    arrays: list[Array] = []
    home: dict[str, tuple[int, int]] = {}  # cell id -> array and task
    for stage, wave in schedule.waves():
        groups: dict[tuple[str, int], list[Cell]] = {}
        for cell in wave:
            if cell.id not in in_queue:
                name = profile.of_cell(cell)
                processes = profile.resources_of(name, stage).processes if shared(cell) else 1
                groups.setdefault((name, processes), []).append(cell)
        for (name, processes), cells in groups.items():
            size = profile.resources_of(name, stage).pack
            packs = _packs(cells, 1 if processes > 1 else size, seconds, profile.pack_minutes * 60)
            chunks = [packs[start : start + most] for start in range(0, len(packs), most)]
            share = None if throttle is None else max(1, throttle // len(chunks))
            for chunk in chunks:
                ids = tuple(tuple(cell.id for cell in pack) for pack in chunk)
                arrays.append(Array(stage, name, processes, ids, _after(chunk, arrays, home, in_queue), share))
                for task, pack in enumerate(ids):
                    home |= dict.fromkeys(pack, (len(arrays) - 1, task))
    return arrays


def _packs(
    cells: Sequence[Cell], size: int | None, seconds: Callable[[Cell], float | None], longest: float
) -> list[list[Cell]]:
    """Cells in packs of ``size``; of None, in packs that are expected to take up to ``longest`` seconds."""
    if size is not None:
        return [list(cells[start : start + size]) for start in range(0, len(cells), size)]
    packs: list[list[Cell]] = []
    room = 0.0
    for cell in cells:
        takes = seconds(cell)
        if takes is None or takes > room:
            packs.append([])
            room = longest
        packs[-1].append(cell)
        room = 0.0 if takes is None else room - takes
    return packs


def _after(
    packs: Sequence[Sequence[Cell]],
    arrays: Sequence[Array],
    home: Mapping[str, tuple[int, int]],
    in_queue: Mapping[str, str],
) -> After:
    parents = [{parent for cell in pack for parent in cell.parents.values()} for pack in packs]
    places = [{home[parent] for parent in needed if parent in home} for needed in parents]
    each: list[int] = []
    every: list[int] = []
    for index in sorted({array for needed in places for array, _ in needed}):
        mine = [{task for array, task in needed if array == index} for needed in places]
        matched = all(tasks == {number} for number, tasks in enumerate(mine))
        several = len(packs) == len(arrays[index].packs) > 1  # one task is a plain job, which has no task 0
        (each if matched and several else every).append(index)
    waiting = {in_queue[parent] for needed in parents for parent in needed if parent in in_queue}
    return After(tuple(each), tuple(every), tuple(sorted(waiting)))
