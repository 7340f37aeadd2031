"""What the authors of a suite's experiment report, beside what was measured: the same direction, or not?

A measured difference is paired by the seeds of distilled sets and students, as on every board, so that chance moves
both sides alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from bench.planning.protocols import OFFICIAL, unchanged
from bench.planning.suites import Suite, Trend, Which, suite
from bench.report_legacy.board import Row
from bench.report_legacy.pipe_table import render_table
from bench.report_legacy.statistics import Summary, paired_differences, summarize
from bench.report_legacy.wording import JOINED, NONE, escape, name, percent, plain

SAME, OTHER, UNTOLD = "same", "other", "can't tell"
COLUMNS = {
    "What they report": "left",
    "Printed": "right",
    "Protocol": "left",  # where there are several
    "IPC": "right",
    "Student": "left",
    "Measured": "right",
    "Δ": "right",
    "n": "right",
    "Direction": "left",
}
NOTES = """\
**Printed**: the two numbers of the authors, in their setting. **Measured**: the two means here. **Δ**: their difference
in points, ± half its 95 % interval over sets paired by seed. **n**: such pairs, of those that should be; *3 × 2*: each
of two students. **Direction**: *same* or *other* where that interval leaves out zero; *can't tell* where it doesn't, or
where one pair has none. Official protocols are each method's own, so what they compare differs in more than the
method."""
NAMED = 5  # of the trends that were not measured; the others are counted


class Finding(NamedTuple):
    """A trend in one table of a board; several where the authors report the same of several data sets or students that
    one row here stands for."""

    trends: tuple[Trend, ...]
    more: Row
    less: Row
    difference: Summary  # of fractions, over pairs of distilled sets

    @property
    def direction(self) -> str:
        """``same``, ``other`` or ``can't tell``: as the authors found it?"""
        mean, half = self.difference.mean, self.difference.ci95
        if mean is None or half is None or abs(mean) <= half:
            return UNTOLD
        return SAME if (mean > 0) == _upward(self.trends[0]) else OTHER

    @property
    def pairs(self) -> str:
        """How many pairs of sets there are: ``3``, ``2/3`` while one is to come, ``3 × 2`` with two students each."""
        more, less = self.more.runs, self.less.runs
        expected = {entry.seed for entry in self.more.entries} & {entry.seed for entry in self.less.entries}
        students = {len(more[seed].keys() & less[seed].keys()) for seed in more.keys() & less.keys()} - {0}
        n = str(self.difference.n) if self.difference.n == len(expected) else f"{self.difference.n}/{len(expected)}"
        if students == {1}:
            return n
        return f"{n} × {min(students)}" + (f"–{max(students)}" if len(students) > 1 else "")


def about(trends: Sequence[Trend], dataset: str) -> list[Trend]:
    """The trends that a board of a data set is about: those on this data set where any is, else all."""
    own = any(trend.dataset == dataset for trend in trends)
    return [trend for trend in trends if not own or trend.dataset in (None, dataset)]


def findings(suite: Suite, rows: Sequence[Row]) -> list[Finding]:
    """The trends of a suite in every table of a board that holds both of their rows and both are measured."""
    found: dict[tuple[Any, ...], Finding] = {}
    for trend in about(suite.trends, rows[0].dataset) if rows else []:
        for more, less in _pairs(trend, rows):
            key = (trend.claim, _upward(trend), id(more), id(less))
            if key in found:
                found[key] = found[key]._replace(trends=(*found[key].trends, trend))
            elif (difference := summarize(paired_differences(more.runs, less.runs))).n:
                found[key] = Finding((trend,), more, less, difference)
    return list(found.values())


def _upward(trend: Trend) -> bool:
    """Is it the first of the two that does better, as the authors found it?"""
    first, second = trend.printed or (1.0, 0.0)
    return first > second


def _pairs(trend: Trend, rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """The rows a trend is about, two by two, that differ in nothing but what the trend names, and in the protocol
    where each is its method's own."""
    students = (trend.student, *trend.kin)
    here = [row for row in rows if trend.ipc in (None, row.ipc) and (not trend.student or row.student in students)]
    across_ipc = trend.more.ipc is not None or trend.less.ipc is not None
    across_students = trend.more.student is not None or trend.less.student is not None

    def place(row: Row) -> tuple[Any, ...]:
        ipc, student = None if across_ipc else row.ipc, None if across_students else row.student
        return (_recipe(row), ipc, student)

    others = _like(trend.less, here)
    for more in _like(trend.more, here):
        yield from ((more, less) for less in others if place(less) == place(more) and less is not more)


def _recipe(row: Row) -> tuple[str, int]:
    """The protocol, or that it is official with the same changes."""
    usual = unchanged(row.protocol)
    if usual.startswith(f"{OFFICIAL}-"):
        return OFFICIAL + row.protocol.removeprefix(usual), 0
    return row.protocol, row.protocol_version


def _like(which: Which, rows: Iterable[Row]) -> list[Row]:
    """Rows with the method's own labels, where none are named."""
    base = which.method.partition("[")[0]
    return [
        row
        for row in rows
        if row.ipc is not None
        and row.base == base
        and which.method in (row.entries[0].via, row.method)
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
    if not (whole.trends and rows):
        return head
    found = findings(whole, rows)
    measured = [trend for one in found for trend in one.trends]
    missing = [trend for trend in about(whole.trends, rows[0].dataset) if trend not in measured]
    if not found:
        return f"{head}\n\nNone of its trends can be told from these rows."
    several = len({_recipe(one.more) for one in found}) > 1
    columns = {column: side for column, side in COLUMNS.items() if several or column != "Protocol"}
    blocks = [head, _count(found), render_table(columns, [_line(one) for one in found]), *_missing(missing), NOTES]
    return "\n\n".join(blocks)


def _count(found: Sequence[Finding]) -> str:
    """How many go which way, in a sentence."""
    ways = Counter(one.direction for one in found)
    return f"Beside theirs: {ways[SAME]} the same way, {ways[OTHER]} the other way, {ways[UNTOLD]} can't be told."


def _missing(trends: Sequence[Trend]) -> list[str]:
    if not trends:
        return []
    shown = "; ".join(_setting(trend) for trend in trends[:NAMED])
    rest = f"; and {len(trends) - NAMED} more" if len(trends) > NAMED else ""
    return [f"Not measured here: {shown}{rest}."]


def _setting(trend: Trend) -> str:
    """The claim and where it was found."""
    where = ", ".join(filter(None, (trend.dataset, trend.student)))
    return escape(trend.claim) + (f" ({name(where)})" if where else "") + (f" at IPC {trend.ipc}" if trend.ipc else "")


def _printed(trend: Trend) -> str:
    """The two numbers, and where they were found."""
    if trend.printed is None:
        return NONE
    where = ", ".join(filter(None, (trend.dataset, trend.student)))
    numbers = " : ".join(f"{value:g}" for value in trend.printed).replace(" ", JOINED)
    return numbers + (f" ({name(where)})" if where else "")


def _line(one: Finding) -> dict[str, str]:
    mean, half = one.difference.mean, one.difference.ci95
    delta = NONE if mean is None else f"{100 * mean:+.1f}"
    return {
        "What they report": escape(one.trends[0].claim),
        "Printed": "; ".join(map(_printed, one.trends)),
        "Protocol": name(_recipe(one.more)[0]),
        "IPC": _both(str(one.more.ipc), str(one.less.ipc)),
        "Student": _both(escape(plain(one.more.student)), escape(plain(one.less.student))),
        "Measured": f"{percent(one.more.top1.mean)} : {percent(one.less.top1.mean)}".replace(" ", JOINED),
        "Δ": (delta if half is None else f"{delta} ± {100 * half:.1f}").replace(" ", JOINED),
        "n": one.pairs.replace(" ", JOINED),
        "Direction": one.direction,
    }


def _both(more: str, less: str) -> str:
    """One word where both rows agree, else both."""
    return more if more == less else f"{more} : {less}"
