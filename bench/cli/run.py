"""Compute a grid of methods, images per class (IPC), seeds and students, and write its leaderboard.

What is done already is not done again: a second run of the same grid does no work, and a run that was stopped,
killed or lost its machine goes on where it was."""

from __future__ import annotations

import argparse

from bench.cli import launch, screen
from bench.cli import options as flags
from bench.harness.identity import STAGES

HELP = "compute a grid and write its leaderboard"
EXAMPLES = """examples:
  python -m bench run --methods hello,rded --ipc 1,10,50
  python -m bench run --methods hello,rded --ipc 1,10,50 --dataset fashion-mnist --jobs 2
  python -m bench run --methods rded --ipc 10 --dataset folder:/data/pets --students resnet18,vit_b_16 --dry-run
  python -m bench run --methods rded --ipc 10 --dataset imagenet-1k --protocol official --teacher resnet18.pth
  python -m bench run --methods hello --ipc 10 --set hello.conv_rank=4 --force label
  python -m bench run --methods sre2l,rded --ipc 10,50 --profile mycluster --dry-run
  python -m bench run --methods sre2l,rded --ipc 10 --labels native,stored:prune10+topk10,teacher:int8,hard
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench run``."""
    flags.grid_flags(parser)
    group = launch.flags(parser)
    group.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    group.add_argument(
        "--force",
        action="append",
        choices=STAGES,
        default=[],
        metavar="STAGE",
        help="compute the cells of a stage again; what stands on them follows if they come out another",
    )


def execute(arguments: argparse.Namespace) -> int:
    """``bench run``; 1 when a cell failed."""
    from bench import catalogue
    from bench.harness.plan import plan

    out = screen.console()
    grid = plan(flags.request(arguments))
    if arguments.dry_run:
        launch.show_what_would_be_done(out, grid, arguments)
        return 0
    if grid.dataset.fingerprint is None and grid.dataset.name != "digits":
        catalogue.locate(grid.dataset.name, arguments.data_root)  # missing data is said at once
    return launch.compute(out, grid, arguments, force=arguments.force)
