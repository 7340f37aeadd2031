"""Findings of the authors of a suite's experiment next to what was measured: the same direction, or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import pandas as pd

from bench.format import NONE, escape, markdown_table, name, percent, plain, points, unbroken
from bench.planning.protocols import OFFICIAL, unchanged
from bench.planning.suites import Suite, Trend, Which, names, suite
from bench.report.comparison import CLAIM_SEEDS, Estimate, corrected, is_claimed
from bench.report.rows import accuracies, records

SAME, OTHER, UNCLAIMED = "same", "other", "not claimed"
LEFT = ("What they report", "Printed", "Protocol", "IPC", "Student", "Direction")
NOTES = f"""\
**Printed**: the two numbers of the authors, in their setting. **Measured**: the two means here. **Δ**: their difference
in points with its 95 % interval, paired by seed and test image. **n**: pairs of distilled sets, of those planned.
**Direction**: *same* or *other* where at least {CLAIM_SEEDS} pairs show a significant difference (5 %, after Holm's
correction for this table), else *not claimed*. Official protocols are each method's own, so what they compare differs
in more than the method."""
NAMED = 5  # of the trends that were not measured; the others are counted


class Finding(NamedTuple):
    """Trend in one table of a board; rows are tuples of :func:`bench.report.rows.records`.

    Several trends where the authors report the same of several data sets or students that one row here stands for.
    """

    trends: tuple[Trend, ...]
    more: Any
    less: Any
    difference: Estimate  # of fractions, over pairs of distilled sets

    @property
    def direction(self) -> str:
        """``same`` or ``other`` than the authors found, or ``not claimed``."""
        if not is_claimed(self.difference):
            return UNCLAIMED
        return SAME if (self.difference.mean > 0) == _upward(self.trends[0]) else OTHER

    @property
    def pairs(self) -> str:
        """``3``, ``2/3`` while one is to come, ``3 × 2`` with two students each."""
        more, less = self.more.runs, self.less.runs
        expected = len(set(self.more.seeds) & set(self.less.seeds))
        students = {len(more[seed].keys() & less[seed].keys()) for seed in more.keys() & less.keys()} - {0}
        n = str(self.difference.n) if self.difference.n == expected else f"{self.difference.n}/{expected}"
        if students == {1}:
            return n
        return f"{n} × {min(students)}" + (f"–{max(students)}" if len(students) > 1 else "")


def findings(whole: Suite, rows: pd.DataFrame, frame: pd.DataFrame) -> list[Finding]:
    """Trends of a suite in every table that holds both of their rows with something measured."""
    found: dict[tuple[Any, ...], Finding] = {}
    known, plain_rows = accuracies(rows, frame), records(rows)
    for trend in about(whole.trends, rows["dataset"].iloc[0]):
        for more, less in _pairs(trend, plain_rows):
            key = (trend.claim, _upward(trend), more.Index, less.Index)
            if key in found:
                found[key] = found[key]._replace(trends=(*found[key].trends, trend))
            elif (difference := known.difference(more.runs, less.runs)).n:
                found[key] = Finding((trend,), more, less, difference)
    p_values = corrected([one.difference for one in found.values()])
    return [
        one._replace(difference=replace(one.difference, p=p)) for one, p in zip(found.values(), p_values, strict=True)
    ]


def about(trends: Sequence[Trend], dataset: str) -> list[Trend]:
    """Trends that a board of a data set is about: those on this data set where any is, else all."""
    own = any(trend.dataset == dataset for trend in trends)
    return [trend for trend in trends if not own or trend.dataset in (None, dataset)]


def _upward(trend: Trend) -> bool:
    """Tell whether the authors found the first of the two to do better."""
    first, second = trend.printed or (1.0, 0.0)
    return first > second


def _pairs(trend: Trend, rows: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Rows a trend is about, two by two, that differ in nothing but what the trend names.

    And in the protocol where each is its method's own.
    """
    students = (trend.student, *trend.kin)
    here = [row for row in rows if trend.ipc in (None, row.ipc) and (not trend.student or row.student in students)]
    across_ipc = trend.more.ipc is not None or trend.less.ipc is not None
    across_students = trend.more.student is not None or trend.less.student is not None

    def place(row: Any) -> tuple[Any, ...]:
        return _recipe(row), None if across_ipc else row.ipc, None if across_students else row.student

    for more, less in product(*([row for row in here if _like(one, row)] for one in (trend.more, trend.less))):
        if place(less) == place(more) and less is not more:
            yield more, less


def _recipe(row: Any) -> tuple[str, int]:
    """Protocol, or that it is official with the same changes."""
    usual = unchanged(row.protocol)
    if usual.startswith(f"{OFFICIAL}-"):
        return OFFICIAL + row.protocol.removeprefix(usual), 0
    return row.protocol, row.protocol_version


def _like(which: Which, row: Any) -> bool:
    """Tell whether a row is one of those that are meant; with the method's own labels, where none are named."""
    return (
        row.ipc is not None
        and row.base == which.method.partition("[")[0]
        and which.method in (row.via, row.method)
        and (row.labels == which.labels if which.labels else "native" in row.asked)
        and which.student in (None, row.student)
        and which.ipc in (None, row.ipc)
    )


def title(of_data: str, suite_name: str) -> str:
    """Title of a board: of its data set, behind that of its suite, if any."""
    if not suite_name:
        return of_data
    return f"{suite(suite_name).title if suite_name in names() else suite_name}: {of_data}"


def render(whole: Suite, rows: pd.DataFrame, frame: pd.DataFrame) -> str:
    """Markdown block of a suite on its board."""
    head = f"## Beside the paper\n\n{escape(whole.title)}: {escape(whole.source)}. {escape(whole.about)}"
    if not (whole.trends and len(rows)):
        return head
    found = findings(whole, rows, frame)
    measured = [trend for one in found for trend in one.trends]
    missing = [trend for trend in about(whole.trends, rows["dataset"].iloc[0]) if trend not in measured]
    if not found:
        return f"{head}\n\nNone of its trends can be seen in these rows."
    several = len({_recipe(one.more) for one in found}) > 1
    lines = pd.DataFrame([_line(one) for one in found]).drop(columns=[] if several else ["Protocol"])
    table = markdown_table(lines.to_dict("records"), LEFT)
    return "\n\n".join([head, count(found), table, *_missing(missing), NOTES])


def count(found: Sequence[Finding]) -> str:
    """Count those that go each way, in a sentence."""
    ways = Counter(one.direction for one in found)
    said = [f"{ways[way]} {words}" for way, words in ((SAME, "the same way"), (OTHER, "the other way")) if ways[way]]
    unclaimed = f"{ways[UNCLAIMED]} not claimed" if ways[UNCLAIMED] else ""
    means = sum((one.difference.mean > 0) == _upward(one.trends[0]) for one in found)
    return (
        f"Beside theirs: {', '.join(filter(None, [*said, unclaimed]))}; {means} of {len(found)} means point their way."
    )


def _missing(trends: Sequence[Trend]) -> list[str]:
    if not trends:
        return []
    shown = "; ".join(escape(trend.claim) + _where(trend, ipc=True) for trend in trends[:NAMED])
    rest = f"; and {len(trends) - NAMED} more" if len(trends) > NAMED else ""
    return [f"Not measured here: {shown}{rest}."]


def _where(trend: Trend, ipc: bool = False) -> str:
    """Name the setting in which the authors found it."""
    where = ", ".join(filter(None, (trend.dataset, trend.student)))
    return (f" ({name(where)})" if where else "") + (f" at IPC {trend.ipc}" if ipc and trend.ipc else "")


def _printed(trend: Trend) -> str:
    if trend.printed is None:
        return NONE
    return unbroken(" : ".join(f"{value:g}" for value in trend.printed)) + _where(trend)


def _line(one: Finding) -> dict[str, str]:
    delta, more, less = one.difference, one.more, one.less
    interval = "" if delta.low != delta.low else f" ({points(delta.low)} to {points(delta.high)})"
    return {
        "What they report": escape(one.trends[0].claim),
        "Printed": "; ".join(map(_printed, one.trends)),
        "Protocol": name(_recipe(more)[0]),
        "IPC": _both(str(more.ipc), str(less.ipc)),
        "Student": _both(escape(plain(more.student)), escape(plain(less.student))),
        "Measured": unbroken(f"{percent(more.top1_mean)} : {percent(less.top1_mean)}"),
        "Δ": unbroken(points(delta.mean) + interval),
        "n": unbroken(one.pairs),
        "Direction": one.direction,
    }


def _both(more: str, less: str) -> str:
    """One word where both rows agree, else both."""
    return more if more == less else f"{more} : {less}"
