"""Show the log of a cell: the output of its last Slurm task. Cells packed into one task share its log.

A run without Slurm leaves no logs; there, the traceback of a failed cell is shown.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from pathlib import Path

from bench.cli.options import STORE, existing_store, select, shorten
from bench.errors import UserError, printable
from bench.format import plural
from bench.slurm.journal import SubmittedTask, last_tasks
from bench.slurm.queue import ThrottledSlurm
from bench.store.artifacts import Store

ARGUMENTS = f"""
CELL  a cell's id, its beginning, or a glob that matches it alone
--err  standard error: tracebacks, and messages of Slurm
--follow  go on as it grows, until the task is over or Ctrl-C
-n LINES  the last lines only
{STORE}
"""
EXAMPLES = """examples:
  python -m bench logs hello-native-digits-ipc10-convnet3-w32-s0-1f0c2ab9d4
  python -m bench logs hello-native-digits-ipc10 --follow     any beginning of one cell's id
  python -m bench logs 'hello-*-s0-1f0c*' --err -n 50          the last lines of its standard error
"""
_PAUSE = 1.0  # seconds between two looks at a followed log


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench logs``; 1 if there is nothing to show."""
    store = existing_store(arguments.store)
    tasks = last_tasks(store)
    known = dict.fromkeys([*store.ids("cells"), *store.ids("failures"), *store.ids("heartbeats"), *tasks], "")
    found = sorted(select([arguments.cell], known))
    if len(found) > 1:
        raise UserError(f"{arguments.cell!r} matches {shorten(found)}; expected one cell, write more of its id")
    task = tasks.get(found[0])
    path = None if task is None else task.err if arguments.err else task.out
    if task is None or path is None or not (path.is_file() or arguments.follow):
        return _without_log(store, found[0], task)
    others = len(task.cells) - 1
    shared = f", which it shares with {plural(others, 'other cell')}" if others else ""
    sys.stderr.write(f"{path}, of job {task.job}{shared}\n")
    position = _print(path, 0, arguments.n)
    slurm, over = ThrottledSlurm(), not arguments.follow
    while not over:
        queued = slurm.queued()
        over = queued is not None and task.job not in queued  # queried before the last look, so that nothing is missed
        position = _print(path, position)  # a task that was queued again appends
        if not over:
            time.sleep(_PAUSE)
    return 0


def _without_log(store: Store, cell_id: str, task: SubmittedTask | None) -> int:
    """Say why there is no log, and show the traceback if there is one."""
    failure, why = store.failure(cell_id), "it was not submitted to Slurm, and a run without Slurm leaves no logs"
    if task is not None:
        why = f"job {task.job} has not started, or its log was removed"
    instead = "its traceback is" if failure else f"bench show {cell_id} has its record, if there is one"
    sys.stderr.write(f"no log of {cell_id}: {why}; {instead}\n")
    if failure is None:
        return 1
    sys.stdout.write(printable((failure.traceback or failure.error or "").rstrip("\n"), keep="\n") + "\n")
    return 0


def _print(path: Path, position: int, lines: int | None = None) -> int:
    """Print a log from a position in bytes on, or its last lines; return its end. One that isn't there yet is empty."""
    try:
        with path.open("rb") as stream:
            stream.seek(position)
            for line in stream if lines is None else deque(stream, lines):
                sys.stdout.write(printable(line.decode(errors="replace"), keep="\t\n"))
            sys.stdout.flush()
            return stream.tell()
    except FileNotFoundError:
        return position
