"""Say what is found of a data set: where, how many images, the class order; or where to get it and put it.

``icons-100`` is built here, from the npm package @iconify/json."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli import options as flags
from bench.cli import screen
from bench.errors import UserError

HELP = "what is found of a data set"
EXAMPLES = """examples:
  python -m bench data digits
  python -m bench data imagenet-1k --data-root /data
  python -m bench data folder:/data/pets
  npm pack @iconify/json && python -m bench data icons-100 --source iconify-json-*.tgz
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bench data``."""
    parser.add_argument("name", metavar="NAME", help="a data set of bench list datasets, or folder:PATH")
    parser.add_argument("--source", type=Path, metavar="DIR_OR_TGZ", help="build icons-100 from this package")
    flags.data_root_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """``bench data``; 1 when the data set is not complete."""
    from bench.api import catalogue
    from bench.execution.datasets import build_icons, describe

    out = screen.console()
    if arguments.source is not None:
        if arguments.name != "icons-100":
            raise UserError(f"--source builds icons-100, not {arguments.name}")
        place = catalogue.root_of("icons-100", arguments.data_root) / "icons-100"
        with screen.work_bar(out, "drawing icons") as progress:
            build_icons(arguments.source, place, progress)
    described = describe(arguments.name, arguments.data_root)
    for name, text in described.items():
        out.print(f"{name:<14}{text}", markup=False)
    return 1 if "problem" in described else 0
