"""The drawing of figures: looks of methods, axes, lines that are named at their ends, heat maps, SVG for two themes.

matplotlib and seaborn are imported by what draws alone: they take a second.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from bench.api import registry
from bench.files import write_atomically
from bench.format import plain, round_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SHEET = Path(__file__).with_name("bench.mplstyle")
INK = "#010203"  # text.color of the style sheet; an SVG says `currentColor` instead, for light and dark pages
GREY = "#7a7f87"  # baselines, references and axes: legible on light and dark
# After Okabe & Ito, "Color Universal Design" (2008), at least 3:1 against white and against the dark page.
PALETTE = ("#2f7fc4", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#8b6fd6", "#1f8fa6")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "*")
MARKS: dict[str, dict[str, Any]] = {"pale": {"markersize": 4, "alpha": 0.35}, "hollow": {"mfc": "none", "mew": 1.5}}
# An SVG shown on its own follows the reader's theme; inside a page it takes the page's colour.
THEME = "<style>svg{color-scheme:light dark;color:var(--ink,light-dark(#1c1e21,#e4e6e8))}</style>"
LONGEST = 24  # characters of a name in a figure
SPAN = 10  # points that an axis of accuracies shows at least
LETTER, APART = 0.0158, 0.062  # of the width of a figure, for a letter of a name; of the height, between two names
ANNOTATED, COLUMNS = 12, 24  # columns of a heat map at most whose numbers are written, and that are named
BYTES = [0.0, *(step * 1024.0**power for power in range(1, 5) for step in (1, 10, 100))]
SECONDS = [0.1, 1, 10, 60, 600, 3600, 36_000, 360_000]


class Look(NamedTuple):
    """Name, colour and marker of a method in every figure; ``order`` of drawing: baselines are below."""

    name: str
    colour: str
    marker: str
    order: int = 3


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Map each method to its look: the place it states; others take the next free ones, installed ones first.

    Baselines are grey. ``hello[rank=4]`` has the colour of ``hello`` and another marker.
    """
    infos = {name: registry.method(name).info for name in registry.method_names()}
    wanted = sorted(set(methods), key=lambda method: ("[" in method, method))
    bases = sorted({method.partition("[")[0] for method in wanted})
    places = {name: info.look for name, info in infos.items() if info.look is not None}
    free_places = (place for place in itertools.count() if place not in places.values())
    for name in [*infos, *bases]:
        if name not in places and not (name in infos and infos[name].baseline):
            places[name] = next(free_places)
    found: dict[str, Look] = {}
    for method in wanted:
        base, bracket, settings = method.partition("[")
        place = places.get(base, 0)
        colour = PALETTE[place % len(PALETTE)] if base in places else GREY
        taken = {look.marker for look in found.values() if look.colour == colour}
        first = place % len(MARKERS)
        free = [marker for marker in (*MARKERS[first:], *MARKERS[:first]) if marker not in taken]
        title = infos[base].title if base in infos else base
        found[method] = Look(title + bracket + settings, colour, (free or MARKERS)[0], 3 if base in places else 2)
    return found


def short(text: str) -> str:
    """At most :data:`LONGEST` printable characters: the beginning and the end, which tells settings apart."""
    line = plain(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST * 2 // 3]}…{line[1 - LONGEST // 3 :]}"


@contextmanager
def applied() -> Iterator[None]:
    """Draw by the style sheet alone, whatever the user has set."""
    import matplotlib as mpl
    import matplotlib.style

    with mpl.style.context(SHEET, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # an SVG names fonts, its reader has them
        yield


def save(canvas: Canvas, path: Path, png: bool = False) -> str:
    """Write a figure as SVG, the same bytes on every run, and as PNG if wanted; return the SVG."""
    import matplotlib as mpl

    made = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": path.stem}):
        canvas.savefig(made, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub('<g id="[^"]*">', "<g>", made.getvalue().partition("<!DOCTYPE")[2].partition(">\n")[2])
    text = text.replace(INK, "currentColor").replace("<defs>", f"{THEME}<defs>", 1)
    write_atomically(path, text)
    if png:
        canvas.savefig(path.with_suffix(".png"), facecolor="white")
    return text


def duration(seconds: float) -> str:
    """``12 s``, ``3.4 min``, ``2.1 h``."""
    unit, factor = ("s", 1) if seconds < 60 else ("min", 60) if seconds < 3600 else ("h", 3600)
    return f"{seconds / factor:,.3g} {unit}"


def set_scale(axes: Axes, axis: str, kind: str, values: pd.Series) -> None:
    """Set up the axis ``x`` or ``y`` for values: ``bytes`` (0 too), ``seconds``, ``ipc``, ``classes``, ``percent``."""
    low, high = float(values.min()), float(values.max())
    if kind == "percent":  # of means: intervals may leave the axis, and small differences look small
        room = max(0.05 * (high - low) + 0.5, (SPAN - high + low) / 2)
        getattr(axes, f"set_{axis}lim")(max(0.0, low - room), min(100.6, high + room))
        return
    places = {"bytes": BYTES, "seconds": SECONDS}.get(kind, sorted(set(values)))
    scale: dict[str, Any] = {"value": "linear" if kind == "classes" else "log"}
    if kind == "bytes":
        scale = {"value": "symlog", "linthresh": 1024, "linscale": 0.6}
    getattr(axes, f"set_{axis}scale")(**scale)
    if kind == "bytes":  # none of 0 bytes: begin at the first tick below
        least = max(place for place in BYTES if place <= low)
        top = 1.3 * max(high, 10 * least, 1024)
        getattr(axes, f"set_{axis}lim")(-120 if least == 0 else 0.8 * least, top)
        places = [place for place in BYTES if least <= place <= top]
    elif kind == "seconds":
        places = [place for place in SECONDS if low / 10 <= place <= 10 * high]
        getattr(axes, f"set_{axis}lim")(0.7 * low, 1.4 * high)
    word = {"bytes": lambda at: round_size(int(at)) if at else "0", "seconds": duration}.get(kind, "{:,.0f}".format)
    places = sorted(places[:: -max(1, -(-len(places) // 8))])  # of many every second or third
    getattr(axes, f"set_{axis}ticks")(places, [word(place) for place in places])
    getattr(axes, f"{axis}axis").minorticks_off()


def lines(
    points: pd.DataFrame, looks: Mapping[str, Look], kinds: tuple[str, str], reference: pd.Series, step: bool = False
) -> Canvas:
    """Draw a line per ``line`` of ``points``, named at its end.

    Args:
        points: ``line``, ``x``, ``y``, ``low`` and ``high`` (of an interval, or NaN), and ``kind``: empty on the line,
            ``pale`` and ``hollow`` apart from it.
        kinds: of the axes, see :func:`set_scale`.
        reference: x → y, a dashed line; a single value goes all the way.
        step: a line keeps its height up to the next mark, and after the last.
    """
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas()
    axes = canvas.subplots()
    set_scale(axes, "x", kinds[0], points["x"])
    set_scale(axes, "y", kinds[1], pd.concat([points["y"], reference]))
    word = "{:.1f}".format if kinds[1] == "percent" else lambda value: round_size(int(value))
    ends = []
    for name in sorted(set(points["line"]), key=lambda line: (looks[line].order, looks[line].name, line)):
        look, own = looks[name], points[points["line"] == name]
        drawn: dict[str, Any] = {"color": look.colour, "zorder": look.order, "label": look.name}
        on = own[own["kind"] == ""].sort_values("x")
        if step and len(on):
            axes.step([*on["x"], axes.get_xlim()[1]], [*on["y"], on["y"].iloc[-1]], where="post", **drawn)
        axes.plot(on["x"], on["y"], look.marker + "-" * (not step), **drawn)
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


def heat_map(values: pd.DataFrame, looks: Mapping[str, Look], by_column: bool) -> Canvas:
    """Draw a table of percentages, a row per method.

    Args:
        by_column: colours go from a column's worst to its best; else from the worst to the best of all.
    """
    import seaborn
    from matplotlib.figure import Figure as Canvas

    order = sorted(values.index, key=lambda method: (looks[method].order, looks[method].name, method), reverse=True)
    values = values.loc[order].rename(index=lambda one: short(looks[one].name), columns=lambda one: short(str(one)))
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
    axes.set(xlabel="", ylabel="")
    return canvas
