"""All plots of one data set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from bench.report_legacy.board import Row
from bench.report_legacy.plots import budgets, growth, points, steps, students
from bench.report_legacy.plots.canvas import Sheet, settings
from bench.report_legacy.plots.charts import Chart, levels
from bench.report_legacy.plots.points import Published, render_points
from bench.report_legacy.plots.scales import time_scale
from bench.report_legacy.plots.seal import facts_digest, seal, sealed
from bench.report_legacy.plots.style import Style, styles
from bench.report_legacy.plots.svg import polish
from bench.report_legacy.stems import file_stem
from bench.report_legacy.wording import seconds

LABELS = budgets.byte_budget("labels", "label bytes (log scale; 0: hard labels)", points.label_bytes)
SHIPPED = budgets.byte_budget("labels + public", "label bytes + public bases (bytes, log scale)", points.shipped_bytes)
EVERYTHING = budgets.byte_budget(
    "images + labels + public", "images + labels + public bases (bytes, log scale)", points.all_bytes
)
TIME = budgets.Budget(
    "seconds",
    "wall time of all cells behind a student (log scale)",
    points.total_seconds,
    lambda value: f"{seconds(value)} s",
    time_scale,
)


@dataclass(frozen=True)
class Plot:
    """One figure that can be drawn."""

    name: str  # of its files without their endings: "digits/accuracy-labels"
    title: str
    subtitle: tuple[str, str]
    table: str  # CSV: what it shows
    beside: tuple[str, ...]  # what it shows that is not in the table
    make: Callable[[], Sheet]

    @property
    def facts(self) -> str:
        """The digest of all it shows."""
        return facts_digest([self.name, self.title, *self.subtitle, self.table, *self.beside])

    def draw(self) -> tuple[bytes, bytes]:
        """SVG and PNG."""
        with settings(self.name):
            made = self.make()
            told = " ".join([*self.subtitle, *made.notes])
            return seal(polish(made.svg(), self.title, told, made.tips), self.facts), made.png()


def draw(
    dataset_rows: Sequence[Row],
    titles: Mapping[str, str] | None = None,
    baselines: Collection[str] = (),
    published_points: Sequence[Published] = (),
    present: Callable[[str], bytes | None] = lambda name: None,
) -> dict[str, bytes]:
    """File name → content of every plot of one data set, the same bytes on every run; writes nothing.

    Accuracy against classes seen (where they arrive in steps), against label bytes, against all bytes, against images
    per class and against time, for each student under each protocol: ``digits/accuracy-labels.svg``, ``.png`` and
    ``.csv``. Where there are several, the one with the most measured rows has the plain names, the others have protocol
    and student in theirs. A heat map shows a protocol of two or more students. What has no measured row has no plot.

    Args:
        dataset_rows: all of one data set, in any order.
        titles: method name → title; the name where there is none.
        baselines: names of methods that ride along: drawn in the colour of the text.
        published_points: numbers of papers, for the figures of their student and protocol.
        present: the content of a file where there is one: an SVG that still shows the same is taken as it is, with
            its PNG, because drawing takes most of the time.
    """
    files: dict[str, bytes] = {}
    for plot in _plots(dataset_rows, titles, baselines, published_points):
        svg, png = present(f"{plot.name}.svg"), present(f"{plot.name}.png")
        if svg is None or png is None or not (_is_png(png) and sealed(svg) == plot.facts):
            svg, png = plot.draw()
        files |= {f"{plot.name}.svg": svg, f"{plot.name}.png": png, f"{plot.name}.csv": plot.table.encode()}
    return files


def stale(
    dataset_rows: Sequence[Row],
    titles: Mapping[str, str] | None = None,
    baselines: Collection[str] = (),
    published_points: Sequence[Published] = (),
    *,
    present: Callable[[str], bytes | None],
) -> list[str]:
    """The names of those files of :func:`draw` that are missing or not what the rows give; draws nothing.

    CSV is compared byte for byte, SVG by its seal. A PNG need only be one: its bytes differ between builds of the
    libraries that draw and compress it, and its SVG vouches for what it shows.
    """
    found = []
    for plot in _plots(dataset_rows, titles, baselines, published_points):
        svg, png, table = (present(f"{plot.name}.{ending}") for ending in ("svg", "png", "csv"))
        if svg is None or sealed(svg) != plot.facts:
            found.append(f"{plot.name}.svg")
        if png is None or not _is_png(png):
            found.append(f"{plot.name}.png")
        if table != plot.table.encode():
            found.append(f"{plot.name}.csv")
    return found


def names(dataset_rows: Sequence[Row]) -> list[str]:
    """The SVG files of :func:`draw`, in its order."""
    return [f"{plot.name}.svg" for plot in _plots(dataset_rows, None, (), ())]


def _is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n")


def _plots(
    dataset_rows: Sequence[Row],
    titles: Mapping[str, str] | None,
    baselines: Collection[str],
    published: Sequence[Published],
) -> Iterator[Plot]:
    rows = sorted(dataset_rows, key=_order)
    if not rows:
        return
    folder = file_stem(rows[0].dataset)
    looks = styles([*(row.method for row in rows), *(one.method for one in published)], titles, baselines)
    seen = tuple(f"{method}: {style}" for method, style in looks.items())
    for place, chart in enumerate(_charts(rows, looks, baselines, published)):
        tail = f"-{file_stem(f'{chart.protocol}-v{chart.version}-{chart.student}')}" if place else ""
        ipcs = sorted({row.ipc or 0 for row in chart.rows})
        lines = tuple(f"{ipc}: {levels(chart.rows_at(ipc or None), baselines)}" for ipc in ipcs)
        for kind, title, table, make in _figures(chart):
            yield Plot(f"{folder}/{kind}{tail}", title, chart.subtitle, table, (*seen, *lines), make)
    for place, (protocol, version, own) in enumerate(_compared(rows)):
        tail = f"-{file_stem(f'{protocol}-v{version}')}" if place else ""
        title, subtitle = "Students and methods", students.subtitle(_title(own), protocol, version, own)
        make = partial(students.draw, title, subtitle, own, looks)
        yield Plot(f"{folder}/students{tail}", title, subtitle, students.render(own), seen, make)


def _order(row: Row) -> tuple[Any, ...]:
    return (row.protocol, row.protocol_version, row.student, row.ipc is None, row.ipc or 0, row.method, row.labels)


def _title(rows: Sequence[Row]) -> str:
    return min(entry.title for row in rows for entry in row.entries)


def _charts(
    rows: Sequence[Row], looks: Mapping[str, Style], baselines: Collection[str], published: Sequence[Published]
) -> list[Chart]:
    """A chart for each student under each protocol that has something to show, the one with most first."""
    found = []
    for (protocol, version, student), group in groupby(rows, key=_order_of_chart):
        own = tuple(group)
        beside = tuple(one for one in published if (one.student, one.protocol) == (student, protocol))
        found.append(Chart(_title(own), student, protocol, version, own, beside, looks, baselines))
    shown = [chart for chart in found if any(_measured(row) for row in chart.rows)]
    return sorted(shown, key=lambda chart: -sum(_measured(row) for row in chart.rows))


def _order_of_chart(row: Row) -> tuple[str, int, str]:
    return (row.protocol, row.protocol_version, row.student)


def _measured(row: Row) -> bool:
    return row.ipc is not None and row.top1.mean is not None


def _compared(rows: Sequence[Row]) -> Iterator[tuple[str, int, list[Row]]]:
    """Protocols under which two students or more are measured."""
    for (protocol, version), group in groupby(rows, key=lambda row: (row.protocol, row.protocol_version)):
        own = [row for row in group if _measured(row)]
        if len({row.student for row in own}) > 1:
            yield protocol, version, own


def _figures(chart: Chart) -> Iterator[tuple[str, str, str, Callable[[], Sheet]]]:
    """Kind, title, CSV and drawing of every figure of a chart that has points."""
    if arriving := steps.panels(chart):
        title = "Accuracy against classes seen"
        table = render_points([*arriving, (steps.FULL, steps.compared(chart))], "classes_seen")
        yield "accuracy-classes", title, table, partial(steps.draw, title, chart)
    kinds = (
        ("accuracy-labels", "Accuracy against label bytes", (LABELS,), True),
        ("accuracy-bytes", "Accuracy against all that a student needs", (SHIPPED, EVERYTHING), False),
        ("accuracy-time", "Accuracy against time", (TIME,), False),
    )
    for kind, title, wanted, by_ipc in kinds:
        found = [(budget.name, chart.points(budget.measure)) for budget in wanted]
        if all(points for _, points in found):
            table = render_points(found, "seconds" if wanted == (TIME,) else "bytes")
            yield kind, title, table, partial(budgets.draw, title, chart, wanted, by_ipc)
    title = "Accuracy against images per class"
    yield (
        "accuracy-ipc",
        title,
        render_points(growth.panels(chart), "images_per_class"),
        partial(growth.draw, title, chart),
    )
