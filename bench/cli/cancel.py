"""Cancel Slurm tasks of this store: by cell, by stage, or by a glob over the ids of cells.

Checkpoints of a cancelled task are kept, and its cells are to do again: bench run resumes them.
"""

from __future__ import annotations

import argparse

from bench.cli import screen
from bench.cli.options import STORE, existing_store, select
from bench.errors import UserError
from bench.format import plural
from bench.slurm import journal, queue

ARGUMENTS = f"""
WHAT*  a cell's id or its beginning, a stage, or a glob
--all  everything of this store that is queued or running
{STORE}
"""
EXAMPLES = """examples:
  python -m bench cancel evaluate                      all students that are queued or running
  python -m bench cancel 'hello-*-ipc50-*' teacher
  python -m bench cancel --all
"""
_MOST = 20  # lines


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench cancel``."""
    if bool(arguments.what) == arguments.all:
        raise UserError("bench cancel: name cells, a stage or a glob, or --all for everything; see bench cancel --help")
    out, store = screen.console(), existing_store(arguments.store)
    submitted = [task for run in journal.newest_first(store) for task in run.tasks()]
    queued = queue.queued() if submitted else {}
    if queued is None:
        raise UserError("Slurm doesn't answer (squeue fails), so nothing is cancelled; try again")
    tasks = [task for task in submitted if task.job in queued]
    if not tasks:
        out.print(f"nothing of {store.root} is in Slurm's queue; Ctrl-C stops a run without Slurm")
        return 0
    if arguments.what:
        wanted = select(arguments.what, {cell: task.stage for task in tasks for cell in task.cells})
        tasks = [task for task in tasks if wanted & set(task.cells)]
    queue.cancel([task.job for task in tasks])
    for folder in {task.folder for task in tasks}:
        journal.Journal(folder).append("cancelled", jobs=[task.job for task in tasks if task.folder == folder])
    for task in tasks[:_MOST]:
        first, others = (task.cells[0] if task.cells else task.stage), len(task.cells) - 1
        packed = f" and {others} more of the same task" if others > 0 else ""
        out.print(f"cancelled job {task.job} ({queued[task.job].state.lower()}): {first}{packed}", markup=False)
    if len(tasks) > _MOST:
        out.print(f"… and {len(tasks) - _MOST} more jobs")
    cells = len({cell for task in tasks for cell in task.cells})
    out.print(f"{plural(len(tasks), 'job')} cancelled, {plural(cells, 'cell')} to do again by bench run")
    return 0
