"""Write the leaderboards from the records of a store, or check that the committed ones follow from theirs.

A board is a pure function of its records. Beside DATASET.md, DATASET.csv, the figures in DATASET/ and the page
DATASET.html lies DATASET.records.jsonl, from which all are made again where there is no store, and which ``--check``
takes unless a store is named. Distilled images on the page come from DATASET.pictures.json, which ``--pictures`` draws
from a store."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.cli import options as flags
from bench.cli import screen
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.report_legacy.entries import Entry, LeftOut
    from bench.store.artifacts import Store

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
    from bench.planning.suites import WEIGHED
    from bench.report_legacy.board_titles import titles_and_baselines
    from bench.report_legacy.boards import folder, kept
    from bench.report_legacy.entries import unread
    from bench.report_legacy.publish import drift, publish
    from bench.report_legacy.wording import plain
    from bench.storage_calculator import files as storage
    from bench.store.artifacts import Store

    out = screen.console()
    place = arguments.store or Path(os.environ.get(flags.STORE_VARIABLE, ".bench"))
    present = kept(arguments.out)
    if arguments.store is None and (arguments.check or (present and not (place / "cells").is_dir())):
        found = {suite: _from_boards(folder(arguments.out, suite)) for suite in present}
        source = f"{arguments.out}/*.records.jsonl"
    else:
        found = _from_store(Store(flags.existing_store(place)))
        source = str(place)
    if not any(group.entries for group in found.values()):
        raise UserError(f"there is nothing to report in {source}; bench run makes records")
    titles, baselines = titles_and_baselines()
    differing = storage.drift(folder(arguments.out, WEIGHED)) if arguments.check else []
    for suite, group in found.items():
        lost = [one for stem in sorted(group.left_out) for one in group.left_out[stem]]
        for text in [*unread(group.entries), *map(str, lost)]:
            out.print(f"left out: {plain(text)}", style="red", markup=False)
        where = folder(arguments.out, suite)
        if arguments.pictures and not suite:
            _draw_pictures(arguments, Store(flags.existing_store(place)), sorted({e.dataset for e in group.entries}))
        if arguments.check:
            differing += drift(group.entries, where, titles, baselines, group.left_out, suite)
        else:
            for path in publish(group.entries, where, titles, baselines, group.left_out, suite):
                out.print(f"wrote {path}")
    if not arguments.check:
        return 0
    for line in differing:
        out.print(f"drift: {line}")
    if not differing:
        out.print(f"the boards in {arguments.out} follow from {source}")
    return 1 if differing else 0


class _Found(NamedTuple):
    """What the boards of a folder are made from; ``left_out`` by the stem of the board."""

    entries: list[Entry]
    left_out: dict[str, list[LeftOut]]


def _from_boards(where: Path) -> _Found:
    from bench.report_legacy.entries import read_jsonl
    from bench.report_legacy.publish import SUFFIX

    files = {path.name.removesuffix(SUFFIX): read_jsonl(path) for path in sorted(where.glob(f"*{SUFFIX}"))}
    entries = [entry for one in files.values() for entry in one.entries]
    return _Found(entries, {stem: one.left_out for stem, one in files.items()})


def _from_store(store: Store) -> dict[str, _Found]:
    from bench.planning.manifest import newest_first
    from bench.report_legacy.collect import collect

    suites = sorted({kept.grid.request.suite for kept in newest_first(store)})
    return {suite: _Found(collect(store, suite), {}) for suite in suites}


def _draw_pictures(arguments: argparse.Namespace, store: Store, datasets: list[str]) -> None:
    from bench.exchange.nearest_images import draw_pictures  # imports torch
    from bench.report_legacy.illustrated import PICTURES
    from bench.report_legacy.pictures import write_pictures
    from bench.report_legacy.stems import file_stem

    for dataset in datasets:
        if (pictures := draw_pictures(store, dataset, arguments.data_root)) is not None:
            write_pictures(arguments.out / f"{file_stem(dataset)}{PICTURES}", pictures)
