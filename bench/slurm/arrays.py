"""The job arrays of a run: a pure function of the schedule, the profile, and Slurm's limits.

An array holds the cells of one stage and one resource class that depend on earlier arrays alone. Short cells are
packed: a task computes several, one after the other, each with its own record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.execution.scheduling import Schedule
from bench.slurm.profile import Profile, Resources
from bench.store.cell import Cell

Pack = tuple[str, ...]  # the ids of the cells that one task computes, in order


@dataclass(frozen=True)
class After:
    """The dependencies of an array.

    ``each``: arrays (by index) whose task i must succeed before task i starts (aftercorr).
    ``all``: arrays of which every task must have ended, with any outcome (afterany): the task checks its parents.
    ``jobs``: ids of jobs that an earlier submission left in the queue.
    """

    each: tuple[int, ...] = ()
    all: tuple[int, ...] = ()
    jobs: tuple[str, ...] = ()

    def in_sbatch(self, submitted: Sequence[str]) -> str | None:
        """Return the value of ``--dependency``, given the job ids of the earlier arrays."""
        each = [submitted[index] for index in self.each]
        every = [submitted[index] for index in self.all] + sorted({job.partition("_")[0] for job in self.jobs})
        kinds = {"aftercorr": each, "afterany": every}
        return ",".join(":".join([kind, *jobs]) for kind, jobs in kinds.items() if jobs) or None


@dataclass(frozen=True)
class Array:
    """One call of sbatch. An array of one task is submitted as a plain job."""

    stage: str
    name: str  # of the resource class
    resources: Resources
    packs: tuple[Pack, ...]  # an empty pack: a job that computes no cell
    processes: int = 1  # per task
    after: After = After()
    max_parallel: int | None = None  # tasks; None: unlimited


def plan_arrays(
    schedule: Schedule,
    profile: Profile,
    *,
    max_tasks: int,
    max_parallel: int | None,
    shareable: Callable[[Cell], bool],
    seconds: Callable[[Cell], float | None],
    in_queue: Mapping[str, str],
) -> list[Array]:
    """Return the arrays of all cells to do, in the order of submission.

    Args:
        max_tasks: the most tasks per array that Slurm allows.
        max_parallel: the most running tasks of a stage and resource class; None: the profile's throttle.
        shareable: whether several processes can share a cell.
        seconds: the expected duration of a cell; None if unknown.
        in_queue: cell id → job id of the cells submitted before: left out, and depended on.
    """
    most = min(max_tasks, profile.max_array or max_tasks)
    throttle = max_parallel or profile.throttle
    arrays: list[Array] = []
    place: dict[str, tuple[int, int]] = {}  # cell id -> array and task
    for stage, wave in schedule.waves():
        groups: dict[tuple[str, int], list[Cell]] = {}
        for cell in wave:
            if cell.id not in in_queue:
                name = profile.class_of(stage, cell.by)
                processes = profile.resources_of(name, stage).processes if shareable(cell) else 1
                groups.setdefault((name, processes), []).append(cell)
        for (name, processes), cells in groups.items():
            resources = profile.resources_of(name, stage)
            packs = _packs(cells, 1 if processes > 1 else resources.pack, seconds, profile.pack_minutes * 60)
            chunks = [packs[start : start + most] for start in range(0, len(packs), most)]
            share = None if throttle is None else max(1, throttle // len(chunks))
            for chunk in chunks:
                ids = tuple(tuple(cell.id for cell in pack) for pack in chunk)
                after = _after(chunk, arrays, place, in_queue)
                arrays.append(Array(stage, name, resources, ids, processes, after, share))
                for task, pack in enumerate(ids):
                    place |= dict.fromkeys(pack, (len(arrays) - 1, task))
    return arrays


def _packs(
    cells: Sequence[Cell], size: int | None, seconds: Callable[[Cell], float | None], max_seconds: float
) -> list[list[Cell]]:
    """Pack cells by ``size``; if None, by expected duration, up to ``max_seconds`` per pack."""
    if size is not None:
        return [list(cells[start : start + size]) for start in range(0, len(cells), size)]
    packs: list[list[Cell]] = []
    left = 0.0
    for cell in cells:
        expected = seconds(cell)
        if expected is None or expected > left:
            packs.append([])
            left = max_seconds
        packs[-1].append(cell)
        left = 0.0 if expected is None else left - expected
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
    for index in sorted({array for needed in places for array, _ in needed}):
        tasks = [{task for array, task in needed if array == index} for needed in places]
        matched = all(found == {number} for number, found in enumerate(tasks))
        several = len(packs) == len(arrays[index].packs) > 1  # an array of one task is a plain job without task 0
        (each if matched and several else every).append(index)
    waiting = {in_queue[parent] for needed in parents for parent in needed if parent in in_queue}
    return After(tuple(each), tuple(every), tuple(sorted(waiting)))
