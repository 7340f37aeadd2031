"""Compute again what failed in a grid, with what stands on it: cells whose record says so, and those whose Slurm task
ended without one (out of memory, out of time, lost with its node).

What is not given is as in the last submission of these cells, where they were submitted to Slurm."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bench.cli import launch, screen
from bench.cli import options as common
from bench.cli.naming import named
from bench.cli.parser import positive
from bench.cli.status import grids
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.slurm.journal import Run
    from bench.slurm.status import Outlook

HELP = "compute again what failed"
EXAMPLES = """examples:
  python -m bench retry                                 everything that failed in the newest grid
  python -m bench retry distill --memory 64             with 64 GB for each task
  python -m bench retry 'hello-*-ipc50-*' --minutes 2880 --cluster slurm
"""
_AS_BEFORE = ("device", "threads", "data_root")  # options of the last submission that hold unless given


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bench retry``."""
    parser.add_argument(
        "what", nargs="*", metavar="WHAT", help="a cell's id or its beginning, a stage, or a glob (default: all)"
    )
    parser.add_argument("--failed", action="store_true", help="all that failed: the default")
    parser.add_argument("--grid", metavar="ID", help="of this grid, or the one that begins so (default: the newest)")
    parser.add_argument("--memory", type=_gigabytes, metavar="GB", help="on Slurm: memory of each task")
    parser.add_argument("--minutes", type=positive, metavar="N", help="on Slurm: time limit of each task")
    launch.flags(parser)
    common.data_root_flag(parser)
    defaults = {name: parser.get_default(name) for name in _AS_BEFORE}
    parser.set_defaults(defaults=defaults, **dict.fromkeys(_AS_BEFORE))


def execute(arguments: argparse.Namespace) -> int:
    """``bench retry``; 1 when a cell failed again."""
    from bench.slurm import queue
    from bench.slurm.profile import load
    from bench.slurm.status import look
    from bench.store.artifacts import Store

    if (arguments.memory or arguments.minutes) and not (arguments.cluster in ("auto", "slurm") and queue.answers()):
        raise UserError("--memory and --minutes are for Slurm: none answers here (sinfo), or --cluster says otherwise")
    out = screen.console()
    store = Store(common.existing_store(arguments.store))
    grid = grids(store, arguments.grid)[0].grid
    outlook = look(grid, store)
    failed = {one.cell.id for one in outlook.of("failed")}
    chosen = failed
    if arguments.what and not arguments.failed:
        chosen = failed & named(arguments.what, {cell.id: cell.stage for cell in grid.cells})
    if not chosen:
        nothing = f"none of what you named is among the {len(failed)} cells that" if failed else "nothing"
        out.print(f"{nothing} failed in {grid.id}")
        return 0
    only = with_children(outlook, chosen)
    out.print(f"{grid.id}: {screen.plural(len(chosen), 'cell')} failed, {len(only) - len(chosen)} stand on what failed")
    last = _last_run(outlook, chosen)
    for name in _AS_BEFORE:
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(last.options, name) if last else arguments.defaults[name])
    profile = load(arguments.profile or (last.profile if last else None))
    profile = profile.with_more(arguments.memory, arguments.minutes)
    return launch.compute(out, grid, arguments, only=only, profile=profile)


def with_children(outlook: Outlook, chosen: set[str]) -> set[str]:
    """``chosen`` and the cells that can be computed once they are done."""
    found = set(chosen)
    for cell in outlook.grid.cells:  # parents come before children
        parents = set(cell.parents.values())
        if parents & found and all(p in found or outlook.cells[p].state == "done" for p in parents):
            found.add(cell.id)
    return found


def _last_run(outlook: Outlook, cells: set[str]) -> Run | None:
    """The last submission of any of the cells."""
    from bench.slurm.journal import Journal

    folders = sorted({task.run for cell_id in cells if (task := outlook.cells[cell_id].task) is not None})
    return Journal(folders[-1]).run() if folders else None


def _gigabytes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected gigabytes above 0, not {text!r}")
    return number
