"""Accuracy against a cost on a log axis: a line per method, the best mean that each budget affords."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


MANY = 150  # marks of a figure that have a text each


def frontier(points: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Keep the points of one method that no cheaper point equals, by cost."""
    ordered = points.sort_values([cost, "mean"], ascending=[True, False])
    return ordered[ordered["mean"] > ordered["mean"].cummax().shift(fill_value=-1.0)]


def draw(
    means: pd.DataFrame,
    cost: str,
    looks: Mapping[str, style.Look],
    scale: Callable[[Axes, Sequence[float]], None],
    word: Callable[[Any], str],
    full: float | None,
    printed: pd.DataFrame | None = None,
) -> Canvas:
    """Draw a panel of rows that have a mean (in percent) and ``cost``, the column on the x-axis.

    Args:
        scale: sets up the x-axis for its values; ``word`` names one of them in a tooltip.
        full: the accuracy of the whole training set, a dashed line.
        printed: numbers of papers (``method``, ``value``, ``bytes``, ``source``), hollow marks.
    """
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas()
    axes = canvas.subplots()
    theirs = [] if printed is None else list(printed.itertuples())
    scale(axes, [*means[cost].astype(float), *(float(one.bytes) for one in theirs)])
    edge = axes.get_xlim()[1]
    ends: list[tuple[float, str, style.Look]] = []
    for method in style.by_name(means["method"], looks):
        own, look = means[means["method"] == method], looks[method]
        best = frontier(own, cost)
        last = best["mean"].iloc[-1]
        axes.step([*best[cost], edge], [*best["mean"], last], where="post", color=look.colour, zorder=look.order)
        style.bars(axes, best, cost, look)
        pale = own[~own.index.isin(best.index)]
        if len(means) > MANY:  # a text each would make pages slow and large
            look_of = {"color": look.colour, "zorder": look.order, "rasterized": True, **style.MARKS["pale"]}
            axes.plot(pale[cost], pale["mean"], look.marker, **look_of)
            pale = pale[:0]
        for kind, points in (("pale", pale), ("", best)):
            for row in points[[*style.SAID, cost]].itertuples():
                at = float(getattr(row, cost))
                text = f"{look.name}, {row.labels}, IPC {row.ipc}: {style.spread(row)}, {word(at)}"
                style.mark(axes, (at, row.mean), look, text, kind)
        ends.append((last, f"{style.short(look.name)} {last:.1f}", look))
    for one in theirs:
        look = looks[one.method]
        text = f"† {look.name}, {one.source}: {one.value:.1f} %, {word(one.bytes)}"
        style.mark(axes, (one.bytes, one.value), look, text, "hollow")
        if one.method not in set(means["method"]):
            ends.append((one.value, f"† {style.short(look.name)} {one.value:.1f}", look))
    if full is not None:
        axes.axhline(full, color=style.REFERENCE.colour, linestyle=style.DASHED, linewidth=1)
        ends.append((full, f"{style.REFERENCE.name} {full:.1f}", style.REFERENCE))
    style.accuracy_axis(axes, [*(at for at, *_ in ends), *means["mean"], *(one.value for one in theirs)])
    style.name_lines(axes, ends)
    return canvas
