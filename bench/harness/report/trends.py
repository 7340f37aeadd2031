"""What the authors of a suite's experiment report, beside what was measured: the same direction, or not?

A measured difference is paired by the seeds of distilled sets and students, as on every board, so that chance moves
both sides alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from bench.harness.report.board import Row
from bench.harness.report.pipe_table import render_table
from bench.harness.report.statistics import Summary, paired_differences, summarize
from bench.harness.report.wording import NONE, escape, percent, plain
from bench.harness.suites import Suite, Trend, Which, suite

COLUMNS = {
    "What they report": "left",
    "Printed": "right",
    "IPC": "right",
    "Student": "left",
    "Measured": "right",
    "Δ": "right",
    "n": "right",
    "Direction": "left",
}
NOTES = """\
**Printed**: the two top-1 % of the authors, in their setting. **Measured**: the two means here. **Δ**: their difference
in points, ± half its 95 % interval over sets paired by seed. **Direction**: *same* or *other* where that interval
leaves out zero; *can't tell* where it doesn't, or where one pair has none."""


class Finding(NamedTuple):
    """A trend in one table of a board."""

    trend: Trend
    more: Row
    less: Row
    difference: Summary  # of fractions, over pairs of distilled sets

    @property
    def direction(self) -> str:
        """``same``, ``other`` or ``can't tell``: as the authors found it?"""
        mean, half = self.difference.mean, self.difference.ci95
        if mean is None or half is None or abs(mean) <= half:
            return "can't tell"
        first, second = self.trend.printed or (1.0, 0.0)
        return "same" if (mean > 0) == (first > second) else "other"


def findings(whole: Suite, rows: Sequence[Row]) -> list[Finding]:
    """The trends of a suite in every table of a board that holds both of their rows and both are measured."""
    found = []
    for trend in whole.trends:
        for more, less in _pairs(trend, rows):
            difference = summarize(paired_differences(more.runs, less.runs))
            if difference.n:
                found.append(Finding(trend, more, less, difference))
    return found


def _pairs(trend: Trend, rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """The rows a trend is about, two by two, that differ in nothing but what the trend names."""
    here = [row for row in rows if trend.ipc in (None, row.ipc) and trend.student in (None, row.student)]
    across_ipc = trend.more.ipc is not None or trend.less.ipc is not None
    across_students = trend.more.student is not None or trend.less.student is not None

    def place(row: Row) -> tuple[Any, ...]:
        ipc, student = None if across_ipc else row.ipc, None if across_students else row.student
        return (row.protocol, row.protocol_version, ipc, student)

    others = _like(trend.less, here)
    for more in _like(trend.more, here):
        yield from ((more, less) for less in others if place(less) == place(more) and less is not more)


def _like(which: Which, rows: Iterable[Row]) -> list[Row]:
    """Rows with the method's own labels, where none are named."""
    base = which.method.partition("[")[0]
    return [
        row
        for row in rows
        if row.ipc is not None
        and row.base == base
        and (row.entries[0].via or row.method) == which.method
        and (row.labels == which.labels if which.labels else row.entries[0].asked == "native")
        and which.student in (None, row.student)
        and which.ipc in (None, row.ipc)
    ]


def titled(title: str, name: str) -> str:
    """The title of a board: of its data set, behind that of the suite called ``name``, if any."""
    return f"{suite(name).title}: {title}" if name else title


def of(name: str, rows: Sequence[Row]) -> str:
    """The Markdown block of the suite called ``name`` on its board; empty without one."""
    return render(suite(name), rows) if name else ""


def render(whole: Suite, rows: Sequence[Row]) -> str:
    """The Markdown block; it says so where nothing of it was measured."""
    head = f"## Beside the paper\n\n{escape(whole.title)}: {escape(whole.source)}. {escape(whole.about)}"
    found = findings(whole, rows)
    if not found:
        return f"{head}\n\nNone of its trends can be told from these rows." if whole.trends else head
    return "\n\n".join([head, render_table(COLUMNS, [_line(one) for one in found]), NOTES])


def _line(one: Finding) -> dict[str, str]:
    trend, mean, half = one.trend, one.difference.mean, one.difference.ci95
    printed = NONE if trend.printed is None else " : ".join(f"{value:g}" for value in trend.printed)
    delta = NONE if mean is None else f"{100 * mean:+.1f}"
    return {
        "What they report": escape(trend.claim),
        "Printed": printed,
        "IPC": str(one.more.ipc),
        "Student": escape(plain(one.more.student)),
        "Measured": f"{percent(one.more.top1.mean)} : {percent(one.less.top1.mean)}",
        "Δ": delta if half is None else f"{delta} ± {100 * half:.1f}",
        "n": str(one.difference.n),
        "Direction": one.direction,
    }
