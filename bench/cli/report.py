"""Merge the records of a store into the leaderboards of a folder, or check that these follow from their records.

A board is a pure function of its records, which are next to it as DATASET.records.jsonl; the store adds to them by cell
and never takes a row away, unless --replace says so. Without a store all boards are written again from their records.
Distilled images on a page come from DATASET.pictures.json, which --pictures draws from a store.
"""

from __future__ import annotations

import argparse

from bench.cli import screen
from bench.cli.options import DATA_ROOT, existing_store
from bench.cli.parser import default_store
from bench.errors import UserError
from bench.format import plain, slug

ARGUMENTS = f"""
--store PATH  where records are (default as for bench run)
--out DIR = results  default: results
--replace  drop what the boards have and the store has not
--check  write nothing; exit with 1 if a file would change
--pictures  draw distilled images for the pages first
{DATA_ROOT}
"""
DEFAULTS = {"store": None}
EXAMPLES = """examples:
  python -m bench report                                   boards of everything in the store, below results/
  python -m bench report --out leaderboards                merge it into the published ones
  python -m bench report --check --out leaderboards        do the published boards follow from their records?
  python -m bench report --pictures --data-root /data      and distilled images beside real ones on the pages
"""


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench report``; 1 when ``--check`` finds drift, or a record or grid can't be read."""
    from bench.planning import manifest
    from bench.planning.suites import STORAGE
    from bench.report import publish
    from bench.report.results import from_store, present
    from bench.storage_calculator import output as storage
    from bench.store.entries import SUFFIX

    out, where = screen.console(), arguments.out
    place = arguments.store or default_store()
    store = None
    if arguments.store is not None or (not arguments.check and (place / "cells").is_dir()):
        store = existing_store(place)
    boards = present(where) if store is None else from_store(store)
    unreadable = manifest.unreadable(store) if store else []
    if not any(one.entries or one.left_out for one in boards):
        why = f"; left out: {'; '.join(unreadable)}" if unreadable else "; bench run makes records"
        raise UserError(f"there is nothing to report in {store.root if store else where}{why}")
    damaged = [f"{one.stem}{SUFFIX}: {line}" for one in present(where) for line in one.left_out] if store else []
    differing: list[str] = []
    if arguments.check:
        merged = {(one.suite, one.stem): one for one in present(where)}
        for one in boards if store else ():
            before = merged.get((one.suite, one.stem))
            merged[one.suite, one.stem] = publish.merge(before, one)[0] if before else one
        differing = [*publish.check(where, merged.values()), *storage.drift(publish.folder(where, STORAGE))]
        follows = f"the boards in {where} follow from {store.root if store else 'their records'}"
        for line in [f"drift: {line}" for line in differing] or [follows]:
            out.print(line, markup=False)
    else:
        if arguments.pictures:
            _draw_grids(arguments, {entry.dataset for one in boards if not one.suite for entry in one.entries})
        for path, change, _ in publish.update(boards, where, arguments.replace):
            out.print(f"wrote {path}: {change}", markup=False)
    unread = [
        *unreadable,
        *damaged,
        *(line for one in boards for line in one.frame.attrs["left_out"]),
    ]
    for text in unread:
        out.print(f"left out: {plain(text)}", style="red", markup=False)
    return 1 if differing or unread else 0


def _draw_grids(arguments: argparse.Namespace, datasets: set[str]) -> None:
    from bench.exchange.nearest_images import draw_grids  # imports torch
    from bench.files import write_atomically
    from bench.report.image_grid import SUFFIX

    store = existing_store(arguments.store or default_store())
    for dataset in sorted(datasets):
        if (grids := draw_grids(store, dataset, arguments.data_root)) is not None:
            write_atomically(arguments.out / f"{slug(dataset)}{SUFFIX}", grids.render())
