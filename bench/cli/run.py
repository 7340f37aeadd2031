"""Compute a grid of methods, images per class (IPC), seeds and students, and write its leaderboard.

Finished cells are not computed again: a second run of the same grid does no work, and a run that was stopped, killed
or lost its machine resumes.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bench.cli import launch, plan_tables, screen, storage
from bench.cli import options as flags
from bench.errors import UserError
from bench.store.cell import STAGES

if TYPE_CHECKING:
    from bench.planning.grid import Request

HELP = "compute a grid and write its leaderboard"
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


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``bench run``."""
    flags.grid_flags(parser)
    parser.add_argument(
        "--suite", metavar="NAME", help="the grid of a paper's experiment, or a TOML file; explicit flags override it"
    )
    parser.add_argument("--small", action="store_true", help="the suite with fewer seeds and epochs, for two cores")
    group = launch.flags(parser)
    group.add_argument("--dry-run", action="store_true", help="print the plan, check what it needs, and stop")
    group.add_argument(
        "--force",
        action="append",
        choices=STAGES,
        default=[],
        metavar="STAGE",
        help="compute the cells of a stage again, and their descendants if their content changed",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench run``; 1 if a cell failed."""
    from bench.api import catalogue
    from bench.planning.plan import plan
    from bench.planning.suites import STORAGE

    out = screen.console()
    if arguments.suite == STORAGE:
        storage.run(flags.given(arguments), out, arguments.out, small=arguments.small, dry_run=arguments.dry_run)
        return 0
    grids = [plan(request) for request in requests(arguments)]
    if not arguments.dry_run:
        for grid in grids:
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
    from bench.planning.suites import name_of, suite

    if arguments.suite:
        given = flags.given(arguments)
        return suite(arguments.suite).requests(name_of(arguments.suite), small=arguments.small, given=given)
    if arguments.small:
        raise UserError("--small is a form of a suite; name one with --suite, see bench list suites")
    return [flags.request(arguments)]
