"""Compute a grid of methods, images per class (IPC), seeds and students, and write its leaderboard.

Finished cells are not computed again: a second run of the same grid does no work, and a run that was stopped, killed
or lost its machine resumes.
"""

from __future__ import annotations

import argparse

from bench.api import catalogue
from bench.cli import launch, options, plan_tables, screen, storage
from bench.errors import UserError
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.planning.suites import STORAGE, name_of, suite

ARGUMENTS = f"""
{options.GRID}
options:
--suite NAME  the grid of a paper's experiment, or a TOML file; explicit flags override it
--small  the suite with fewer seeds and epochs, for two cores
{launch.ARGUMENTS}
--dry-run  print the plan, check what it needs, and stop
--force STAGE+  compute the cells of a stage again, and their descendants if their content changed
"""
EXAMPLES = """examples:
  python -m bench run --methods hello,rded --ipc 1,10,50
  python -m bench run --methods hello,rded --ipc 1,10,50 --dataset fashion-mnist --jobs 2
  python -m bench run --methods rded --ipc 10 --dataset folder:/data/pets --students resnet18,vit_b_16 --dry-run
  python -m bench run --methods rded --ipc 10 --dataset imagenet-1k --protocol official --teacher resnet18.pth
  python -m bench run --methods hello --ipc 10 --set hello.conv_rank=4 --force label
  python -m bench run --methods sre2l,rded --ipc 10,50 --profile mycluster --dry-run
  python -m bench run --methods sre2l,rded --ipc 10 --labels native,stored:prune10+topk3,teacher:int8,hard
  python -m bench run --methods 'hello[adapt=head],hello' --ipc 10 --set protocol.epochs=30
  python -m bench run --suite baselines --dry-run
  python -m bench run --suite baselines --small
"""


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench run``; 1 if a cell failed."""
    out = screen.console()
    if arguments.suite == STORAGE:
        storage.run(options.given(arguments), out, arguments.out, small=arguments.small, dry_run=arguments.dry_run)
        return 0
    with out.status("planning; trying data, networks and the store"):
        grids = [plan(request) for request in requests(arguments)]
        for grid in grids if not arguments.dry_run else ():
            catalogue.locate(grid.request.dataset, arguments.data_root)  # missing data is said at once
            launch.preflight(grid, arguments, arguments.force)
    worst = 0
    for grid in grids:
        if len(grids) > 1:
            out.print(f"{grid.dataset.name}:", markup=False)
        if arguments.dry_run:
            plan_tables.show_plan(out, grid, arguments)
            launch.preflight(grid, arguments, arguments.force)
        else:
            worst = max(worst, launch.compute(out, grid, arguments, force=arguments.force))
    return worst


def requests(arguments: argparse.Namespace) -> list[Request]:
    """Return the requests of parsed arguments: one, or those of a suite.

    Raises:
        UserError: a name that nothing answers to, or flags that exclude each other.
    """
    if arguments.suite:
        given = options.given(arguments)
        return suite(arguments.suite).requests(name_of(arguments.suite), small=arguments.small, given=given)
    if arguments.small:
        raise UserError("--small is a form of a suite; name one with --suite, see bench list suites")
    return [options.request(arguments)]
