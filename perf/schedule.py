"""Simulated makespan of a suite's job arrays on clusters of several sizes, against the least that is possible.

The arrays are those that ``bench run --profile`` would submit. A task starts once what its array waits for has ended
and enough accelerators are free, in the order of submission, smaller tasks overtaking (Slurm's backfill). Hours are
those that methods state for their cells (``bench run --dry-run`` adds them up). The least possible is the larger of
all hours over the number of accelerators and the longest chain of cells that depend on each other.

    python perf/schedule.py [--dataset imagenet-1k] [--processes 1 8] [--tasks 1 64] [--accelerators 1 8 64 256]
        [--overrides '{"g_vbsm": {"ema_reset": "per_batch"}}']
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence

from bench.execution.scheduling import Schedule, shareable, splittable
from bench.planning.cost_estimate import Measured, StatedHours
from bench.planning.grid import Grid
from bench.planning.plan import plan
from bench.planning.suites import suite
from bench.slurm.arrays import Array, Pack, plan_arrays
from bench.slurm.profile import Profile


def makespan(arrays: Sequence[Array], hours: Mapping[str, float], accelerators: int) -> float:
    """Return the hours from the start of the first task to the end of the last."""
    waiting = [(index, task) for index, array in enumerate(arrays) for task in range(len(array.packs))]
    left = {index: len(array.packs) for index, array in enumerate(arrays)}  # tasks that have not ended
    sizes = [min(array.processes, accelerators) for array in arrays]
    work = {
        pack: sum(hours[cell] for cell in pack) / sizes[index]
        for index, array in enumerate(arrays)
        for pack in array.packs
    }  # hours of one task that are to do
    ended: set[tuple[int, int]] = set()
    running: dict[Pack, list[tuple[int, int]]] = {}  # the task that computes it, and those that help
    now, free = 0.0, accelerators

    def ready(index: int, task: int) -> bool:
        after = arrays[index].after
        return (
            all((one, task) in ended for one in after.each)
            and ended.issuperset(after.some)
            and not any(left[one] for one in after.all)
        )

    while waiting or running:
        for index, task in list(waiting):
            if sizes[index] <= free and ready(index, task):
                waiting.remove((index, task))
                free -= sizes[index]
                running.setdefault(arrays[index].packs[task], []).append((index, task))
            if not free:
                break
        pack = min(running, key=lambda one: work[one] / len(running[one]))
        now += (step := work[pack] / len(running[pack]))
        work |= {one: work[one] - step * len(tasks) for one, tasks in running.items()} | {pack: 0.0}
        for index, task in running.pop(pack):
            free += sizes[index]
            ended.add((index, task))
            left[index] -= 1
    return now


def bounds(grid: Grid, hours: Mapping[str, float], processes: int, tasks: int) -> tuple[float, float]:
    """Return the sum of all hours and the longest chain, cells being shared by as many processes, or split in tasks."""
    chain: dict[str, float] = {}
    for cell in grid.cells:  # parents come before children
        own = hours[cell.id] / (tasks if tasks > 1 and splittable(cell) else processes if shareable(cell) else 1)
        chain[cell.id] = own + max((chain[parent] for parent in cell.parents.values()), default=0.0)
    return sum(hours.values()), max(chain.values())


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="baselines")
    parser.add_argument("--dataset", default="imagenet-1k")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8], help="that share a cell (default: 1 and 8)")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 64], help="that a cell of blocks is split in")
    parser.add_argument("--accelerators", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--overrides", type=json.loads, default={}, help="settings, as JSON")
    parser.add_argument("--tiny", action="store_true", help="one seed and IPC")
    options = parser.parse_args()
    given = {
        "dataset": options.dataset,
        "overrides": options.overrides,
        **({"seeds": (0,), "ipc": (1,)} if options.tiny else {}),
    }
    (request,) = suite(options.suite).requests(options.suite, small=False, given=given)
    grid = plan(request)
    stated = StatedHours(grid, Measured())
    hours = {cell.id: stated.hours(cell) or 0.0 for cell in grid.cells}
    schedule = Schedule(grid, dict.fromkeys(hours, "todo"))
    for processes, tasks in itertools.product(options.processes, options.tasks):
        arrays = plan_arrays(
            schedule, Profile(processes=processes, tasks=tasks), max_tasks=1000, max_parallel=None,
            shareable=shareable, splittable=splittable, seconds=lambda cell: 3600 * hours[cell.id], in_queue={},
        )  # fmt: skip
        for accelerators in options.accelerators:
            total, chain = bounds(grid, hours, min(processes, accelerators), min(tasks, accelerators))
            least = max(total / accelerators, chain)
            took = makespan(arrays, hours, accelerators)
            print(
                f"{processes} processes, {tasks} tasks, {accelerators} accelerators: {took:.1f} hours in {len(arrays)} "
                f"arrays; {total:.0f} accelerator hours, longest chain {chain:.1f}"
            )
            name = f"schedule_{processes}_processes_{tasks}_tasks_{accelerators}_accelerators"
            print(f"ratio {name} {took / least:.3f}", flush=True)


if __name__ == "__main__":
    main()
