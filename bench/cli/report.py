"""Write the leaderboards from the records of a store, or check that the committed ones follow from theirs.

A board is a pure function of its records. Beside DATASET.md, DATASET.csv, the figures in DATASET/ and the page
DATASET.html lies DATASET.records.jsonl, from which all are made again where there is no store, and which ``--check``
takes unless a store is named. Distilled images on the page come from DATASET.pictures.json, which ``--pictures`` draws
from a store."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import options as flags
from bench.cli import screen
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.harness.store import Store

HELP = "write or check the leaderboards"
EXAMPLES = """examples:
  python -m bench report                                   boards of everything in the store
  python -m bench report --check                           do the committed boards follow from their records?
  python -m bench report --store /shared/me/bench --check   and from this store?
  python -m bench report --pictures --data-root /data      and distilled images beside real ones on the pages
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench report``."""
    parser.add_argument("--store", type=Path, metavar="PATH", help="where records lie (default as for bench run)")
    parser.add_argument("--out", type=Path, default=Path("leaderboards"), metavar="DIR", help="default: leaderboards")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    parser.add_argument("--pictures", action="store_true", help="draw distilled images for the pages first")
    flags.data_root_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """``bench report``; 1 when ``--check`` finds drift."""
    from bench.harness.report.board_titles import titles_and_baselines
    from bench.harness.report.collect import collect
    from bench.harness.report.entries import Entry, LeftOut, read_jsonl, unread
    from bench.harness.report.publish import SUFFIX, drift, publish
    from bench.harness.report.wording import plain
    from bench.harness.store import Store

    out = screen.console()
    entries: list[Entry] = []
    left_out: dict[str, list[LeftOut]] = {}
    place = arguments.store or Path(os.environ.get(flags.STORE_VARIABLE, ".bench"))
    kept = sorted(arguments.out.glob(f"*{SUFFIX}"))
    if arguments.store is None and (arguments.check or (kept and not (place / "cells").is_dir())):
        for path in kept:
            found = read_jsonl(path)
            entries += found.entries
            left_out[path.name.removesuffix(SUFFIX)] = found.left_out
        source = f"{arguments.out}/*.records.jsonl"
    else:
        entries = collect(Store(flags.existing_store(place)))
        source = str(place)
    for text in [*unread(entries), *(str(one) for stem in sorted(left_out) for one in left_out[stem])]:
        out.print(f"left out: {plain(text)}", style="red", markup=False)
    if not entries:
        raise UserError(f"there is nothing to report in {source}; bench run makes records")
    titles, baselines = titles_and_baselines()
    if arguments.pictures:
        _draw_pictures(arguments, Store(flags.existing_store(place)), sorted({entry.dataset for entry in entries}))
    if not arguments.check:
        for path in publish(entries, arguments.out, titles, baselines, left_out):
            out.print(f"wrote {path}")
        return 0
    differing = drift(entries, arguments.out, titles, baselines, left_out)
    for line in differing:
        out.print(f"drift: {line}")
    if not differing:
        out.print(f"the boards in {arguments.out} follow from {source}")
    return 1 if differing else 0


def _draw_pictures(arguments: argparse.Namespace, store: Store, datasets: list[str]) -> None:
    from bench.harness.pictures import draw_pictures  # imports torch
    from bench.harness.report.illustrated import PICTURES
    from bench.harness.report.pictures import write_pictures
    from bench.harness.report.stems import file_stem

    for dataset in datasets:
        if (pictures := draw_pictures(store, dataset, arguments.data_root)) is not None:
            write_pictures(arguments.out / f"{file_stem(dataset)}{PICTURES}", pictures)
