"""Compute the failed cells of a grid again, and those that depend on them.

Cells of tasks that Slurm killed without a record (out of memory, time limit, lost node) count as failed. Options
that are not given are those of the last submission of these cells to Slurm.
"""

from __future__ import annotations

import argparse

from bench.cli import launch, screen
from bench.cli.options import DATA_ROOT, existing_store, select
from bench.cli.status import find_grids
from bench.errors import UserError
from bench.execution.environment import Options
from bench.format import plural
from bench.slurm import queue
from bench.slurm.journal import Journal, last_tasks
from bench.slurm.profile import load
from bench.slurm.status import GridStatus, collect_status

ARGUMENTS = f"""
WHAT*  a cell's id or its beginning, a stage, or a glob (default: all)
--failed  all failed cells: the default
--grid ID  a grid's id or its beginning (default: the newest)
--memory GB  on Slurm: memory per task
--minutes N  on Slurm: time limit per task
{launch.ARGUMENTS}
options:
{DATA_ROOT}
"""
EXAMPLES = """examples:
  python -m bench retry                                 everything that failed in the newest grid
  python -m bench retry distill --memory 64             with 64 GB per task
  python -m bench retry 'hello-*-ipc50-*' --minutes 2880 --cluster slurm
"""
DEFAULTS = {"device": None, "threads": None, "data_root": None}  # as in the last submission


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench retry``; 1 if a cell failed again."""
    slurm = arguments.cluster in ("auto", "slurm")
    if (arguments.memory or arguments.minutes) and not (slurm and queue.available()):
        raise UserError("--memory and --minutes are for Slurm: none answers here (sinfo), or --cluster excludes it")
    out, store = screen.console(), existing_store(arguments.store)
    grid = find_grids(store, arguments.grid)[0].grid
    status = collect_status(grid, store, last_tasks(store), queue.ThrottledSlurm())
    failed = {one.cell.id for one in status.of("failed")}
    chosen = failed
    if arguments.what and not arguments.failed:
        chosen = failed & select(arguments.what, {cell.id: cell.stage for cell in grid.cells})
    if not chosen:
        nothing = f"none of the named cells is among the {len(failed)} that" if failed else "nothing"
        undone = 0 if failed else sum(one.state != "done" for one in status.cells.values())
        rest = f"; {plural(undone, 'cell')} not done, with which the same bench run goes on" if undone else ""
        out.print(f"{nothing} failed in {grid.id}{rest}")
        return 0
    only = with_descendants(status, chosen)
    dependent = len(only) - len(chosen)
    out.print(f"{grid.id}: {plural(len(chosen), 'failed cell')}, {dependent} more depend on them")
    folders = sorted({task.folder for cell_id in chosen if (task := status.cells[cell_id].task) is not None})
    last = Journal(folders[-1]).run() if folders else None
    before = last.options if last else Options(store=store.root)
    for name in DEFAULTS:
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(before, name))
    launch.preflight(grid, arguments, only=only)
    profile = load(arguments.profile or (last.profile if last else None))
    profile = profile.with_limits(arguments.memory, arguments.minutes, arguments.processes)
    return launch.compute(out, grid, arguments, only=only, profile=profile)


def with_descendants(status: GridStatus, chosen: set[str]) -> set[str]:
    """Return ``chosen`` and the cells that can be computed once they are done."""
    found = set(chosen)
    for cell in status.grid.cells:  # parents come before children
        parents = set(cell.parents.values())
        if parents & found and all(p in found or status.cells[p].state == "done" for p in parents):
            found.add(cell.id)
    return found
