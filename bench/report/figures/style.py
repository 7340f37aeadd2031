"""The look of methods and figures: colours and markers, axes, labels at the ends of lines, files."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.api import registry
from bench.format import plain, round_size
from bench.store.artifacts import write_atomically

if TYPE_CHECKING:
    from matplotlib import RcParams
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SHEET = Path(__file__).with_name("bench.mplstyle")
INK = "#010203"  # text.color of the style sheet; an SVG says `currentColor` instead, for light and dark pages
GREY = "#7a7f87"  # baselines, references and axes: legible on light and dark
# After Okabe & Ito, "Color Universal Design" (2008), at least 3:1 against white and against the dark page.
PALETTE = ("#2f7fc4", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#8b6fd6", "#1f8fa6")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "*")
MARKS: dict[str, dict[str, Any]] = {
    "": {},
    "pale": {"markersize": 4, "alpha": 0.35},
    "hollow": {"mfc": "none", "mew": 1.5},
}
SAID = ["labels", "ipc", "n", "mean", "low", "high"]  # columns that the text of a mark takes
LONGEST = 24  # characters of a name in a figure
TICKS = 6  # names on an axis of times
SPAN = 10  # points that an axis of accuracies shows at least
FEWEST = 3  # distilled sets behind an interval that is drawn
NAMED = 12  # lines that are named beside their ends
LETTER = 0.0158  # of the width of a figure, for a letter of such a name
APART = 0.062  # of the height of the axes, between two labels
# An SVG shown on its own follows the reader's theme; inside a page it takes the page's colour.
THEME = "<style>svg{color-scheme:light dark;color:var(--ink,light-dark(#1c1e21,#e4e6e8))}</style>"


@dataclass(frozen=True)
class Look:
    """How one method is drawn everywhere."""

    name: str
    colour: str
    marker: str
    order: int = 3  # of drawing: baselines lie below


REFERENCE = Look("Full data", GREY, "", 1)
DASHED = (0, (5, 3))


def base(method: str) -> str:
    """``hello`` of ``hello[rank=4]``."""
    return method.partition("[")[0]


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """The look of each method: installed ones by their order in the registry, others take the next free places.

    Baselines are grey. ``hello[rank=4]`` has the colour of ``hello`` and another marker.
    """
    infos = {name: registry.method(name).info for name in registry.method_names()}
    wanted = sorted(set(methods))
    order = dict.fromkeys([*infos, *(base(method) for method in wanted)])
    baselines = {name for name, info in infos.items() if info.baseline}
    places = {name: place for place, name in enumerate(name for name in order if name not in baselines)}
    found: dict[str, Look] = {}
    for method in sorted(wanted, key=lambda method: (method != base(method), method)):
        own = base(method)
        title = (infos[own].title if own in infos else own) + method[len(own) :]
        colour = GREY if own in baselines else PALETTE[places[own] % len(PALETTE)]
        turn = places.get(own, 0) % len(MARKERS)
        taken = {look.marker for look in found.values() if look.colour == colour}
        free = [marker for marker in (*MARKERS[turn:], *MARKERS[:turn]) if marker not in taken]
        found[method] = Look(title, colour, (free or MARKERS)[0], 2 if own in baselines else 3)
    return found


def short(text: str, room: int = LONGEST) -> str:
    """At most ``room`` printable characters; of a longer text the beginning and the end, which tells settings apart."""
    line = plain(text)
    return line if len(line) <= room else f"{line[: room * 2 // 3]}…{line[len(line) - room // 3 + 1 :]}"


def by_name(methods: Iterable[str], looks: Mapping[str, Look]) -> list[str]:
    """Methods in the order they are drawn: baselines first, below the others."""
    return sorted(set(methods), key=lambda method: (looks[method].order, looks[method].name, method))


def spread(row: Any) -> str:
    """``90.0 % (85.1 to 94.9, n = 3)``: a mean with its 95 % interval."""
    interval = f"{row.low:.1f} to {row.high:.1f}, " if row.low == row.low else ""
    return f"{row.mean:.1f} % ({interval}n = {row.n})"


def bars(axes: Axes, points: pd.DataFrame, across: str, look: Look) -> None:
    """Draw the intervals of points that have enough distilled sets."""
    known = points[(points["n"] >= FEWEST) & points["low"].notna()]
    if not len(known):
        return
    lengths = [known["mean"] - known["low"], known["high"] - known["mean"]]
    axes.errorbar(known[across], known["mean"], lengths, fmt="none", ecolor=look.colour, elinewidth=0.8, alpha=0.5)


def accuracy_axis(axes: Axes, values: Sequence[float]) -> None:
    """Scale the y-axis to means in percent: intervals may leave it, and small differences look small."""
    low, high = min(values), max(values)
    room = max(0.05 * (high - low) + 0.5, (SPAN - high + low) / 2)
    axes.set_ylim(max(0.0, low - room), min(100.6, high + room))


def bytes_axis(axes: Axes, values: Sequence[float], axis: str = "x") -> None:
    """A log axis of bytes with ticks at 1, 10 and 100 of each unit; zero bytes stand left of the first tick."""
    ticks = [step * 1024**power for power in range(5) for step in (1, 10, 100)]
    some = [value for value in values if value > 0] or [1024]
    low = max(tick for tick in ticks if tick <= min(some))
    kept = [tick for tick in ticks if low <= tick <= max(*some, 10 * low) * 1.01]
    zero = min(values) == 0
    set_scale, set_limits = getattr(axes, f"set_{axis}scale"), getattr(axes, f"set_{axis}lim")
    if zero:
        set_scale("symlog", linthresh=low, linscale=0.6)
    else:
        set_scale("log")
    set_limits(-0.12 * low if zero else low * 0.8, max(some) * 1.25)
    named = [*([0] if zero else []), *kept]
    getattr(axes, f"set_{axis}ticks")(named, ["0" if tick == 0 else round_size(tick) for tick in named])
    getattr(axes, f"{axis}axis").minorticks_off()


def duration(seconds: float) -> str:
    """``12 s``, ``3.4 min``, ``2.1 h``."""
    unit, factor = ("s", 1) if seconds < 60 else ("min", 60) if seconds < 3600 else ("h", 3600)
    return f"{seconds / factor:,.3g} {unit}"


def seconds_axis(axes: Axes, values: Sequence[float]) -> None:
    """A log axis of wall times."""
    low, high = 0.8 * max(min(values), 0.1), 1.25 * max(*values, 1.0)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    named: list[int] = []
    for second in (step * unit for unit in (1, 60, 3600) for step in (1, 2, 3, 5, 10, 20, 30, 40)):
        if low <= second <= high and (not named or second / named[-1] > (high / low) ** (1 / TICKS)):
            named.append(second)
    axes.set_xticks(named, [duration(second) for second in named])
    axes.minorticks_off()


def end_labels(axes: Axes, lines: Sequence[tuple[float, str, str]]) -> None:
    """Write (height, text, colour) beside the right edge, moved apart where two would touch."""
    invert = axes.transData + axes.transAxes.inverted()
    heights = [(float(invert.transform((1, at))[1]), text, colour) for at, text, colour in lines]
    order = sorted(heights, reverse=True)
    places: list[float] = []
    for at, _, _ in order:
        places.append(min(at, places[-1] - APART) if places else min(at, 1.0))
    for index in range(len(places) - 1, -1, -1):  # pushed below the axes: move up again
        places[index] = max(places[index], places[index + 1] + APART if index + 1 < len(places) else 0.0)
    for place, (at, text, colour) in zip(places, order, strict=True):
        axes.annotate(
            text, (1.0, at), (1.03, place), "axes fraction", "axes fraction", color=colour, va="center", size=9,
            weight="bold", annotation_clip=False, arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7,
            "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)} if abs(place - at) > APART / 2 else None,
        )  # fmt: skip


def name_lines(axes: Axes, lines: Sequence[tuple[float, str, Look]]) -> None:
    """Name lines by (height of its end, text, look): beside their ends where they fit, else in a legend below."""
    canvas = axes.get_figure(root=True)
    assert canvas is not None
    if len(lines) <= NAMED:
        canvas.subplots_adjust(right=0.965 - LETTER * max((len(text) for _, text, _ in lines), default=0))
        end_labels(axes, [(at, text, look.colour) for at, text, look in lines])
        return
    handles = [axes.plot([], [], look.marker or "--", color=look.colour, label=text)[0] for _, text, look in lines]
    below, height = 0.2 * -(-len(lines) // 2), canvas.get_figheight()  # inches
    canvas.set_figheight(height + below)
    canvas.subplots_adjust(bottom=(0.14 * height + below) / (height + below), top=1 - 0.08 * height / (height + below))
    canvas.legend(handles=handles, loc="lower left", ncols=2, handletextpad=0.2, columnspacing=1)


def mark(axes: Axes, at: tuple[float, float], look: Look, text: str, kind: str = "") -> None:
    """Draw a mark, usual, ``pale`` or ``hollow``, with a text that pages show as a tooltip."""
    from matplotlib.lines import Line2D

    made = Line2D([at[0]], [at[1]], marker=look.marker, color=look.colour, markersize=6, zorder=look.order + 1)
    made.set(**MARKS[kind])
    made.set_gid(f"tip:{short(text, 200)}")
    axes.add_line(made)


@contextmanager
def applied() -> Iterator[RcParams]:
    """Draw by the style sheet alone, whatever the user has set; yields matplotlib's settings."""
    import matplotlib as mpl
    import matplotlib.style

    with mpl.style.context(SHEET, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # an SVG names fonts, its reader has them
        yield mpl.rcParams


def save(canvas: Canvas, path: Path, png: bool = False) -> str:
    """Write a figure as SVG, the same bytes on every run, and as PNG if wanted; return the SVG."""
    made = io.StringIO()
    canvas.savefig(made, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub(r'<g id="(?!tip:)[^"]*">', "<g>", made.getvalue().partition("<!DOCTYPE")[2].partition(">\n")[2])
    for old, new in (('<g id="tip:', '<g data-tip="'), (INK, "currentColor")):
        text = text.replace(old, new)
    text = text.replace("<defs>", f"{THEME}<defs>", 1)
    write_atomically(path, text)
    if png:
        canvas.savefig(path.with_suffix(".png"), facecolor="white")
    return text
