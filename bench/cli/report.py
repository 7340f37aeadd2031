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
from bench.format import plain, slug

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
    """Add the flags of ``bench report``."""
    parser.add_argument("--store", type=Path, metavar="PATH", help="where records lie (default as for bench run)")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--replace", action="store_true", help="drop what the boards have and the store has not")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    parser.add_argument("--pictures", action="store_true", help="draw distilled images for the pages first")
    flags.data_root_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench report``; 1 when ``--check`` finds drift, or a record or grid of the store can't be read."""
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
        where = store.root if store else arguments.out
        raise UserError(f"there is nothing to report in {where}; bench run makes records")
    unreadable = manifest.unreadable(store) if store else []
    differing = _check(out, arguments.out, present, boards, store) if arguments.check else False
    if not arguments.check:
        if arguments.pictures:
            _draw_grids(arguments, Store(flags.existing_store(place)), boards)
        for path, change, _ in publish.update(boards, arguments.out, arguments.replace):
            out.print(f"wrote {path}: {change}", markup=False)
    damaged = sorted({text for one in boards for entry in one.entries for text in entry.damaged})
    for text in [*unreadable, *damaged, *(f"{one.stem}: {line}" for one in boards for line in one.left_out)]:
        out.print(f"left out: {plain(text)}", style="red", markup=False)
    return 1 if differing or unreadable or damaged else 0


def _check(out: Console, where: Path, present: list[Board], boards: list[Board], store: Store | None) -> bool:
    """Return whether the boards of a folder differ from what they and the store's records give."""
    from bench.planning.suites import STORAGE
    from bench.report import publish
    from bench.storage_calculator import output as storage

    if store is not None:
        merged = {(one.suite, one.stem): one for one in present}
        for one in boards:
            key = one.suite, one.stem
            merged[key] = publish.merge(merged[key], one)[0] if key in merged else one
        present = list(merged.values())
    differing = [*publish.check(where, present), *storage.drift(publish.folder(where, STORAGE))]
    for line in differing:
        out.print(f"drift: {line}", markup=False)
    if not differing:
        out.print(f"the boards in {where} follow from {'their records' if store is None else store.root}", markup=False)
    return bool(differing)


def _draw_grids(arguments: argparse.Namespace, store: Store, boards: list[Board]) -> None:
    from bench.exchange.nearest_images import draw_grids  # imports torch
    from bench.report.image_grid import SUFFIX
    from bench.store.artifacts import write_atomically

    for dataset in sorted({entry.dataset for one in boards if not one.suite for entry in one.entries}):
        if (grids := draw_grids(store, dataset, arguments.data_root)) is not None:
            write_atomically(arguments.out / f"{slug(dataset)}{SUFFIX}", grids.render())
