"""Publish boards: merge new records into those that a folder has, and write every file again from them.

Per data set ``<dataset>.md`` for people, ``<dataset>.csv`` for programs, ``<dataset>.records.jsonl`` with the records,
``<dataset>.predictions.safetensors`` where evaluations kept them, figures in ``<dataset>/`` and the page
``<dataset>.html``. Boards of suites lie below ``suites/<suite>/``; what costs are measured has a board per device. Text
and figures are pure functions of the records, so that :mod:`bench.report.drift` can tell whether they follow from them.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bench.errors import UserError
from bench.format import csv_text, slug
from bench.planning import suites
from bench.report import board
from bench.report.figures import Figure, draw_figures
from bench.report.image_grid import SUFFIX as GRIDS
from bench.report.image_grid import read_grids
from bench.report.page import write_page
from bench.report.papers import efficiency, published_table, trends
from bench.report.results import to_frame
from bench.report.rows import pool, records
from bench.store import predictions
from bench.store.artifacts import Store, write_atomically
from bench.store.entries import SUFFIX, Entry, LeftOut, in_order, read_jsonl, write_jsonl
from bench.store.locks import lock

SUITES = "suites"
COLUMNS = [
    "dataset", "protocol", "protocol_version", "ipc", "student", "method", "labels", "n", "n_expected", "students",
    "states", "top1_mean", "top1_std", "top1_low", "top1_high", "top1_std_sets", "top1_std_students", "delta_best",
    "delta_low", "delta_high", "p_best", "worse", "on_front", "oracle_mean", "image_bytes", "label_bytes", "label_low",
    "label_high", "label_parameters", "public_bytes", "public_names", "full_label_bytes", "label_share",
    "seconds_teacher", "seconds_prepare", "seconds_distill", "seconds_label", "seconds_evaluate", "seconds_total",
    "hlr", "ior", "lrs", "ars", "data_digest", "protocol_digest",
]  # fmt: skip


class Change(NamedTuple):
    """The effect of publishing on the records of a board."""

    added: int
    changed: int
    kept: int
    dropped: int

    def __str__(self) -> str:
        parts = [f"{self.added} added", f"{self.changed} changed", f"{self.kept} kept"]
        return ", ".join([*parts, *([f"{self.dropped} dropped"] if self.dropped else [])])


@dataclass(frozen=True)
class Board:
    """Records of one board; ``stem`` is its file name without ending, ``files`` where predictions of cells lie."""

    stem: str
    suite: str
    entries: Sequence[Entry]
    left_out: Sequence[LeftOut]
    files: Mapping[str, Path]

    def is_of(self, dataset: str, suite: str) -> bool:
        """Tell whether it is of a data set and suite."""
        return self.suite == suite and any(entry.dataset == dataset for entry in self.entries)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Records as :mod:`bench.report.results` has them."""
        damaged = sorted({text for entry in self.entries for text in entry.damaged})
        left_out = [*map(str, self.left_out), *damaged]
        return to_frame(in_order(self.entries), self.suite, predictions=self.files, left_out=left_out)

    @cached_property
    def rows(self) -> pd.DataFrame | None:
        """Records pooled; None where there are none, or they are of costs."""
        if not self.entries or (self.frame["metric"] == efficiency.METRIC).all():
            return None
        return pool(self.frame)


def folder(out: Path, suite: str) -> Path:
    """Return the folder of a suite's boards; those of no suite lie in ``out`` itself."""
    return out / SUITES / suite if suite else out


def present(out: Path) -> list[Board]:
    """Boards of a folder and its suites, from their records."""
    files = sorted([*out.glob(f"*{SUFFIX}"), *out.glob(f"{SUITES}/*/*{SUFFIX}")])
    return [_read(file, "" if file.parent == out else file.parent.name) for file in files]


def _read(file: Path, suite: str) -> Board:
    stem, loaded = file.name.removesuffix(SUFFIX), read_jsonl(file)
    kept = file.with_name(stem + predictions.SUFFIX)
    return Board(stem, suite, loaded.entries, loaded.left_out, dict.fromkeys(predictions.predicted_cells(kept), kept))


def from_store(store: Store) -> list[Board]:
    """Boards of everything in a store."""
    from bench.report.collect import collect

    found = []
    for suite, entries in sorted(collect(store).items()):
        by_stem: dict[str, list[Entry]] = {}
        for entry in entries:
            if stem := _stem(entry):
                by_stem.setdefault(stem, []).append(entry)
        for stem, own in sorted(by_stem.items()):
            places = {entry.cell: store.folder(entry.cell) / predictions.FILE for entry in own}
            files = {cell: place for cell, place in places.items() if place.is_file()}
            found.append(Board(stem, suite, own, (), files))
    return found


def update_of_grid(store: Store, dataset: str, suite: str, out: Path) -> Iterator[tuple[Path, Change, Board]]:
    """Update the boards of a data set and suite, one process at a time; see :func:`update`.

    A board whose records and table are those on the disk is not drawn again: on a cluster, a run's last job and the
    command that follows it both come here.
    """
    with lock(store.root / "leases" / "boards.lock"):
        yield from update((one for one in from_store(store) if one.is_of(dataset, suite)), out, redraw=False)


def _stem(entry: Entry) -> str:
    """Board of an entry; empty for a cost that is not measured, whose device is not known."""
    if entry.metric != efficiency.METRIC:
        return slug(entry.dataset)
    return next(iter(efficiency.boards(to_frame([entry]))), "")


def merge(old: Board, new: Board, replace: bool = False) -> tuple[Board, Change]:
    """Merge new records into those of a board.

    A new record stands for an old one of the same cell, or of the same seed of the same row; what is not done never
    stands for what is.

    Args:
        replace: drop the old records instead.
    """
    if replace:
        same = {entry.line for entry in old.entries} & {entry.line for entry in new.entries}
        fresh = len(new.entries) - len(same)
        return new, Change(fresh, 0, len(same), max(0, len(old.entries) - len(same)))
    kept = {_seed_of_row(entry): entry for entry in in_order(old.entries)}
    cells = {entry.cell: key for key, entry in kept.items()}
    added = changed = 0
    for entry in in_order(new.entries):
        key = cells.get(entry.cell, _seed_of_row(entry))
        before = kept.get(key)
        if before is not None and (before.line == entry.line or (before.state == "done" != entry.state)):
            continue
        added, changed = added + (before is None), changed + (before is not None)
        kept[key] = entry
    merged = Board(old.stem, old.suite, list(kept.values()), old.left_out, {**old.files, **new.files})
    return merged, Change(added, changed, len(kept) - added - changed, 0)


def _seed_of_row(entry: Entry) -> tuple[Any, ...]:
    plugins = tuple(sorted(entry.plugin_digests.items()))
    changed = str({key: value for key, value in entry.changed.items() if key != "dataset"})
    return (*entry.place, entry.data_digest, entry.protocol_digest, changed, plugins)


def update(
    boards: Iterable[Board], out: Path, replace: bool = False, redraw: bool = True
) -> Iterator[tuple[Path, Change, Board]]:
    """Merge boards into those of a folder and write them; each one's Markdown file, what changed, and the whole board.

    Raises:
        UserError: ``out`` can't be written to.
    """
    for new in boards:
        file = folder(out, new.suite) / f"{new.stem}{SUFFIX}"
        old = _read(file, new.suite) if file.exists() else Board(new.stem, new.suite, (), (), {})
        merged, change = merge(old, new, replace)
        if redraw or not _is_current(merged, file, change):
            write(merged, out)
        yield file.with_name(f"{new.stem}.md"), change, merged


def _is_current(one: Board, file: Path, change: Change) -> bool:
    """Check that no record of a board changed since its table and, last of all, its page were written."""
    table, page = file.with_name(f"{one.stem}.csv"), file.with_name(f"{one.stem}.html")
    if change.added or change.changed or change.dropped or one.rows is None or not (page.exists() and table.exists()):
        return False
    finished = page.stat().st_mtime_ns >= max(file.stat().st_mtime_ns, table.stat().st_mtime_ns)
    return finished and table.read_text(encoding="utf-8") == render_csv(one.rows)


def write(one: Board, out: Path, pages: bool = True) -> list[Path]:
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
            drawn = {where / f"{figure.name}.svg" for figure in figures}
            for stale in set((where / one.stem).glob("*.svg")) - drawn:
                stale.unlink()
            if pages:
                text = files[f"{one.stem}.md"].decode().replace(f"{board.shown(figures)}\n\n", "")
                grids = read_grids(where / f"{one.stem}{GRIDS}")
                write_page(text, one.frame, one.rows, figures, where / f"{one.stem}.html", grids)
    except OSError as error:
        raise UserError(f"{where} can't be written to: {error.strerror}; choose another --out") from None
    return [where / name for name in files]


def texts(one: Board, figures: Sequence[Figure] = ()) -> dict[str, bytes]:
    """File name → content, without figures and page."""
    found = {f"{one.stem}{SUFFIX}": write_jsonl(one.entries, one.left_out)}
    if one.rows is not None:
        title = trends.title(min(one.frame["title"]), one.suite)
        known = one.suite in suites.names()  # a suite from a file states no trends here
        beside = trends.render(suites.suite(one.suite), one.rows, one.frame) if known else ""
        printed = published_table.render(one.entries[0].dataset, one.rows)
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
    rows = rows.assign(public_names=[" ".join(dict.fromkeys(base["name"] for base in own)) for own in rows["public"]])
    others = sorted(name for name in rows if name.startswith("seconds_") and name not in COLUMNS)
    columns = [*COLUMNS, *others]
    return csv_text(columns, ([getattr(row, name) for name in columns] for row in records(rows)))
