"""Figures of accuracy against what is stored or spent: who wins at which budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.report_legacy import wording
from bench.report_legacy.plots.canvas import SMALL, TOP, WIDTH, Sheet, dress, sheet
from bench.report_legacy.plots.charts import Chart, diameters, levels, up_label, up_scale
from bench.report_legacy.plots.column import LEFT as COLUMN
from bench.report_legacy.plots.column import NUMBERED, column, room
from bench.report_legacy.plots.panel import Panel
from bench.report_legacy.plots.points import Measure, Point, on_front
from bench.report_legacy.plots.scales import Scale, byte_scale

ACROSS = 4  # small panels side by side
LEFT, GAP, RIGHT = 0.62, 0.34, 0.12  # inches: before, between and after axes
SMALL_ROW = 2.0  # inches from one row of small panels to the next


@dataclass(frozen=True)
class Budget:
    """What an axis counts: its name and label, what a row has of it, how that is worded, the scale for some values."""

    name: str
    label: str
    measure: Measure
    word: Callable[[float], str]
    scale: Callable[[Sequence[float], int], Scale]

    def place(self, point: Point) -> str:
        """Where a point stands on the axis."""
        return self.word(point.x)


def byte_budget(name: str, label: str, measure: Measure) -> Budget:
    """A budget of bytes."""
    return Budget(name, label, measure, lambda value: wording.size(round(value)), byte_scale)


def draw(title: str, chart: Chart, budgets: Sequence[Budget], by_ipc: bool = False) -> Sheet:
    """Under each other a large panel for each budget, in it all images per class, the corners of its front numbered
    and named beside it; with ``by_ipc`` then small panels, one for each number of images per class."""
    found = [chart.points(budget.measure) for budget in budgets]
    ipcs = sorted({point.ipc for points in found for point in points})
    heights = [_height(chart, points, first=index == 0) for index, points in enumerate(found)]
    small_rows = -(-len(ipcs) // ACROSS) if by_ipc and len(ipcs) > 1 else 0
    below = sum(height + 0.62 for height in heights)
    made = sheet(TOP + below + SMALL_ROW * small_rows - (0.2 if small_rows else 0.0), title, chart.subtitle)
    top = TOP
    for index, (budget, points, height) in enumerate(zip(budgets, found, heights, strict=True)):
        _large(made, chart, budget, points, top, height, explained=index == 0)
        top += height + 0.62
    if small_rows:
        _by_ipc(made, chart, budgets[0], found[0], ipcs, top + 0.12)
    return made


def _height(chart: Chart, points: Sequence[Point], first: bool) -> float:
    """Of a large panel, so that its column has room."""
    corners = min(sum(on_front(points)), NUMBERED + 1)
    heads, lines = 1, 2 * corners
    if first:
        ipcs = len({point.ipc for point in points})
        published = len(chart.published_methods(points))
        heads, lines = 4, lines + len(chart.methods(points)) + published + ipcs + 3
    return max(3.0 if first else 2.6, room(heads, lines))


def _large(
    made: Sheet, chart: Chart, budget: Budget, points: Sequence[Point], top: float, height: float, explained: bool
) -> None:
    found = levels(chart.rows, chart.baselines)
    across, up = budget.scale([point.x for point in points], 8), up_scale(points, found)
    axes = made.axes(LEFT, top, COLUMN - LEFT - 0.25, height)
    dress(axes, across, up, budget.label, up_label(up, chart.metric))
    panel = Panel(made, axes, chart, across, up, points)
    widths = diameters(point.ipc for point in points)
    panel.lines(found)
    panel.front()
    panel.mark(widths, budget.place)
    panel.number(NUMBERED)
    beside = column(made, top - 0.1, height + 0.1)
    if explained:
        beside.marks(chart, points, "Images by (faded: off the front)")
        beside.scales(widths)
        beside.lines(found)
    made.notes += [f"Front by {budget.name}:"]
    made.notes += beside.front(chart, panel.corners, "On the front, from the left", budget.place)


def _by_ipc(
    made: Sheet, chart: Chart, budget: Budget, points: Sequence[Point], ipcs: Sequence[int], top: float
) -> None:
    count = min(ACROSS, len(ipcs))
    width = (WIDTH - LEFT - RIGHT - GAP * (count - 1)) / count
    all_levels = levels(chart.rows, chart.baselines)
    across, up = budget.scale([point.x for point in points], 4), up_scale(points, all_levels, 5)
    for index, ipc in enumerate(ipcs):
        row, place = divmod(index, ACROSS)
        axes = made.axes(LEFT + place * (width + GAP), top + SMALL_ROW * row, width, 1.4)
        dress(axes, across, up, "", f"{chart.metric} (%)" if place == 0 else "")
        axes.set_title(f"{wording.plural(ipc, 'image')} per class", size=SMALL, loc="left", pad=4)
        panel = Panel(made, axes, chart, across, up, [point for point in points if point.ipc == ipc])
        panel.lines(levels(chart.rows_at(ipc), chart.baselines))
        panel.front()
        panel.mark({ipc: 4.0}, budget.place)
