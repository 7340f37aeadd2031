"""The column at the right of a figure: what stands for what, and who is on the front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report_legacy import wording
from bench.report_legacy.plots.canvas import SMALL, TINY, WIDTH, Sheet, drawable
from bench.report_legacy.plots.charts import DAGGER, Chart, Level, accuracy
from bench.report_legacy.plots.panel import look, stroke
from bench.report_legacy.plots.points import Point
from bench.report_legacy.plots.style import INK, Style, short
from bench.report_legacy.wording import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 0.155  # inches from line to line
LEFT = 5.55  # inches: where the column begins
NUMBERED = 12  # corners of a front that are named
_PLAIN = Style("", INK, "o")


@dataclass
class Column:
    """Lines of text, a sample before each, from the top down."""

    axes: Axes
    at: float = 0.0  # inches from its top: the line written last

    def head(self, text: str) -> None:
        """A bold line, some room before it."""
        self.at += LINE if self.at == 0 else 1.6 * LINE
        self.axes.text(0, self.at, drawable(text), size=SMALL, weight="bold")

    def line(self, text: str, indent: float = 0.2, **looks: Any) -> None:
        """A line of text."""
        self.at += LINE
        self.axes.text(indent, self.at, drawable(text), **{"size": SMALL, **looks})

    def sample(self, style: Style, text: str, diameter: float = 5.5, hollow: bool = False) -> None:
        """A marker and what it stands for."""
        self.line(text)
        self.axes.plot(0.08, self.at - 0.035, **look(style, diameter, hollow))

    def marks(self, chart: Chart, points: Sequence[Point], head: str) -> None:
        """The methods; below them, hollow, those of published numbers."""
        self.head(head)
        for method in chart.methods(points):
            self.sample(chart.styles[method], short(chart.styles[method].name))
        for method in chart.published_methods(points):
            self.sample(
                chart.styles[method], f"{DAGGER} published: {short(chart.styles[method].name, 16)}", hollow=True
            )

    def scales(self, diameters: Mapping[int | None, float]) -> None:
        """How large a marker is for how many images per class, where that differs."""
        if len(diameters) > 1:
            self.head("Images per class")
            for ipc, diameter in diameters.items():
                self.sample(_PLAIN, str(ipc), diameter)

    def lines(self, found: Iterable[Level]) -> None:
        """The horizontal lines."""
        if found:
            self.head("Lines (best in the panel)")
        for level in found:
            self.line(f"{level.name}: {wording.percent(level.top1)}", indent=0.34)
            self.axes.plot((0, 0.28), (self.at - 0.035, self.at - 0.035), **stroke(level))

    def front(self, chart: Chart, corners: Sequence[Point], head: str, place: Callable[[Point], str]) -> list[str]:
        """The corners of a front by number, and the same as text."""
        self.head(head)
        told = []
        for index, corner in enumerate(corners[:NUMBERED], start=1):
            name = chart.styles[corner.method].name
            self.line(f"{index}  {short(name, 16)}, IPC {corner.ipc}: {accuracy(corner)}", indent=0)
            self.line(f"{short(corner.labels, 32)}, {place(corner)}", size=TINY, alpha=0.8)
            told.append(
                f"{index}: {name}, {plain(corner.labels)}, IPC {corner.ipc}: {accuracy(corner)} %, {place(corner)}."
            )
        if len(corners) > NUMBERED:
            self.line(f"and {len(corners) - NUMBERED:,} more", indent=0)
        return told


def column(sheet: Sheet, top: float, height: float) -> Column:
    """An empty column from ``top`` down, in inches."""
    axes = sheet.axes(LEFT, top, WIDTH - LEFT - 0.05, height)
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH - LEFT - 0.05)
    axes.set_ylim(height, 0)
    return Column(axes)


def room(heads: int, lines: int) -> float:
    """Inches that so many heads and lines take."""
    return LINE * (1.6 * heads + lines + 0.5)
