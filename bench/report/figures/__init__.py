"""The figures of one board as SVG: pure functions of its rows, the same bytes on every run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.format import slug
from bench.report.figures import selection, style


@dataclass(frozen=True)
class Figure:
    """One figure as it was written."""

    name: str  # of its file without the ending: "digits/labels-ipc10"
    title: str
    caption: str
    svg: str

    @property
    def alt(self) -> str:
        """Title and first sentence, in place of the picture."""
        return f"{self.title}. {self.caption.partition('. ')[0]}."


def draw_figures(rows: pd.DataFrame, records: pd.DataFrame, folder: Path, png: bool = False) -> list[Figure]:
    """Write the figures of one data set below ``folder``; return them in the order a page shows them.

    Args:
        rows: pooled rows (:mod:`bench.report.rows`); what has no accuracy is left out.
        records: the records behind them, for classes that arrive in steps and accuracies per class.
        png: also write each figure as a PNG.
    """
    found, place = [], slug(rows["dataset"].iloc[0])
    with style.applied():
        for name, title, caption, canvas in selection.drawings(rows, records):
            name = f"{place}/{name}"
            found.append(Figure(name, title, caption, style.save(canvas, folder, name, png)))
    return found


def draw_storage(weights: pd.DataFrame, images: pd.Series, path: Path, png: bool = False) -> str:
    """Write the figure of label bytes against images per class to ``path`` (``.svg``); return its text.

    Args:
        weights: rows of method, labels, ipc and bytes; equal ones share a line, hard labels of no bytes have none.
        images: IPC → bytes of the images, a dashed line.
    """
    with style.applied():
        return style.save(selection.storage(weights, images), path.parent, path.stem, png)
