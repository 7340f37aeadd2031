"""Publish boards: merge new records into those that a folder has, and write every file again from them.

Per data set ``<dataset>.md`` for people, ``<dataset>.csv`` for programs, ``<dataset>.records.jsonl`` with the records,
``<dataset>.predictions.safetensors`` where evaluations kept them, figures in ``<dataset>/`` and the page
``<dataset>.html``. Boards of suites are below ``suites/<suite>/``; what costs are measured has a board per device. Text
and figures are pure functions of the records, so that :func:`check` can tell whether they follow from them.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bench.errors import UserError
from bench.files import write_atomically
from bench.format import csv_text
from bench.planning import suites
from bench.report import board
from bench.report.figures import Figure, draw_figures
from bench.report.image_grid import SUFFIX as GRIDS
from bench.report.image_grid import read_grids
from bench.report.page import write_page
from bench.report.papers import efficiency, published, trends
from bench.report.results import SUITES, Board, from_store, read
from bench.report.rows import records
from bench.store import predictions
from bench.store.artifacts import Store
from bench.store.cell import canonical
from bench.store.entries import SUFFIX, Entry, in_order, write_jsonl
from bench.store.locks import lock

SHOWN = 60  # characters of a differing line
COLUMNS = [
    "dataset", "protocol", "protocol_version", "ipc", "student", "method", "labels", "n", "n_expected", "students",
    "states", "top1_mean", "top1_std", "top1_low", "top1_high", "top1_std_sets", "top1_std_students", "delta_best",
    "delta_low", "delta_high", "p_best", "worse", "on_front", "oracle_mean", "image_bytes", "label_bytes", "label_low",
    "label_high", "label_parameters", "public_bytes", "public_names", "full_label_bytes", "label_share",
    "seconds_teacher", "seconds_prepare", "seconds_distill", "seconds_label", "seconds_evaluate", "seconds_total",
    "hlr", "ior", "lrs", "ars", "data_digest", "protocol_digest", "remarks",
]  # fmt: skip


class Change(NamedTuple):
    """The effect of publishing on the records of a board."""

    added: int
    changed: int
    kept: int
    dropped: int

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in self._asdict().items() if count or what != "dropped")


def folder(out: Path, suite: str) -> Path:
    """Return the folder of a suite's boards; those of no suite are in ``out`` itself."""
    return out / SUITES / suite if suite else out


def update_of_grid(store: Store, dataset: str, suite: str, out: Path) -> Iterator[tuple[Path, Change, Board]]:
    """Update the boards of a data set and suite, one process at a time; see :func:`update`."""
    with lock(store.root / "leases" / "boards.lock"):
        boards = [one for one in from_store(store) if one.suite == suite and one.entries[0].dataset == dataset]
        yield from update(boards, out)


def merge(old: Board, new: Board, replace_all: bool = False) -> tuple[Board, Change]:
    """Merge new records into those of a board.

    A new record stands for an old one of the same cell, or of the same seed of the same row, and for a line that could
    not be read; what is not done never stands for what is, nor what lost the records of its parents for what has them.

    Args:
        replace_all: drop the old records instead.
    """
    if replace_all:
        same = len({entry.line for entry in old.entries} & {entry.line for entry in new.entries})
        return new, Change(len(new.entries) - same, 0, same, max(0, len(old.entries) - same) + len(old.left_out))
    kept = {_seed_of_row(entry): entry for entry in in_order(old.entries)}
    cells = {entry.cell: key for key, entry in kept.items()}
    new_cells = {entry.cell for entry in new.entries if entry.state == "done"}
    left_out = [one for one in old.left_out if one.cell not in new_cells]
    damaged = {one.cell for one in old.left_out} & new_cells - cells.keys()
    added = changed = 0
    for entry in in_order(new.entries):
        key = cells.get(entry.cell, _seed_of_row(entry))
        before = kept.get(key)
        if before is not None and (before.line == entry.line or _knows_less(entry, before)):
            continue
        fresh = before is None and entry.cell not in damaged
        added, changed = added + fresh, changed + (not fresh)
        kept[key] = entry
    readable = {one: file for one, file in new.files.items() if one not in old.files or predictions.load(file, [one])}
    merged = replace(old, entries=list(kept.values()), left_out=left_out, files={**old.files, **readable})
    return merged, Change(added, changed, len(kept) - added - changed, 0)


def _knows_less(entry: Entry, before: Entry) -> bool:
    if before.state != "done" or entry.state != "done":
        return before.state == "done"
    same = (entry.cell, entry.top1) == (before.cell, before.top1)
    return same and entry.plugin_digests.items() < before.plugin_digests.items()


def _seed_of_row(entry: Entry) -> tuple[Any, ...]:
    made = [entry.plugin_digests, entry.plugin_settings, {**entry.changed, "dataset": ""}]
    return (*entry.place, entry.data_digest, entry.protocol_digest, canonical(made))


def update(boards: Iterable[Board], out: Path, replace: bool = False) -> Iterator[tuple[Path, Change, Board]]:
    """Merge boards into those of a folder and write them; each one's Markdown file, what changed, and the whole board.

    Raises:
        UserError: ``out`` can't be written to.
    """
    for new in boards:
        where = folder(out, new.suite)
        merged, change = merge(read(where / f"{new.stem}{SUFFIX}"), new, replace)
        write(merged, out)
        yield where / f"{new.stem}.md", change, merged


def write(one: Board, out: Path) -> None:
    """Write all files of a board, each atomically; figures that it no longer has are removed.

    Raises:
        UserError: ``out`` can't be written to.
    """
    where = folder(out, one.suite)
    try:
        figures = [] if one.rows is None else draw_figures(one.rows, one.frame, where)
        files = texts(one, figures)
        for name, content in files.items():
            write_atomically(where / name, content)
        if one.rows is not None:
            for stale in set((where / one.stem).glob("*.svg")) - {where / f"{figure.name}.svg" for figure in figures}:
                stale.unlink()
            text, grids = files[f"{one.stem}.md"].decode(), read_grids(where / f"{one.stem}{GRIDS}")
            write_page(text, one.frame, one.rows, figures, where / f"{one.stem}.html", grids)
    except OSError as error:
        raise UserError(f"{where} can't be written to: {error.strerror}; choose another --out") from None


def texts(one: Board, figures: Sequence[Figure] = ()) -> dict[str, bytes]:
    """File name → content, without figures and page."""
    found = {f"{one.stem}{SUFFIX}": write_jsonl(one.entries, one.left_out)}
    if one.rows is not None:
        title = trends.title(min(one.frame["title"]), one.suite)
        known = one.suite in suites.names()  # a suite from a file states no trends here
        beside = trends.render(suites.suite(one.suite), one.rows, one.frame) if known else ""
        printed = published.render(one.entries[0].dataset, one.rows)
        found[f"{one.stem}.md"] = board.render(title, one.frame, one.rows, beside, printed, figures)
        found[f"{one.stem}.csv"] = render_csv(one.rows)
    elif one.entries:
        found[f"{one.stem}.md"] = efficiency.render(one.frame)
        found[f"{one.stem}.csv"] = efficiency.render_csv(one.frame)
    files = {name: text.encode() for name, text in found.items()}
    if one.files:
        by_file = one.frame[one.frame["predictions"] != ""].groupby("predictions")["cell"]
        loaded = [predictions.load(Path(file), cells) for file, cells in by_file]
        files[f"{one.stem}{predictions.SUFFIX}"] = predictions.pack(dict(ChainMap(*loaded)))
    return files


def render_csv(rows: pd.DataFrame) -> str:
    """One line per row, full precision, empty where nothing was measured."""
    names = [" ".join(dict.fromkeys(base["name"] for base in own)) for own in rows["public"]]
    rows = rows.assign(public_names=names, remarks=["; ".join(own) for own in rows["remarks"]])
    columns = [*COLUMNS, *sorted(name for name in rows if name.startswith("seconds_") and name not in COLUMNS)]
    return csv_text(columns, ([getattr(row, name) for name in columns] for row in records(rows)))


def check(out: Path, boards: Iterable[Board]) -> list[str]:
    """Name every file in ``out`` that is not what the records give, or that belongs to no board.

    Figures are compared by the digests they start with; pages and PNGs are not compared.
    """
    # the answers of `bench storage` and the published numbers are written by something else
    known = {out / published.FILE.name, *folder(out, suites.STORAGE).rglob("*")}
    found: list[str] = []
    for one in boards:
        where = folder(out, one.suite)
        figures = [] if one.rows is None else draw_figures(one.rows, one.frame, where, write=False)
        files = texts(one, figures)
        known |= {where / name for name in (*files, f"{one.stem}.html", f"{one.stem}{GRIDS}")}
        known |= {where / f"{figure.name}.{ending}" for figure in figures for ending in ("svg", "png")}
        found += filter(None, (_difference(where / name, content) for name, content in files.items()))
        found += [f"{where / figure.name}.svg: the records give another" for figure in figures if not figure.svg]
    stray = [path for path in out.rglob("*") if path.is_file() and path not in known
             and not any(part.startswith(".") for part in path.relative_to(out).parts)]  # fmt: skip
    return [*found, *(f"{path}: belongs to no board; remove it" for path in sorted(stray))]


def _difference(path: Path, wanted: bytes) -> str:
    """Tell where a file is not as wanted; empty where it is."""
    content = path.read_bytes() if path.is_file() else b""
    if content == wanted:
        return ""
    if not content or path.suffix not in (".md", ".csv", ".jsonl"):
        return f"{path}: {'the records give another' if content else 'missing or empty'}"
    lines = zip_longest(*(text.decode(errors="replace").split("\n") for text in (content, wanted)), fillvalue="(ends)")
    number, (old, new) = next((at, pair) for at, pair in enumerate(lines, 1) if pair[0] != pair[1])
    same = next((at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), 0)
    start = max(0, same - SHOWN // 2)
    return f"{path}:{number}: has {old[start : start + SHOWN]!r}, the records give {new[start : start + SHOWN]!r}"
