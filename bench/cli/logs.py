"""Show the log of a cell: what its last Slurm task printed. Cells packed into one task share its log.

A run without Slurm leaves no logs; there, the traceback of a cell that failed is shown."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import options as flags
from bench.cli import screen
from bench.cli.naming import named
from bench.cli.parser import positive
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.slurm.journal import Submitted
    from bench.store.artifacts import Store

HELP = "the log of a cell's Slurm task"
EXAMPLES = """examples:
  python -m bench logs hello-native-digits-ipc10-convnet3-w32-s0-1f0c2ab9d4
  python -m bench logs hello-native-digits-ipc10 --follow     any beginning that only one cell has
  python -m bench logs 'hello-*-s0-1f0c*' --err -n 50          the last lines of its standard error
"""
_PAUSE = 1.0  # seconds between two looks at a log that is followed


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bench logs``."""
    parser.add_argument("cell", metavar="CELL", help="the id of a cell, its beginning, or a glob that fits it alone")
    parser.add_argument("--err", action="store_true", help="standard error: tracebacks, and what Slurm says of its end")
    parser.add_argument("--follow", action="store_true", help="go on as it grows, until the task is over or Ctrl-C")
    parser.add_argument("-n", type=positive, metavar="LINES", dest="lines", help="the last lines only")
    flags.store_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """``bench logs``; 1 where there is nothing to show."""
    from bench.slurm.journal import last_tasks
    from bench.store.artifacts import Store

    store = Store(flags.existing_store(arguments.store))
    tasks = last_tasks(store)
    known = dict.fromkeys([*store.ids("cells"), *store.ids("failures"), *store.ids("heartbeats"), *tasks], "")
    cell_id = _one(arguments.cell, known)
    task = tasks.get(cell_id)
    path = None if task is None else task.err if arguments.err else task.out
    if task is None or path is None or not (path.is_file() or arguments.follow):
        return _without_log(store, cell_id, task)
    sys.stderr.write(f"{path}, of job {task.job}{_shared(task)}\n")
    position = _show(path, arguments.lines)
    if arguments.follow:
        _follow(path, position, task.job)
    return 0


def _one(word: str, known: dict[str, str]) -> str:
    found = sorted(named([word], known))
    if len(found) > 1:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(f"{word!r} fits {', '.join(found[:3])}{more}; logs are shown of one cell, write more of its id")
    return found[0]


def _shared(task: Submitted) -> str:
    others = len(task.cells) - 1
    return f", which it shares with {screen.plural(others, 'other cell')}" if others else ""


def _without_log(store: Store, cell_id: str, task: Submitted | None) -> int:
    """Say why there is no log, and show what there is instead."""
    failure = store.failure(cell_id)
    if task is None:
        why = "it was not submitted to Slurm, and a run without Slurm leaves no logs"
    else:
        why = f"job {task.job} has not begun, or its log was removed"
    instead = "its traceback is" if failure else f"bench show {cell_id} has its record, if there is one"
    sys.stderr.write(f"no log of {cell_id}: {why}; {instead}\n")
    if failure is None:
        return 1
    sys.stdout.write((failure.traceback or failure.error or "").rstrip("\n") + "\n")
    return 0


def _show(path: Path, lines: int | None) -> int:
    """Print a log, or its last lines; returns where it ended, in bytes."""
    try:
        with path.open("rb") as stream:
            shown = stream if lines is None else deque(stream, lines)
            for line in shown:
                _write(line)
            return stream.tell()
    except FileNotFoundError:  # it is followed before it has begun
        return 0


def _follow(path: Path, position: int, job: str) -> None:
    from bench.slurm.queue import ThrottledSlurm

    slurm = ThrottledSlurm()
    while True:
        queued = slurm.queued()
        over = queued is not None and job not in queued  # asked before the last look, so that nothing is missed
        if path.is_file():
            with path.open("rb") as stream:
                stream.seek(position)  # a task that was queued again appends
                for line in stream:
                    _write(line)
                position = stream.tell()
        if over:
            return
        time.sleep(_PAUSE)


def _write(line: bytes) -> None:
    sys.stdout.write(line.decode(errors="replace"))
    sys.stdout.flush()
