"""The drawing of charts: axes, lines that are named at their ends, heat maps, SVG for two themes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.format import plain, round_size
from bench.report.figures.charts import Chart
from bench.report.figures.looks import GREY, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SHEET = Path(__file__).with_name("bench.mplstyle")
INK = "#010203"  # text.color of the style sheet; an SVG says `currentColor` instead, for light and dark pages
MARKS: dict[str, dict[str, Any]] = {"pale": {"markersize": 4, "alpha": 0.35}, "hollow": {"mfc": "none", "mew": 1.5}}
# An SVG shown on its own follows the reader's theme; inside a page it takes the page's colour.
THEME = "<style>svg{color-scheme:light dark;color:var(--ink,light-dark(#1c1e21,#e4e6e8))}</style>"
LONGEST = 24  # characters of a name in a figure
SPAN = 10  # points that an axis of accuracies shows at least
LETTER, APART = 0.0158, 0.062  # of the width of a figure, for a letter of a name; of the height, between two names
ANNOTATED, COLUMNS = 12, 24  # columns of a heat map at most whose numbers are written, and that are named
TICKS = {"bytes": [0.0, *(step * 1024.0**power for power in range(1, 5) for step in (1, 10, 100))],
         "seconds": [0.1, 1, 10, 60, 600, 3600, 36_000, 360_000]}  # fmt: skip
SCALES: dict[str, dict[str, Any]] = {
    "bytes": {"value": "symlog", "linthresh": 1024, "linscale": 0.6}, "seconds": {"value": "log"},
    "ipc": {"value": "log"}, "classes": {"value": "linear"},
}  # fmt: skip


def render(chart: Chart, png: bool = False) -> tuple[str, bytes]:
    """Draw a chart as SVG, the same bytes on every run, and as PNG if wanted, by the style sheet alone."""
    import matplotlib as mpl
    import matplotlib.style

    with mpl.style.context(SHEET, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # an SVG names fonts, its reader has them
        canvas = _heat_map(chart) if chart.form in ("students", "classes") else _lines(chart)
        canvas.axes[0].set(title=chart.head, xlabel=chart.x[1], ylabel=chart.y[1])
        made, picture = io.StringIO(), io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": chart.name}):
            canvas.savefig(made, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        if png:
            canvas.savefig(picture, format="png", facecolor="white")
    text = re.sub('<g id="[^"]*">', "<g>", made.getvalue().partition("<!DOCTYPE")[2].partition(">\n")[2])
    return text.replace(INK, "currentColor").replace("<defs>", f"{THEME}<defs>", 1), picture.getvalue()


def short(text: str) -> str:
    """At most :data:`LONGEST` printable characters: the beginning and the end, which tells settings apart."""
    line = plain(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST * 2 // 3]}…{line[1 - LONGEST // 3 :]}"


def duration(seconds: float) -> str:
    """``12 s``, ``3.4 min``, ``2.1 h``."""
    unit, factor = ("s", 1) if seconds < 60 else ("min", 60) if seconds < 3600 else ("h", 3600)
    return f"{seconds / factor:,.3g} {unit}"


def set_scale(axes: Axes, axis: str, kind: str, values: pd.Series) -> None:
    """Set up the axis ``x`` or ``y`` for values: ``bytes`` (0 too), ``seconds``, ``ipc``, ``classes``, ``percent``."""
    low, high, limits = float(values.min()), float(values.max()), getattr(axes, f"set_{axis}lim")
    if kind == "percent":  # of means: intervals may leave the axis, and small differences look small
        room = max(0.05 * (high - low) + 0.5, (SPAN - high + low) / 2)
        limits(max(0.0, low - room), min(100.6, high + room))
        return
    getattr(axes, f"set_{axis}scale")(**SCALES[kind])
    ticks = TICKS.get(kind, sorted(set(values)))
    if kind in TICKS:  # from the tick below the least to beyond the largest
        least = max((tick for tick in ticks if tick <= low), default=low / 2)
        most = max(high, 10 * least, 1024 * (kind == "bytes"))
        limits(0.7 * low if kind == "seconds" else 0.8 * least if least else -120, 1.3 * most)
        ticks = [tick for tick in ticks if least <= tick <= 1.3 * most]
    ticks = sorted(ticks[:: -max(1, -(-len(ticks) // 8))])  # of many every second or third
    word = {"bytes": lambda at: round_size(int(at)) if at else "0", "seconds": duration}.get(kind, "{:,.0f}".format)
    getattr(axes, f"set_{axis}ticks")(ticks, [word(tick) for tick in ticks])
    getattr(axes, f"{axis}axis").minorticks_off()


def _lines(chart: Chart) -> Canvas:
    from matplotlib.figure import Figure as Canvas

    canvas, points, reference = Canvas(), chart.data, chart.reference
    axes = canvas.subplots()
    set_scale(axes, "x", chart.x[0], points["x"])
    set_scale(axes, "y", chart.y[0], pd.concat([points["y"], reference]))
    word = "{:.1f}".format if chart.y[0] == "percent" else lambda value: round_size(int(value))
    ends = []
    for name in sorted(set(points["line"]), key=lambda line: (chart.looks[line].order, chart.looks[line].name, line)):
        look, own = chart.looks[name], points[points["line"] == name]
        drawn: dict[str, Any] = {"color": look.colour, "zorder": look.order, "label": look.name}
        on = own[own["kind"] == ""].sort_values("x")
        if chart.form == "step" and len(on):
            axes.step([*on["x"], axes.get_xlim()[1]], [*on["y"], on["y"].iloc[-1]], where="post", **drawn)
        axes.plot(on["x"], on["y"], look.marker + "-" * (chart.form == "line"), **drawn)
        if len(bars := on[on["low"].notna()]):
            lengths = [bars["y"] - bars["low"], bars["high"] - bars["y"]]
            axes.errorbar(bars["x"], bars["y"], lengths, fmt="none", ecolor=look.colour, elinewidth=0.8, alpha=0.5)
        for kind, apart in own[own["kind"] != ""].groupby("kind"):
            axes.plot(apart["x"], apart["y"], look.marker, **drawn, **MARKS[kind])
        for one in (on.tail(1) if len(on) else own).itertuples():
            ends.append((one.y, f"{'† ' * (one.kind == 'hollow')}{short(look.name)} {word(one.y)}", look.colour))
    if len(reference):
        dashed: dict[str, Any] = {"color": GREY, "linestyle": (0, (5, 3)), "linewidth": 1, "zorder": 1}
        if len(reference) == 1:
            axes.axhline(reference.iloc[0], **dashed)
        else:
            axes.plot(reference.index, reference, **dashed)
        ends.append((reference.iloc[-1], f"{reference.name} {word(reference.iloc[-1])}", GREY))
    _name_lines(axes, ends)
    if chart.y[0] == "bytes":
        canvas.subplots_adjust(left=0.2)
    return canvas


def _name_lines(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
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


def _heat_map(chart: Chart) -> Canvas:
    """Colours go from a student's worst to its best; those of classes from the worst to the best of all."""
    import seaborn
    from matplotlib.figure import Figure as Canvas

    by_column, looks = chart.form == "students", chart.looks
    order = sorted(chart.data.index, key=lambda name: (looks[name].order, looks[name].name, name), reverse=True)
    values = chart.data.loc[order].rename(index=lambda one: short(looks[one].name), columns=lambda one: short(str(one)))
    few = len(values.columns) <= ANNOTATED
    canvas = Canvas(figsize=(5.2, 1.2 + 0.34 * len(values)), layout="constrained")
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
    axes.tick_params("x", rotation=30 if len("".join(values.columns)) > 42 else 0)
    return canvas
