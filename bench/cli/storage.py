"""What images, labels and label models weigh, for every method and way to store labels, without running anything.

Of a data set, each method under its own recipe; else for a number of classes, with epochs and batches as given."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from bench.cli import screen
from bench.cli.parser import names, numbers, positive
from bench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.storage_calculator.asked import Asked

HELP = "what labels weigh, by arithmetic alone"
EXAMPLES = """examples:
  python -m bench storage --dataset imagenet-1k                        each method under its own recipe
  python -m bench storage --classes 1000 --ipc 1,10,50,200 --epochs 300
  python -m bench storage --classes 200 --image-size 64 --teacher resnet18-small --labels stored:int8,teacher:int8
  python -m bench storage --dataset imagenet-100 --methods 'hello,hello[conv_rank=32]' --labels native
  python -m bench storage --dataset imagenet-1k --json                 to the byte, for programs
  python -m bench storage --dataset imagenet-1k --out leaderboards/suites/storage   as a page with a figure
"""
WIDEST = 100  # columns
OF_A_GRID = ("dataset", "ipc", "methods", "labels")  # flags that bench run --suite storage understands


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench storage``."""
    parser.add_argument("--dataset", metavar="NAME", help="a data set, or folder:PATH; see bench list datasets")
    parser.add_argument("--classes", type=positive, metavar="N", help="instead of a data set: so many classes")
    parser.add_argument("--image-size", type=positive, metavar="PX", help="with --classes (default: 224)")
    parser.add_argument(
        "--ipc", type=numbers("images per class"), metavar="N,…", help="images per class (default: 1,10,50,200)"
    )
    parser.add_argument("--epochs", type=positive, metavar="N", help="default: the recipe's; with --classes 300")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="default: the recipe's; with --classes 1024")
    parser.add_argument("--teacher", metavar="ARCH", help="a ResNet (default: the data set's; with --classes resnet18)")
    parser.add_argument(
        "--methods", type=names, help="default: sre2l, g_vbsm, rded, hello, and hello with its numbers in fp16"
    )
    parser.add_argument(
        "--labels", type=names, metavar="CHOICE,…", help="as for bench run, e.g. stored:int8,teacher:int8,native,hard"
    )
    parser.add_argument(
        "--paper", action="store_true", default=None,
        help="what papers print beside what the formulas give (default: for 100 or 1,000 classes at 224 px)",
    )  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV, a line a method, labels and IPC")
    form.add_argument("--out", type=Path, metavar="DIR", help="write a page with a figure, and a CSV")


def execute(arguments: argparse.Namespace) -> int:
    """``bench storage``."""
    from bench.planning.protocols import read_settings
    from bench.storage_calculator.asked import Asked
    from bench.storage_calculator.files import render_csv, render_json, write

    fields = ("dataset", "classes", "image_size", "ipc", "epochs", "batch_size", "teacher", "methods", "labels")
    given = {name: value for name in fields if (value := getattr(arguments, name)) is not None}
    asked = read_settings(Asked, given, "bench storage")
    if arguments.json or arguments.csv:
        sys.stdout.write(render_json(asked) if arguments.json else render_csv(asked))
        return 0
    out = screen.console()
    if arguments.out is None:
        show(asked, out, arguments.paper)
    else:
        for path in write(asked, arguments.out):
            out.print(f"wrote {path}", markup=False)
    return 0


def run(given: dict[str, Any], out: Console, boards: Path, *, small: bool, dry_run: bool) -> None:
    """``bench run --suite storage``: print every table, and write page, figure and CSV below ``boards``.

    Args:
        given: the fields of a grid that flags were given for.

    Raises:
        UserError: a flag that only cells have a use for, or as :func:`show`.
    """
    from bench.planning.protocols import read_settings
    from bench.planning.suites import WEIGHED
    from bench.storage_calculator.asked import SMALL, SUITE, Asked
    from bench.storage_calculator.files import write

    if others := [name for name in given if name not in OF_A_GRID]:
        raise UserError(
            f"--suite {WEIGHED} weighs labels without a grid, so it has no use for {', '.join(others)}; it takes "
            f"--{', --'.join(OF_A_GRID)}, and bench storage takes more"
        )
    usual = (SMALL if small else SUITE).model_dump(exclude_unset=True)
    asked = read_settings(Asked, {**usual, **given}, f"--suite {WEIGHED}")
    show(asked, out)
    if not dry_run:
        for path in write(asked, boards / "suites" / WEIGHED):
            out.print(f"wrote {path}", markup=False)


def show(asked: Asked, out: Console, paper: bool | None = None) -> None:
    """Print every table of an answer, at most :data:`WIDEST` columns wide.

    Raises:
        UserError: a name nothing answers to, or labels that can't be.
    """
    from bench.storage_calculator.tables import answer

    width = min(WIDEST, out.width)
    for one in answer(asked, paper):
        right = [name for name, side in one.columns.items() if side == "right"]
        out.print(f"[bold]{escape(one.title)}[/]")
        out.print("\n".join(textwrap.wrap(one.about, width)), style="dim", markup=False)
        cells = [[escape(cell) for cell in row] for row in one.rows]
        out.print(screen.table(list(one.columns), cells, right=right), width=width)
        out.print()
