"""The figure of accuracy against classes seen, where classes arrive in steps: a line for each method, with a mark after
every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.report_legacy import wording
from bench.report_legacy.board import Row
from bench.report_legacy.plots.canvas import SMALL, TOP, Sheet, drawable, dress, sheet
from bench.report_legacy.plots.charts import Chart, Level
from bench.report_legacy.plots.column import LEFT as COLUMN
from bench.report_legacy.plots.column import column, room
from bench.report_legacy.plots.growth import grow, way
from bench.report_legacy.plots.panel import Panel, stroke
from bench.report_legacy.plots.points import Point
from bench.report_legacy.plots.scales import Scale
from bench.report_legacy.plots.style import short
from bench.report_legacy.statistics import summarize_sets

ACROSS = 2  # panels side by side
LEFT, GAP, ROW = 0.62, 0.42, 2.75  # inches: before axes and between them, from one row of panels to the next
AXES = 2.2  # inches of height
APART = 0.006  # of the axis, from method to method: less than from class to class, of which there may be many
TICKS = 10  # classes at most that are named
FULL = "full data"
DASHES = (6.0, 2.0)


def by_step(row: Row) -> list[Point]:
    """The points of a row, one for each number of classes seen; none where its classes did not arrive in steps."""
    runs: dict[int, dict[int, dict[int, float]]] = {}
    for entry in row.entries:
        seed, student_seed = entry.seeds
        for classes, top1 in entry.steps:
            runs.setdefault(classes, {}).setdefault(seed, {})[student_seed] = top1
    found = [(classes, summarize_sets(runs[classes])) for classes in sorted(runs)]
    return [
        Point(row.method, row.labels, row.ipc or 0, classes, one.mean, one.std, one.ci95, one.n)
        for classes, one in found
        if one.mean is not None
    ]


def panels(chart: Chart) -> list[tuple[str, list[Point]]]:
    """The panels that have points, each with its name: by images per class, and labels of models before others."""
    found: dict[tuple[int, bool, str], list[Point]] = {}
    for row in chart.rows:
        if row.ipc is not None and (points := by_step(row)):
            labels = way(row.labels)
            found.setdefault((row.ipc, not labels.startswith("online"), labels), []).extend(points)
    return [
        (f"{wording.plural(ipc, 'image')} per class, {labels} labels", points)
        for (ipc, _, labels), points in sorted(found.items())
    ]


def compared(chart: Chart) -> list[Point]:
    """The points of the whole training set; none where it was not asked for."""
    return [point for row in chart.rows if row.ipc is None for point in by_step(row)]


def draw(title: str, chart: Chart) -> Sheet:
    """The figure."""
    found, full = panels(chart), compared(chart)
    everything = [*full, *(point for _, points in found for point in points)]
    across, up = _classes([point.x for point in everything]), _percents([point.top1 for point in everything])
    methods = chart.methods(point for _, points in found for point in points)
    side_by_side = min(ACROSS, len(found))
    height = max(ROW * -(-len(found) // side_by_side), room(3, len(methods) + 6))
    made = sheet(TOP + 0.18 + height, title, chart.subtitle)
    width = (COLUMN - LEFT - 0.25 - GAP * (side_by_side - 1)) / side_by_side
    level = Level(FULL, 1.0, DASHES)
    for index, (name, points) in enumerate(found):
        row, place = divmod(index, side_by_side)
        axes = made.axes(LEFT + place * (width + GAP), TOP + 0.18 + ROW * row, width, AXES)
        last = index + side_by_side >= len(found)
        dress(axes, across, up, "classes seen" if last else "", "top-1 on the classes seen (%)" if place == 0 else "")
        axes.set_title(drawable(short(name, 40)), size=SMALL, loc="left", pad=4)
        axes.plot([point.x for point in full], [point.top1 for point in full], zorder=1.5, **stroke(level))
        grow(Panel(made, axes, chart, across, up, points), methods, "classes seen", APART)
    beside = column(made, TOP, height)
    beside.marks(chart, [point for _, points in found for point in points], "Images by")
    if full:
        beside.head("Lines")
        beside.line(FULL, indent=0.34)
        beside.axes.plot((0, 0.28), (beside.at - 0.035, beside.at - 0.035), **stroke(level))
    beside.head("After every step")
    beside.line("a new student learns from the", indent=0)
    beside.line("images of all classes seen; a line", indent=0)
    beside.line("for each model that labels them", indent=0)
    return made


def _classes(values: Sequence[float]) -> Scale:
    """Classes seen, from none, a tick at every number that was tested as far as there is room."""
    tested = sorted(set(values))
    named = tested[:: -1 if len(tested) <= TICKS else -math.ceil(len(tested) / TICKS)]
    margin = 0.05 * tested[-1]
    return Scale(float, tuple((value, f"{value:g}") for value in reversed(named)), (0.0, tested[-1] + margin))


def _percents(values: Sequence[float]) -> Scale:
    """Accuracies on a linear axis: the first steps, of few classes, are near 100 % and say little."""
    low = min(math.floor(10 * min(values)) / 10, 0.9)
    ticks = tuple((tenth / 10, str(10 * tenth)) for tenth in range(round(10 * low), 11))
    margin = 0.03 * (1 - low)
    return Scale(float, ticks, (low - margin, 1 + margin))
