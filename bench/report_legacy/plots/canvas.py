"""A sheet of 800 px with its axes, and its encoding as SVG and PNG: the same bytes on every run.

matplotlib is imported where it draws, so that commands which draw nothing start without it. Its settings hold
inside :func:`settings` alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from bench.report_legacy.plots.scales import Scale
from bench.report_legacy.plots.style import INK, PAPER
from bench.report_legacy.wording import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches; 800 px at 100 dots an inch
TOP = 0.78  # inches: where axes begin, below the headings
PIXELS = 150  # dots an inch of a PNG
COLOURS = 128  # of a PNG
TINY, SMALL, USUAL, LARGE = 6.3, 7.0, 8.0, 10.5  # points

SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # travels with matplotlib
    "font.size": USUAL,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
}


@contextmanager
def settings(salt: str) -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's are; ``salt`` makes the ids of an SVG."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        matplotlib.rcParams["svg.hashsalt"] = salt
        yield


@dataclass
class Sheet:
    """A figure under way. Places are in inches from the top left corner."""

    figure: Figure
    height: float
    notes: list[str] = field(default_factory=list)  # what the picture says, for those who can't see it
    tips: dict[str, str] = field(default_factory=dict)  # id of a mark -> what a pointer over it says

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes with the area of its data there."""
        place = (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(place)

    def text(self, left: float, top: float, text: str, **look: Any) -> None:
        """A line of text, its top left corner there."""
        look = {"va": "top", "ha": "left"} | look
        self.figure.text(left / WIDTH, 1 - top / self.height, drawable(text), **look)

    def tip(self, text: str) -> str:
        """An id for a mark that says ``text`` where a pointer rests on it."""
        name = f"mark-{len(self.tips)}"
        self.tips[name] = plain(text)
        return name

    def png(self) -> bytes:
        """The sheet on white."""
        from PIL import Image

        drawn, made = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, format="rgba", dpi=PIXELS, facecolor="white")
        width = round(WIDTH * PIXELS)
        picture = Image.frombytes("RGBA", (width, len(drawn.getvalue()) // (4 * width)), drawn.getvalue())
        few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(made, format="png")
        return made.getvalue()

    def svg(self) -> str:
        """The sheet as matplotlib writes it."""
        made = io.StringIO()
        self.figure.savefig(made, format="svg", metadata={"Date": None, "Creator": None})
        return made.getvalue()


def sheet(height: float, title: str, subtitle: Sequence[str]) -> Sheet:
    """A sheet of ``height`` inches with its headings; call it inside :func:`settings`."""
    from matplotlib.figure import Figure

    made = Sheet(Figure(figsize=(WIDTH, height)), height)
    made.text(0.12, 0.1, title, size=LARGE, weight="bold")
    for number, line in enumerate(subtitle):
        made.text(0.12, 0.33 + 0.16 * number, line, size=SMALL)
    return made


def dress(axes: Axes, across: Scale, up: Scale, xlabel: str = "", ylabel: str = "") -> None:
    """Ticks, limits, grid and labels of axes. A break of the horizontal scale shows as two strokes."""
    axes.set_xlim(*across.limits)
    axes.set_ylim(*up.limits)
    axes.set_xticks([place for place, _ in across.ticks], [label for _, label in across.ticks])
    axes.set_yticks([place for place, _ in up.ticks], [label for _, label in up.ticks])
    axes.set_xlabel(drawable(xlabel), fontsize=USUAL)
    axes.set_ylabel(drawable(ylabel), fontsize=USUAL)
    axes.grid(color=INK, alpha=0.12, linewidth=0.5)
    axes.tick_params(length=2.5, width=0.6)
    axes.set_axisbelow(True)
    if across.gap is None:
        return
    axes.spines.bottom.set_visible(False)
    on_axis: dict[str, Any] = {
        "transform": axes.get_xaxis_transform(),
        "clip_on": False,
        "color": INK,
        "linewidth": 0.7,
    }
    for ends in ((across.limits[0], across.gap[0]), (across.gap[1], across.limits[1])):
        axes.plot(ends, (0, 0), **on_axis)
    stroke = [(-0.4, -1), (0.4, 1)]
    axes.plot(across.gap, (0, 0), marker=stroke, markersize=6, **{**on_axis, "linestyle": "none"})


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def drawable(text: str) -> str:
    """One line with a box for every character that the font lacks."""
    return "".join(char if ord(char) in _glyphs() else "□" for char in plain(text))
