"""Cancel Slurm tasks of this store: by cell, by stage, or by a glob over the ids of cells.

What a cancelled task had saved is kept, and its cells are simply to do: bench run goes on with them."""

from __future__ import annotations

import argparse

from bench.cli import options as flags
from bench.cli import screen
from bench.cli.naming import named
from bench.errors import UserError

HELP = "cancel Slurm tasks by cell, stage or glob"
EXAMPLES = """examples:
  python -m bench cancel evaluate                      all students that wait or run
  python -m bench cancel 'hello-*-ipc50-*' teacher
  python -m bench cancel --all
"""
_MOST = 20  # lines


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bench cancel``."""
    parser.add_argument("what", nargs="*", metavar="WHAT", help="a cell's id or its beginning, a stage, or a glob")
    parser.add_argument("--all", action="store_true", help="everything of this store that is queued or running")
    flags.store_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """``bench cancel``."""
    from bench.slurm import journal, queue
    from bench.store.artifacts import Store

    if bool(arguments.what) == arguments.all:
        raise UserError("bench cancel: name cells, a stage or a glob, or --all for everything; see bench cancel --help")
    out = screen.console()
    store = Store(flags.existing_store(arguments.store))
    submitted = [task for run in journal.newest_first(store) for task in run.submitted()]
    queued = queue.queued() if submitted else {}
    if queued is None:
        raise UserError("Slurm doesn't answer (squeue fails), so nothing is cancelled; try again")
    there = [task for task in submitted if task.job in queued]
    if not there:
        out.print(f"nothing of {store.root} is in Slurm's queue; a run without Slurm is stopped by Ctrl-C")
        return 0
    if arguments.all:
        chosen = there
    else:
        wanted = named(arguments.what, {cell: task.stage for task in there for cell in task.cells})
        chosen = [task for task in there if wanted & set(task.cells)]
    queue.cancel([task.job for task in chosen])
    for folder in {task.run for task in chosen}:
        journal.Journal(folder).note("cancelled", jobs=[task.job for task in chosen if task.run == folder])
    for task in chosen[:_MOST]:
        first, others = (task.cells[0] if task.cells else task.stage), len(task.cells) - 1
        packed = f" and {others} more of the same task" if others > 0 else ""
        out.print(f"cancelled job {task.job} ({queued[task.job].state.lower()}): {first}{packed}", markup=False)
    if len(chosen) > _MOST:
        out.print(f"… and {len(chosen) - _MOST} more jobs")
    cells = sum(len(task.cells) for task in chosen)
    cancelled, again = screen.plural(len(chosen), "job"), screen.plural(cells, "cell")
    out.print(f"{cancelled} cancelled, {again} to do again; bench run goes on with them")
    return 0
