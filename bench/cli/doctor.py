"""Check the environment of a run: this machine, the Slurm cluster and its nodes.

A short job for each kind of node that a profile requests checks code, torch, a shared store, locks and clocks.

A profile is a TOML file, profiles/NAME.toml here or ~/.config/distill-bench/profiles/NAME.toml.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.cli import launch, screen
from bench.cli.options import STORE
from bench.errors import UserError
from bench.planning import manifest
from bench.slurm.doctor import Check, check_cluster, check_machine, either
from bench.slurm.node_check import check_nodes
from bench.slurm.profile import load
from bench.store.artifacts import Store

ARGUMENTS = f"""
--profile NAME  the profile to check (default: sbatch's own defaults)
{STORE}
--no-job  submit nothing: leave the nodes out
--wait MINUTES = 5  in which each job must start (default: 5)
"""
DEFAULTS = {"no_preflight": False, "native_kernels": False, "out": None}
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
  processes = 4                           # share one cell, in one task
  tasks = 16                              # share one cell of independent blocks instead, an accelerator each
  cpus = 12                               # per process
  memory_gb = 64                          # per node
  minutes = 1440
"""
_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("–", "yellow")}


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench doctor``; 1 if something is wrong."""
    out, profile = screen.console(), load(arguments.profile)
    used = f", as {arguments.profile} uses it" if arguments.profile else ""
    found = [*_show(out, "this machine", check_machine(arguments.store)), *_show(out, "", _newest_grid(arguments))]
    found += _show(out, f"\nthe cluster{used}", check_cluster(profile))
    well = {check.name for check in found if check.ok}
    if not arguments.no_job and {"cluster", "store"} <= well:
        shown = ""
        with out.status("") as spinner:  # shows nothing in a log
            for kind, check in check_nodes(Store(arguments.store), profile, 60 * arguments.wait, spinner.update):
                found += _show(out, f"\na node for {kind}" if kind != shown else "", [check])
                shown = kind
    elif not arguments.no_job and "cluster" in well:
        out.print("\nno jobs are sent to the nodes: they need a store that is writable")
    wrong = sum(check.ok is False for check in found)
    out.print(f"\n{wrong} of {len(found)} checks failed" if wrong else f"\nall is well ({len(found)} checks)")
    return 1 if wrong else 0


def _newest_grid(arguments: argparse.Namespace) -> Iterator[Check]:
    """Check what the newest grid of the store still needs."""
    if (arguments.store / "cells").is_dir() and (known := manifest.newest_first(Store(arguments.store))):
        grid, wrong = known[0].grid, ""
        try:
            launch.preflight(grid, arguments)
        except UserError as error:
            wrong = str(error)
        good = f"{grid.id}: networks, files and store are as its cells need them"
        yield either("grid", not wrong, good, f"{grid.id}: {wrong}", "change its request and run it again")


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
