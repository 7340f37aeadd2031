"""Merge the records of a store into the leaderboards of a folder, or check that these follow from their records.

A board is a pure function of its records, which lie beside it as DATASET.records.jsonl; the store adds to them by cell
and never takes a row away, unless --replace says so. Without a store all boards are written again from their records.
Distilled images on a page come from DATASET.pictures.json, which --pictures draws from a store.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import options as flags
from bench.cli import screen
from bench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.report.publish import Board
    from bench.store.artifacts import Store

HELP = "write or check the leaderboards"
EXAMPLES = """examples:
  python -m bench report                                   boards of everything in the store, below results/
  python -m bench report --out leaderboards                merge it into the published ones
  python -m bench report --check --out leaderboards        do the published boards follow from their records?
  python -m bench report --pictures --data-root /data      and distilled images beside real ones on the pages
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench report``."""
    parser.add_argument("--store", type=Path, metavar="PATH", help="where records lie (default as for bench run)")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--replace", action="store_true", help="drop what the boards have and the store has not")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    parser.add_argument("--pictures", action="store_true", help="draw distilled images for the pages first")
    flags.data_root_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """``bench report``; 1 when ``--check`` finds drift, or a record or grid of the store can't be read."""
    from bench.planning import manifest
    from bench.report import publish
    from bench.store.artifacts import Store

    out = screen.console()
    place = arguments.store or Path(os.environ.get(flags.STORE_VARIABLE, ".bench"))
    store = None
    if arguments.store is not None or (not arguments.check and (place / "cells").is_dir()):
        store = Store(flags.existing_store(place))
    present = publish.present(arguments.out)
    boards = present if store is None else publish.from_store(store)
    if not any(one.entries or one.left_out for one in boards):
        raise UserError(
            f"there is nothing to report in {store.root if store else arguments.out}; bench run makes records"
        )
    wrong = manifest.unreadable(store) if store else []
    if arguments.check:
        return max(_check(arguments.out, present, boards, store, out), _left_out(wrong, boards, out))
    if arguments.pictures:
        _draw_grids(arguments, Store(flags.existing_store(place)), boards)
    for path, change, _ in publish.update(boards, arguments.out, arguments.replace):
        out.print(f"wrote {path}: {change}", markup=False)
    return _left_out(wrong, boards, out)


def _left_out(wrong: list[str], boards: list[Board], out: Console) -> int:
    """Name what could not be read; 1 where the store holds such a thing."""
    from bench.format import plain

    damaged = sorted({text for one in boards for entry in one.entries for text in entry.damaged})
    lines = [f"{one.stem}: {line}" for one in boards for line in one.left_out]
    for text in [*wrong, *damaged, *lines]:
        out.print(f"left out: {plain(text)}", style="red", markup=False)
    return 1 if wrong or damaged else 0


def _check(where: Path, present: list[Board], boards: list[Board], store: Store | None, out: Console) -> int:
    from bench.planning.suites import STORAGE
    from bench.report import drift, publish
    from bench.storage_calculator import output as storage

    if store is not None:
        known = {(one.suite, one.stem): one for one in present}
        wanted = {(one.suite, one.stem): one for one in boards}
        merged = {key: publish.merge(known[key], one)[0] if key in known else one for key, one in wanted.items()}
        present = list((known | merged).values())
    differing = [*drift.check(where, present), *storage.drift(publish.folder(where, STORAGE))]
    for line in differing:
        out.print(f"drift: {line}", markup=False)
    if not differing:
        out.print(f"the boards in {where} follow from {'their records' if store is None else store.root}", markup=False)
    return 1 if differing else 0


def _draw_grids(arguments: argparse.Namespace, store: Store, boards: list[Board]) -> None:
    from bench.exchange.nearest_images import draw_grids  # imports torch
    from bench.format import slug
    from bench.report.image_grid import SUFFIX
    from bench.store.artifacts import write_atomically

    for dataset in sorted({entry.dataset for one in boards if not one.suite for entry in one.entries}):
        if (pictures := draw_grids(store, dataset, arguments.data_root)) is not None:
            write_atomically(arguments.out / f"{slug(dataset)}{SUFFIX}", pictures.render())
