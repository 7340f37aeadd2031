"""The figure of accuracy against images per class: a small panel for each way to label, a line for each method."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report_legacy.plots.canvas import SMALL, TOP, Sheet, drawable, dress, sheet
from bench.report_legacy.plots.charts import Chart, levels, up_label, up_scale
from bench.report_legacy.plots.column import LEFT as COLUMN
from bench.report_legacy.plots.column import column, room
from bench.report_legacy.plots.panel import Panel
from bench.report_legacy.plots.points import Point, images_per_class
from bench.report_legacy.plots.scales import count_scale
from bench.report_legacy.plots.style import short

ACROSS = 3
LEFT, GAP, ROW = 0.62, 0.3, 1.95  # inches
AXES = 1.45  # inches of height
WITHOUT_HEAD = ("hard", "static", "stored")  # what comes before the colon is no model


def way(labels: str) -> str:
    """How labels reach the student, whoever gave them: ``stored:fp16 of ensemble`` → ``stored:fp16``,
    ``teacher:int8`` → ``online:int8``."""
    kind = labels.partition(" of ")[0]
    head, colon, codec = kind.partition(":")
    return kind if head in WITHOUT_HEAD else f"online{colon}{codec}"


def panels(chart: Chart) -> list[tuple[str, list[Point]]]:
    """The ways to label, those of the fewest label bytes first, each with its points."""
    found: dict[str, list[Point]] = {}
    stored: dict[str, list[int]] = {}
    for point in chart.points(images_per_class):
        found.setdefault(way(point.labels), []).append(point)
    for row in chart.rows:
        if row.label_bytes is not None:
            stored.setdefault(way(row.labels), []).append(row.label_bytes)
    mean = {name: sum(sizes) / len(sizes) for name, sizes in stored.items()}
    return sorted(found.items(), key=lambda item: (mean.get(item[0], float("inf")), item[0]))


def draw(title: str, chart: Chart) -> Sheet:
    """The figure."""
    found = panels(chart)
    everything = [point for _, points in found for point in points]
    compared = [level for level in levels(chart.rows, chart.baselines) if level.name == "full data"]
    across, up = count_scale([point.x for point in everything]), up_scale(everything, compared, 6)
    methods = chart.methods(everything)
    rows = -(-len(found) // ACROSS)
    height = max(ROW * rows, room(3, len(methods) + len(chart.published_methods(everything)) + 5))
    made = sheet(TOP + 0.18 + height, title, chart.subtitle)
    width = (COLUMN - LEFT - 0.25 - GAP * (ACROSS - 1)) / ACROSS
    for index, (name, points) in enumerate(found):
        row, place = divmod(index, ACROSS)
        axes = made.axes(LEFT + place * (width + GAP), TOP + 0.18 + ROW * row, width, AXES)
        last = index + ACROSS >= len(found)
        dress(
            axes,
            across,
            up,
            "images per class" if last else "",
            _beside(up_label(up, chart.metric)) if place == 0 else "",
        )
        axes.set_title(drawable(short(name)), size=SMALL, loc="left", pad=4)
        panel = Panel(made, axes, chart, across, up, points)
        panel.lines(compared)
        grow(panel, methods, "images per class")
    beside = column(made, TOP, height)
    beside.marks(chart, everything, "Images by")
    beside.lines(compared)
    beside.head("Panels: how labels are kept")
    beside.line("a line for each method and", indent=0)
    beside.line("each model that labels for it", indent=0)
    return made


def _beside(label: str) -> str:
    return label.replace(", log scale of the error", ", log error").replace("accuracy ", "")


def grow(panel: Panel, methods: Sequence[str], unit: str, apart: float = 0.02) -> None:
    """A line for each method and source of labels; methods ``apart`` by that share of the axis at most, so that their
    intervals don't hide each other. ``unit`` words what the axis counts."""
    step = min(apart, 0.12 / len(methods)) * (panel.across.limits[1] - panel.across.limits[0])
    lines: dict[tuple[str, str, bool], list[Point]] = {}
    for point in panel.points:
        lines.setdefault((point.method, point.labels, point.n is None), []).append(point)
    for (method, _, published), points in lines.items():
        points.sort(key=lambda point: point.x)
        aside = 0.0 if published else step * (methods.index(method) - (len(methods) - 1) / 2)
        style = panel.chart.styles[method]
        places = [panel.at(point) for point in points]
        if not published:
            xs, ys = [x + aside for x, _ in places], [y for _, y in places]
            panel.axes.plot(xs, ys, color=style.colour, linewidth=0.9, alpha=0.8, zorder=2.6)
        panel.bars([(point, aside) for point in points], 0.35, 0.8, order=2.4)
        for point in points:
            panel.dot(point, 4.0, f"{point.x:g} {unit}", aside=aside)
