"""What lies beside the tables of a data set: its figures, in a folder of their own, and its page, DATASET.html.

Both follow from the same rows. The page also shows DATASET.pictures.json where there is one, which is drawn from a
store and is, like the records, what the page is made from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from bench.report_legacy import published, published_table, trends
from bench.report_legacy.board import Row, make_rows
from bench.report_legacy.command import command
from bench.report_legacy.efficiency_table import is_cost
from bench.report_legacy.entries import Entry, LeftOut, in_order
from bench.report_legacy.page import render_page
from bench.report_legacy.pictures import read_pictures
from bench.report_legacy.plots import Published, draw, names, stale
from bench.report_legacy.scores import score
from bench.report_legacy.stems import file_stem

PICTURES = ".pictures.json"


@dataclass(frozen=True)
class Board:
    """All of one data set."""

    dataset: str
    title: str
    rows: Sequence[Row]
    left_out: Sequence[LeftOut]
    titles: Mapping[str, str]
    baselines: Collection[str]
    suite: str

    @property
    def page(self) -> str:
        """The name of its page."""
        return f"{file_stem(self.dataset)}.html"


def boards(
    entries: Iterable[Entry],
    titles: Mapping[str, str] | None,
    baselines: Collection[str],
    left_out: Mapping[str, Sequence[LeftOut]] | None,
    suite: str = "",
) -> Iterator[Board]:
    """The entries by data set; of what it costs to train there are no figures."""
    ordinary = [entry for entry in entries if not is_cost(entry)]
    for dataset, group in groupby(in_order(ordinary), key=lambda entry: entry.dataset):
        own = list(group)
        lost = (left_out or {}).get(file_stem(dataset), ())
        title = trends.titled(min(entry.title for entry in own), suite)
        yield Board(dataset, title, make_rows(own), lost, titles or {}, baselines, suite)


def illustrate(board: Board, out: Path) -> dict[str, bytes]:
    """File name → content of the figures and the page of a data set; figures in ``out`` that still show the same are
    taken as they are."""
    files = draw(board.rows, board.titles, board.baselines, _points(board), present=partial(_read, out))
    return {**files, board.page: _page(board, out, files).encode()}


def drift(board: Board, out: Path) -> list[str]:
    """The names of those files in ``out`` that are missing or not what the rows give; draws nothing."""
    present = partial(_read, out)
    found = stale(board.rows, board.titles, board.baselines, _points(board), present=present)
    if not found:
        figures = {name: present(name) or b"" for name in names(board.rows)}
        if present(board.page) != _page(board, out, figures).encode():
            found.append(board.page)
    return found


def _page(board: Board, out: Path, figures: Mapping[str, bytes]) -> str:
    return render_page(
        board.title,
        board.rows,
        board.titles,
        board.baselines,
        commands=lambda row: command([row], board.baselines),
        scores=score(board.rows),
        plots={name: figures[name].decode() for name in names(board.rows)},
        pictures=read_pictures(out / f"{file_stem(board.dataset)}{PICTURES}"),
        published=published_table.render(board.dataset, board.rows),
        trends=trends.of(board.suite, board.rows),
        left_out=board.left_out,
    )


def _points(board: Board) -> list[Published]:
    """Published numbers for the figures of the protocol and student that they belong to."""
    charts = {(row.protocol, row.student): row for row in board.rows}
    found = []
    for one in published.for_dataset(board.dataset):
        for protocol, student in sorted(charts):
            wanted, _ = published.recipe_of(one)
            weight = published.label_bytes(one) or published.printed_bytes(one)
            if student == one.student and protocol.startswith(wanted) and weight is not None and not one.variant:
                found.append(
                    Published(
                        method=one.method,
                        labels="",
                        ipc=one.ipc,
                        student=student,
                        protocol=protocol,
                        accuracy=one.top1 / 100,
                        label_bytes=weight,
                        source=one.source,
                    )
                )
    return found


def _read(out: Path, name: str) -> bytes | None:
    try:
        return (out / name).read_bytes()
    except OSError:
        return None
