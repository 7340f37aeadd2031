"""The two kinds of figures: lines with marks, named at their ends, and heat maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from bench.format import round_size, size
from bench.report.figures.style import DASHED, GREY, MARKS, PALETTE, Look, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TICKS = 7  # names on an axis, about
SPAN = 10  # points that an axis of accuracies shows at least
MANY = 150  # points of a figure that have a text each; more would make pages slow and large
LETTER = 0.0158  # of the width of a figure, for a letter of a name
APART = 0.062  # of the height of the axes, between two names
ANNOTATED = 12  # columns of a heat map at most whose numbers are written into their cells
COLUMNS = 24  # of a heat map at most that are named
LETTERS = 42  # of their names that fit in a line

Scale = Callable[["Axes", str, Sequence[float]], None]


class Axis(NamedTuple):
    """One axis: ``word`` names a value; ``scale`` sets up the axis ``x`` or ``y`` for values."""

    word: Callable[[Any], str]
    scale: Scale


def duration(seconds: float) -> str:
    """``12 s``, ``3.4 min``, ``2.1 h``."""
    unit, factor = ("s", 1) if seconds < 60 else ("min", 60) if seconds < 3600 else ("h", 3600)
    return f"{seconds / factor:,.3g} {unit}"


def scale_costs(
    axes: Axes, axis: str, values: Sequence[float], ticks: Sequence[float], word: Callable[[Any], str]
) -> None:
    """Set up a log axis that names some of ``ticks``; zero has a place left of the first."""
    some = [value for value in values if value > 0] or [1024]
    low = max((tick for tick in ticks if tick <= min(some)), default=ticks[0])
    high = max(*some, 10 * low) * 1.01
    zero = min(values) == 0
    named = [0.0] if zero else []
    for tick in ticks:
        if low <= tick <= high and (tick == low or tick / named[-1] > (high / low) ** (1 / TICKS)):
            named.append(tick)
    getattr(axes, f"set_{axis}scale")(
        **{"value": "symlog", "linthresh": low, "linscale": 0.6} if zero else {"value": "log"}
    )
    getattr(axes, f"set_{axis}lim")(-0.12 * low if zero else 0.8 * min(low, *some), 1.25 * max(some))
    getattr(axes, f"set_{axis}ticks")(named, ["0" if tick == 0 else word(tick) for tick in named])
    getattr(axes, f"{axis}axis").minorticks_off()


def scale_accuracies(axes: Axes, axis: str, values: Sequence[float]) -> None:
    """Show means in percent: intervals may leave the axis, and small differences look small."""
    low, high = min(values), max(values)
    room = max(0.05 * (high - low) + 0.5, (SPAN - high + low) / 2)
    getattr(axes, f"set_{axis}lim")(max(0.0, low - room), min(100.6, high + room))


def scale_counts(axes: Axes, axis: str, values: Sequence[float], kind: str) -> None:
    """Name the values themselves, of many every second or third; ``kind``: log or linear."""
    places = sorted(set(values))
    named = places[:: -max(1, -(-len(places) // (TICKS + 1)))]
    getattr(axes, f"set_{axis}scale")(kind)
    getattr(axes, f"set_{axis}ticks")(named, [f"{place:,}" for place in named])
    getattr(axes, f"{axis}axis").minorticks_off()


_BYTES = [step * 1024**power for power in range(5) for step in (1, 10, 100)]
_SECONDS = sorted({step * unit for unit in (0.1, 1, 60, 3600) for step in (1, 2, 3, 5, 10, 20, 30, 40)})
BYTES = Axis(size, partial(scale_costs, ticks=_BYTES, word=round_size))
SECONDS = Axis(duration, partial(scale_costs, ticks=_SECONDS, word=duration))
IPC = Axis("{:,} images per class".format, partial(scale_counts, kind="log"))
CLASSES = Axis("{:,} classes seen".format, partial(scale_counts, kind="linear"))
ACCURACY = Axis("{:.1f}".format, scale_accuracies)


def lines(
    points: pd.DataFrame, looks: Mapping[str, Look], x: Axis, y: Axis, reference: pd.Series, step: bool = False
) -> Canvas:
    """Draw a line per ``line`` of ``points``, named at its end.

    Args:
        points: ``line``, ``x``, ``y``, ``low`` and ``high`` (of an interval, or NaN), ``tip`` (a text that pages show
            as a tooltip) and ``kind``: empty on the line, ``pale`` and ``hollow`` apart from it.
        reference: x → y, a dashed line; a single value goes all the way.
        step: a line keeps its height up to the next mark, and after the last.
    """
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D

    canvas = Canvas()
    axes = canvas.subplots()
    x.scale(axes, "x", points["x"].tolist())
    y.scale(axes, "y", [*points["y"], *reference])
    edge, ends = axes.get_xlim()[1], []
    for name in sorted(set(points["line"]), key=lambda line: (looks[line].order, looks[line].name, line)):
        look, own = looks[name], points[points["line"] == name]
        on = own[own["kind"] == ""].sort_values("x")
        bars = on[on["low"].notna()]
        if step and len(on):
            axes.step(
                [*on["x"], edge], [*on["y"], on["y"].iloc[-1]], where="post", color=look.colour, zorder=look.order
            )
        else:
            axes.plot(on["x"], on["y"], color=look.colour, zorder=look.order)
        if len(bars):
            lengths = [bars["y"] - bars["low"], bars["high"] - bars["y"]]
            axes.errorbar(bars["x"], bars["y"], lengths, fmt="none", ecolor=look.colour, elinewidth=0.8, alpha=0.5)
        apart = own[own["kind"] != ""]
        if len(points) > MANY:
            pale = apart[apart["kind"] == "pale"]
            drawn = {"color": look.colour, "zorder": look.order, "rasterized": True, **MARKS["pale"]}
            axes.plot(pale["x"], pale["y"], look.marker, **drawn)
            apart = apart.drop(pale.index)
        for point in pd.concat([apart, on]).itertuples():
            mark = Line2D([point.x], [point.y], marker=look.marker, color=look.colour, zorder=look.order + 1)
            mark.set(**MARKS[point.kind], gid=f"tip:{short(point.tip, 200)}")
            axes.add_line(mark)
        for point in (on.tail(1) if len(on) else apart).itertuples():
            dagger = "† " if point.kind == "hollow" else ""
            ends.append((point.y, f"{dagger}{short(look.name)} {y.word(point.y)}", look.colour))
    if len(reference):
        if len(reference) == 1:
            axes.axhline(reference.iloc[0], **DASHED)
        else:
            axes.plot(reference.index, reference, **DASHED)
        last = reference.iloc[-1]
        ends.append((last, f"{reference.name} {y.word(last)}", GREY))
    name_lines(axes, ends)
    return canvas


def name_lines(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write (height, text, colour) of each line beside its end; many make the figure higher, for none may touch."""
    canvas = axes.get_figure(root=True)
    assert canvas is not None
    usual = canvas.get_figheight()
    canvas.set_figheight(max(usual, usual * APART * (len(ends) + 2)))
    canvas.subplots_adjust(right=0.965 - LETTER * max((len(text) for _, text, _ in ends), default=0))
    apart = APART * usual / canvas.get_figheight()
    invert = axes.transData + axes.transAxes.inverted()
    order = sorted(((float(invert.transform((1, at))[1]), text, colour) for at, text, colour in ends), reverse=True)
    places: list[float] = []
    for at, _, _ in order:
        places.append(min(at, places[-1] - apart if places else 1.0))
    for index in range(len(places) - 1, -1, -1):  # pushed below the axes: move up again
        places[index] = max(places[index], places[index + 1] + apart if index + 1 < len(places) else 0.0)
    for place, (at, text, colour) in zip(places, order, strict=True):
        arrow = {"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(
            text, (1.0, at), (1.03, place), "axes fraction", "axes fraction", color=colour, va="center", size=9,
            weight="bold", annotation_clip=False, arrowprops=arrow if abs(place - at) > apart / 2 else None,
        )  # fmt: skip


def heat_map(values: pd.DataFrame, looks: Mapping[str, Look], by_column: bool) -> Canvas:
    """Draw a table of percentages, a row per method.

    Args:
        by_column: colours go from a column's worst to its best; else from the worst to the best of all.
    """
    import seaborn
    from matplotlib.figure import Figure as Canvas

    order = sorted(values.index, key=lambda method: (looks[method].order, looks[method].name, method), reverse=True)
    values = values.loc[order].rename(
        index=lambda method: short(looks[method].name), columns=lambda name: short(str(name))
    )
    longest, few = max(map(len, values.columns)), len(values.columns) <= ANNOTATED
    slanted = longest * len(values.columns) > LETTERS
    canvas = Canvas(figsize=(5.2, 0.9 + 0.34 * len(values) + (0.05 * longest if slanted else 0)), layout="constrained")
    span = (values.max() - values.min()).where(lambda width: width > 0, 1.0)
    axes = seaborn.heatmap(
        (values - values.min()) / span if by_column else values, ax=canvas.subplots(), annot=values if few else None,
        fmt=".1f" if len(values.columns) < 8 else ".0f", cmap=seaborn.light_palette(PALETTE[0], as_cmap=True),
        cbar=not by_column, cbar_kws={"label": "accuracy (%)"}, linewidths=1 if few else 0, linecolor="none",
        annot_kws={"size": 9}, rasterized=not few, xticklabels=len(values.columns) <= COLUMNS,
    )  # fmt: skip
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.tick_params("y", rotation=0)
    axes.tick_params("x", rotation=30 if slanted else 0)
    axes.set(xlabel="", ylabel="")
    return canvas
