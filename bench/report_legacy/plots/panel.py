"""Axes with points in them: marks with their intervals, the front, the lines to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report_legacy.plots.canvas import SMALL, Sheet
from bench.report_legacy.plots.charts import Chart, Level
from bench.report_legacy.plots.points import Point, on_front
from bench.report_legacy.plots.scales import Scale
from bench.report_legacy.plots.style import INK, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FADED = 0.4  # opacity of what another point beats


def look(style: Style, diameter: float, hollow: bool = False) -> dict[str, Any]:
    """The marker of a style; hollow ones are published."""
    return {
        "marker": style.marker,
        "markersize": diameter,
        "markerfacecolor": "none" if hollow else style.colour,
        "markeredgecolor": style.colour if hollow else INK,
        "markeredgewidth": 1.0 if hollow else 0.4,
        "linestyle": "none",
    }


def stroke(level: Level) -> dict[str, Any]:
    """The line of a level."""
    return {"color": INK, "alpha": 0.75, "linewidth": 0.8, "dashes": level.dashes}


@dataclass(frozen=True)
class Panel:
    """Axes, their scales and the points that lie in them."""

    sheet: Sheet
    axes: Axes
    chart: Chart
    across: Scale
    up: Scale
    points: Sequence[Point]

    @property
    def corners(self) -> list[Point]:
        """The points on the front from left to right."""
        chosen = [point for point, front in zip(self.points, on_front(self.points), strict=True) if front]
        return sorted(chosen, key=lambda point: point.x)

    def at(self, point: Point) -> tuple[float, float]:
        """Where a point lies on the axes."""
        return self.across.place(point.x), self.up.place(point.top1)

    def mark(self, diameters: Mapping[int | None, float], place: Callable[[Point], str]) -> None:
        """Every point with its interval, those that others beat faded and behind; ``place`` words where a point
        stands, for its tooltip."""
        front = on_front(self.points)
        for chosen, opacity, width in ((False, 0.16, 0.7), (True, 0.9, 0.9)):
            points = [point for point, corner in zip(self.points, front, strict=True) if corner == chosen]
            self.bars([(point, 0.0) for point in points], opacity, width, order=2.0 + chosen)
            for point in points:
                strong = chosen or point.n is None
                self.dot(point, diameters[point.ipc], place(point), 1.0 if strong else FADED, order=3.0 + strong)

    def dot(
        self, point: Point, diameter: float, place: str, opacity: float = 1.0, order: float = 3.0, aside: float = 0.0
    ) -> None:
        """One marker, moved ``aside`` along the axis, with its tooltip."""
        x, y = self.at(point)
        style = look(self.chart.styles[point.method], diameter, point.n is None)
        (mark,) = self.axes.plot(x + aside, y, alpha=opacity, zorder=order, clip_on=False, **style)
        mark.set_gid(self.sheet.tip(self.chart.say(point, place)))

    def bars(self, points: Sequence[tuple[Point, float]], opacity: float, width: float, order: float) -> None:
        """The intervals of points that have one, each moved aside by so much."""
        from matplotlib.collections import LineCollection

        known = [(point, point.ci95, aside) for point, aside in points if point.ci95 is not None]
        ends = [
            [(self.across.place(one.x) + aside, self.up.place(one.top1 + sign * half)) for sign in (-1, 1)]
            for one, half, aside in known
        ]
        colours = [self.chart.styles[one.method].colour for one, _, _ in known]
        self.axes.add_collection(
            LineCollection(ends, colors=colours, alpha=opacity, linewidths=width, zorder=order), autolim=False
        )

    def front(self) -> None:
        """The staircase of the best accuracy for at most so much, to the end of the axis."""
        if corners := [self.at(point) for point in self.corners]:
            xs, ys = [*(x for x, _ in corners), self.across.limits[1]], [*(y for _, y in corners), corners[-1][1]]
            self.axes.plot(xs, ys, drawstyle="steps-post", color=INK, alpha=0.55, linewidth=1.0, zorder=2.5)

    def lines(self, found: Sequence[Level]) -> None:
        """The horizontal lines."""
        for level in found:
            self.axes.axhline(self.up.place(level.top1), zorder=1.5, **stroke(level))

    def number(self, most: int) -> None:
        """Numbers at the first corners of the front, up and left of them, where no point can be."""
        placed: list[tuple[float, float]] = []
        for index, point in enumerate(self.corners[:most], start=1):
            x, y = (
                float(value) * 72 / self.sheet.figure.dpi for value in self.axes.transData.transform(self.at(point))
            )
            dx, dy = -5.0, 4.0  # points
            while any(abs(x + dx - px) < 10 and abs(y + dy - py) < 8 for px, py in placed):
                dx, dy = dx - 1.0, dy + 2.0
            placed.append((x + dx, y + dy))
            text: dict[str, Any] = {"size": SMALL, "weight": "bold", "ha": "right", "va": "bottom", "zorder": 6}
            self.axes.annotate(str(index), self.at(point), (dx, dy), textcoords="offset points", **text)
