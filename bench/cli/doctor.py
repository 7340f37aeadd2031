"""Check the environment of a run: this machine, the Slurm cluster and its nodes.

A short job for each kind of node that a profile requests checks code, torch, a shared store, locks and clocks.

A profile is a TOML file, profiles/NAME.toml here or ~/.config/distill-bench/profiles/NAME.toml.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from bench.cli import launch, screen
from bench.cli import options as flags
from bench.cli.parser import positive
from bench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.slurm.doctor import Check
    from bench.slurm.profile import Profile

HELP = "check the environment, here and on the cluster"
EXAMPLES = """examples:
  python -m bench doctor
  python -m bench doctor --profile mycluster --store /shared/me/bench
  python -m bench doctor --profile mycluster --no-job

a profile, all of it optional:
  partition = "gpu"                       # of every task, unless its resource class says otherwise
  account = "vision"                      # also qos, wckey, constraint, gres, cpus, memory_gb, minutes
  setup = ["module load cuda/12.4"]       # shell lines before each task
  throttle = 64                           # parallel tasks of a stage and class; also max_array

  [resources.heavy]                       # a resource class, of any name
  cells = ["teacher", "distill:sre2l"]    # a stage, STAGE:METHOD, or report
  gres = "gpu:a100:4"                     # one accelerator per process that works: one where a cell can't be shared
  processes = 4                           # share one cell
  cpus = 12                               # per process
  memory_gb = 64                          # per node
  minutes = 1440
"""
_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "yellow")}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``bench doctor``."""
    parser.add_argument("--profile", metavar="NAME", help="the profile to check (default: sbatch's own defaults)")
    flags.store_flag(parser)
    parser.add_argument("--no-job", action="store_true", help="submit nothing: leave the nodes out")
    parser.add_argument(
        "--wait", type=positive, default=5, metavar="MINUTES", help="in which each job must start (default: 5)"
    )
    parser.set_defaults(no_preflight=False, out=None)


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench doctor``; 1 if something is wrong."""
    from bench.slurm.doctor import check_cluster, check_machine
    from bench.slurm.profile import load

    out = screen.console()
    profile = load(arguments.profile)
    used = f", as {arguments.profile} uses it" if arguments.profile else ""
    found = _show(out, "this machine", [*check_machine(arguments.store), *_newest_grid(arguments)])
    found += _show(out, f"\nthe cluster{used}", check_cluster(profile))
    well = {check.name for check in found if check.ok}
    if not arguments.no_job and "cluster" in well:
        if "store" in well:
            found += _nodes(out, arguments, profile)
        else:
            out.print("\nno jobs are sent to the nodes: they need a store that is writable")
    wrong = sum(check.ok is False for check in found)
    out.print(f"\n{wrong} of {len(found)} checks failed" if wrong else f"\nall is well ({len(found)} checks)")
    return 1 if wrong else 0


def _newest_grid(arguments: argparse.Namespace) -> list[Check]:
    """Check what the newest grid of the store still needs."""
    from bench.planning import manifest
    from bench.slurm.doctor import Check
    from bench.store.artifacts import Store

    if not (arguments.store / "cells").is_dir() or not (known := manifest.newest_first(Store(arguments.store))):
        return []
    try:
        launch.preflight(known[0].grid, arguments)
    except UserError as error:
        return [Check("grid", False, f"{known[0].grid.id}: {error}", "change its request and run it again")]
    return [Check("grid", True, f"{known[0].grid.id}: networks, files and store are as its cells need them")]


def _nodes(out: Console, arguments: argparse.Namespace, profile: Profile) -> list[Check]:
    """Send a job to a node of each kind, and show its findings."""
    from bench.slurm.node_report import check_nodes
    from bench.store.artifacts import Store

    found: list[Check] = []
    shown = ""
    with out.status("") as spinner:  # shows nothing in a log
        for names, check in check_nodes(Store(arguments.store), profile, 60 * arguments.wait, spinner.update):
            found += _show(out, f"\na node for {names}" if names != shown else "", [check])
            shown = names
    return found


def _show(out: Console, title: str, checks: Iterable[Check]) -> list[Check]:
    """Print findings as they come."""
    if title:
        out.print(Text(title, style="bold"))
    found = []
    for check in checks:
        mark, colour = _MARKS[check.ok]
        rows = Table.grid(padding=(0, 1))
        rows.add_column(width=3, justify="right")
        rows.add_column(min_width=10)
        rows.add_column(overflow="fold")
        rows.add_row(Text(mark, style=colour), check.name, Text(check.found))
        if check.advice:
            rows.add_row("", "", Text(f"→ {check.advice}", style=colour))
        out.print(rows)
        found.append(check)
    return found
