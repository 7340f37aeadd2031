"""Check that everything is as a run needs it: this machine, the Slurm cluster, and with a short job for each kind of
node that a profile asks for, the nodes: code, torch, a shared store, locks across machines, clocks.

A profile is a TOML file, profiles/NAME.toml here or ~/.config/distill-bench/profiles/NAME.toml."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.cli import options as flags
from bench.cli import screen
from bench.cli.parser import positive

if TYPE_CHECKING:
    from rich.console import Console

    from bench.slurm.doctor import Check

HELP = "is everything as a run needs it, here and on the cluster?"
EXAMPLES = """examples:
  python -m bench doctor
  python -m bench doctor --profile horeka --store /shared/me/bench
  python -m bench doctor --profile horeka --no-job

a profile, all of it optional:
  partition = "gpu"                       # of every task, unless its resource class says otherwise
  account = "vision"                      # also qos, wckey, constraint, gres, cpus, memory_gb, minutes
  setup = ["module load cuda/12.4"]       # shell lines before each task
  throttle = 64                           # tasks of a stage that run at a time; also max_array

  [resources.heavy]                       # a resource class, of any name
  cells = ["teacher", "distill:sre2l"]    # a stage, one method's cells of a stage, or report
  gres = "gpu:4"
  processes = 4                           # that share one cell
  cpus = 12                               # of each process
  memory_gb = 64                          # of each node
  minutes = 1440
"""
_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "yellow")}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench doctor``."""
    parser.add_argument("--profile", metavar="NAME", help="the profile to check (default: what sbatch gives unasked)")
    flags.store_flag(parser)
    parser.add_argument("--no-job", action="store_true", help="submit nothing: leave the nodes out")
    parser.add_argument(
        "--wait", type=positive, default=5, metavar="MINUTES", help="in which each job must start (default: 5)"
    )


def execute(arguments: argparse.Namespace) -> int:
    """``bench doctor``; 1 when something is wrong."""
    from bench.slurm.doctor import cluster, this_machine
    from bench.slurm.profile import load

    out = screen.console()
    profile = load(arguments.profile)
    here = _show(out, "this machine", this_machine(arguments.store))
    there = _show(
        out, "the cluster" + (f", as {arguments.profile} uses it" if arguments.profile else ""), cluster(profile)
    )
    found = [*here, *there]
    if not arguments.no_job and any(check.name == "cluster" and check.ok for check in there):
        found += _nodes(out, arguments, any(check.name == "store" and check.ok for check in here))
    wrong = sum(check.ok is False for check in found)
    out.print(f"\n{wrong} of {len(found)} checks failed" if wrong else f"\nall is well ({len(found)} checks)")
    return 1 if wrong else 0


def _nodes(out: Console, arguments: argparse.Namespace, shared: bool) -> list[Check]:
    """Send a job to each kind of node."""
    from bench.slurm.node_report import nodes
    from bench.slurm.profile import load
    from bench.store.artifacts import Store

    if not shared:
        out.print("\nno jobs are sent to the nodes: they need a store that can be written")
        return []
    found, told = [], ""
    with out.status("") if out.is_terminal else nullcontext() as spinner:

        def tell(what: str) -> None:
            if spinner is not None:
                spinner.update(what)

        for names, check in nodes(Store(arguments.store), load(arguments.profile), 60 * arguments.wait, tell):
            if names != told:
                told = names
                out.print(Text(f"\na node for {names}", style="bold"))
            out.print(_told(check))
            found.append(check)
    return found


def _show(out: Console, title: str, checks: Iterable[Check]) -> list[Check]:
    """Print findings as they come."""
    out.print(Text(title if title == "this machine" else f"\n{title}", style="bold"))
    found = []
    for check in checks:
        out.print(_told(check))
        found.append(check)
    return found


def _told(check: Check) -> Group:
    mark, colour = _MARKS[check.ok]
    rows = [_row(Text(mark, style=colour), check.name, Text(check.found))]
    if check.advice:
        rows.append(_row(Text(), "", Text(f"→ {check.advice}", style=colour)))
    return Group(*rows)


def _row(mark: Text, name: str, text: Text) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=3, justify="right")
    row.add_column(width=10, no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(mark, name, text)
    return row
