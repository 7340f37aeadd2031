"""Count the bytes of images, labels and label models for every method and label choice, without running anything.

With a data set, each method has its own recipe; with a number of classes, epochs and batches are as given.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from bench.cli import screen
from bench.errors import UserError
from bench.planning.protocols import read_settings
from bench.planning.suites import STORAGE
from bench.storage_calculator.request import SMALL, SUITE, StorageRequest

ARGUMENTS = """
--dataset NAME  a data set, or folder:PATH; see bench list datasets
--classes N  a number of classes instead of a data set
--image-size PX  with --classes (default: 224)
--ipc N,…  images per class (default: 1,10,50,200)
--epochs N  default: the recipe's; with --classes 300
--batch-size N  default: the recipe's; with --classes 1024
--teacher ARCH  any architecture (default: the data set's; with --classes resnet18)
--methods NAME,…  default: those of HeLlO's Figure 1
--labels CHOICE,…  as for bench run, e.g. stored:int8,teacher:int8,native,hard
--paper  add what papers print (default: for 100 or 1,000 classes at 224 px, without --labels)
| --json  print JSON
| --csv  print CSV, a line per method, labels and IPC
| --out DIR  write a page with a figure, and a CSV
"""
EXAMPLES = """examples:
  python -m bench storage --dataset imagenet-1k                        each method under its own recipe
  python -m bench storage --classes 1000 --ipc 1,10,50,200 --epochs 300
  python -m bench storage --classes 200 --image-size 64 --teacher resnet18-small --labels stored:int8,teacher:int8
  python -m bench storage --dataset imagenet-100 --methods 'hello,hello[conv_rank=32]' --labels native
  python -m bench storage --dataset imagenet-1k --json                 to the byte, for programs
  python -m bench storage --dataset imagenet-1k --out leaderboards/suites/storage   as a page with a figure
"""
WIDEST = 100  # columns
GRID_FLAGS = ("dataset", "ipc", "methods", "labels")  # that bench run --suite storage understands


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench storage``."""
    from bench.storage_calculator import output

    given = {name: value for name in StorageRequest.model_fields if (value := getattr(arguments, name)) is not None}
    request = read_settings(StorageRequest, given, "bench storage")
    if arguments.json or arguments.csv:
        sys.stdout.write(output.render_json(request) if arguments.json else output.render_csv(request))
    elif arguments.out is None:
        _show(request, screen.console(), arguments.paper or (False if arguments.labels else None))
    else:
        _write(request, arguments.out, screen.console())
    return 0


def run(given: dict[str, Any], out: Console, boards: Path, *, small: bool, dry_run: bool) -> None:
    """Run ``bench run --suite storage``: print every table, and write page, figure and CSV below ``boards``.

    Args:
        given: the fields of a grid request that flags were given for.

    Raises:
        UserError: a flag that only cells use, an unknown name, or labels that are not possible.
    """
    if others := [name for name in given if name not in GRID_FLAGS]:
        raise UserError(
            f"--suite {STORAGE} counts bytes without a grid, so it has no use for {', '.join(others)}; it takes "
            f"--{', --'.join(GRID_FLAGS)}, and bench storage takes more"
        )
    usual = (SMALL if small else SUITE).model_dump(exclude_unset=True)
    request = read_settings(StorageRequest, {**usual, **given}, f"--suite {STORAGE}")
    _show(request, out)
    if not dry_run:
        _write(request, boards / "suites" / STORAGE, out)


def _write(request: StorageRequest, folder: Path, out: Console) -> None:
    from bench.storage_calculator.output import write

    for path in write(request, folder):
        out.print(f"wrote {path}", markup=False)


def _show(request: StorageRequest, out: Console, paper: bool | None = None) -> None:
    from bench.storage_calculator.tables import tables

    width = min(WIDEST, out.width)
    for one in tables(request, paper):
        right = [name for name, side in one.columns.items() if side == "right"]
        out.print(f"[bold]{escape(one.title)}[/]")
        out.print("\n".join(textwrap.wrap(one.about, width)), style="dim", markup=False)
        cells = [[escape(cell) for cell in row] for row in one.rows]
        out.print(screen.table(list(one.columns), cells, right=right), width=width)
        out.print()
