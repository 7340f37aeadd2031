"""The figures of one board as SVG: pure functions of its rows, the same bytes on every run.

An SVG starts with the digests of what it shows and of itself, so that one that is still right is not drawn again. Only
drawing imports matplotlib and seaborn, which take a second.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bench.files import write_atomically
from bench.format import slug
from bench.report.figures import drawing
from bench.report.figures.charts import Chart, of_board


class Figure(NamedTuple):
    """One figure as it was written."""

    name: str  # of its file without the ending: "digits/labels-ipc10"
    title: str
    caption: str
    svg: str

    @property
    def alt(self) -> str:
        """Title and first sentence, in place of the picture."""
        return f"{self.title}. {self.caption.partition('. ')[0]}."


def draw_figures(rows: pd.DataFrame, records: pd.DataFrame, folder: Path, write: bool = True) -> list[Figure]:
    """Write the figures of one data set below ``folder``; return them in the order a page shows them.

    Args:
        rows: pooled rows (:mod:`bench.report.rows`); what has no accuracy is left out.
        records: the records behind them, for classes that arrive in steps and accuracies per class.
        write: else the SVG of a figure is empty where its file is missing, or not what the rows give.
    """
    place, make = slug(rows["dataset"].iloc[0]), draw if write else kept
    return [Figure(f"{place}/{one.name}", one.title, one.caption, make(one, folder / place / f"{one.name}.svg"))
            for one in of_board(rows, records)]  # fmt: skip


def draw(chart: Chart, path: Path, png: bool = False) -> str:
    """Write a chart to ``path`` (``.svg``) unless it is there, and as PNG if wanted; return the SVG."""
    if svg := "" if png else kept(chart, path):
        return svg
    svg, picture = drawing.render(chart, png)
    svg = f"<!-- shows {chart.digest}, is {_digest(svg)} -->\n{svg}"
    write_atomically(path, svg)
    if picture:
        path.with_suffix(".png").write_bytes(picture)
    return svg


def kept(chart: Chart, path: Path) -> str:
    """SVG of a file that shows a chart and is as it was written; else empty."""
    svg = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    head, _, body = svg.partition("\n")
    return svg if head == f"<!-- shows {chart.digest}, is {_digest(body)} -->" else ""


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
