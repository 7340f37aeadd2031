"""Accuracy against images per class or classes seen: a line per method under one kind of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from scipy.special import stdtrit

from bench.report.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TICKS = 8  # numbers of classes that are named


def draw(
    means: pd.DataFrame, across: str, looks: Mapping[str, style.Look], full: Mapping[float, float], log: bool
) -> Canvas:
    """Draw a panel: of several label choices of a method the best mean at each place on the x-axis.

    Args:
        means: rows with a mean (in percent); ``across``: the column on the x-axis.
        full: place on the x-axis → accuracy of the whole training set, a dashed line.
    """
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas()
    axes = canvas.subplots()
    ends: list[tuple[float, str, style.Look]] = []
    best = means.sort_values("mean").groupby(["method", across]).tail(1).sort_values(across)
    for method in style.by_name(best["method"], looks):
        own, look = best[best["method"] == method], looks[method]
        axes.plot(own[across], own["mean"], color=look.colour, zorder=look.order)
        style.bars(axes, own if log else own.tail(1), across, look)  # more would hide the lines
        for row in own[list(dict.fromkeys([*style.SAID, across]))].itertuples():
            at = getattr(row, across)
            text = f"{look.name}, {row.labels}, {at:,} {across.replace('_', ' ')}: {style.spread(row)}"
            style.mark(axes, (at, row.mean), look, text)
        last = own["mean"].iloc[-1]
        ends.append((last, f"{style.short(look.name)} {last:.1f}", look))
    places = sorted(best[across].unique())
    if full:
        axes.plot(list(full), list(full.values()), color=style.REFERENCE.colour, linestyle=style.DASHED, linewidth=1)
        ends.append((last := list(full.values())[-1], f"{style.REFERENCE.name} {last:.1f}", style.REFERENCE))
    axes.set_xscale("log" if log else "linear")
    named = places[:: -max(1, -(-len(places) // TICKS))]
    axes.set_xticks(named, [f"{place:,}" for place in named])
    axes.minorticks_off()
    style.accuracy_axis(axes, [*best["mean"], *full.values()])
    style.name_lines(axes, ends)
    return canvas


def by_step(rows: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Means after each step, with the columns of the rows and ``classes_seen``; intervals from the distilled sets."""
    steps = records[["cell", "seed", "steps"]].explode("steps").dropna(subset=["steps"])
    steps = steps.assign(classes_seen=steps["steps"].str[0], value=100 * steps["steps"].str[1].astype("float64"))
    place = ["method", "labels", "ipc", "kind"]
    own = rows[[*place, "cells"]].explode("cells").merge(steps, left_on="cells", right_on="cell")
    sets = own.groupby([*place, "classes_seen", "seed"], dropna=False)["value"].mean()
    means = (
        sets.groupby(level=list(range(len(place) + 1)), dropna=False)
        .agg(mean="mean", n="size", std="std")
        .reset_index()
    )
    half = stdtrit(means["n"] - 1, 0.975) * means["std"] / means["n"] ** 0.5
    return means.assign(low=means["mean"] - half, high=means["mean"] + half)
