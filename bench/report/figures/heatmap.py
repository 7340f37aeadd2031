"""Heat maps: methods × students, and methods × classes of the test set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.report.figures import style
from bench.store.predictions import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

WRITTEN = 12  # columns at most whose numbers are written into their cells
LETTERS = 42  # that fit beside each other
NAMED = 24  # columns at most that are named


def draw(values: pd.DataFrame, looks: Mapping[str, style.Look], by_column: bool) -> Canvas:
    """Draw a table of percentages, a row per method.

    Args:
        by_column: colours go from a column's worst to its best; else from the worst to the best of all.
    """
    import seaborn
    from matplotlib.figure import Figure as Canvas

    values = values.loc[style.by_name(values.index, looks)[::-1]]
    values = values.rename(
        index=lambda method: style.short(looks[method].name), columns=lambda name: style.short(str(name))
    )
    longest = max(map(len, values.columns))
    slanted = longest * len(values.columns) > LETTERS
    canvas = Canvas(figsize=(5.2, 0.9 + 0.34 * len(values) + (0.05 * longest if slanted else 0)), layout="constrained")
    axes = canvas.subplots()
    span = (values.max() - values.min()).where(lambda width: width > 0, 1.0)
    colours = (values - values.min()) / span if by_column else values
    few = len(values.columns) <= WRITTEN
    fmt, named = ".1f" if len(values.columns) < 8 else ".0f", len(values.columns) <= NAMED
    shades = seaborn.light_palette(style.PALETTE[0], as_cmap=True)
    seaborn.heatmap(
        colours, ax=axes, annot=values if few else None, fmt=fmt, cmap=shades,
        cbar=not by_column, cbar_kws={"label": "accuracy (%)"}, linewidths=1 if few else 0, linecolor="none",
        annot_kws={"size": 9}, rasterized=not few, xticklabels=named,
    )  # fmt: skip
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.tick_params("y", rotation=0)
    axes.tick_params("x", rotation=30 if slanted else 0)
    axes.set(xlabel="", ylabel="")
    return canvas


def by_class(rows: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in percent of methods × classes, of the best row of each method whose predictions were kept; of
    class-incremental evaluations after the last step.
    """
    files = records.set_index("cell")["predictions"]
    found: dict[str, np.ndarray[Any, Any]] = {}
    for row in rows.sort_values("mean", ascending=False).itertuples():
        kept = [one for cell in row.cells if files.get(cell) for one in load(Path(files[cell]), [cell]).values()]
        if kept and row.method not in found:
            shares = [np.bincount(true, np.atleast_2d(guess)[-1] == true) / np.bincount(true) for guess, true in kept]
            found[row.method] = 100 * np.mean(shares, axis=0)
    return pd.DataFrame.from_dict(found, orient="index")
