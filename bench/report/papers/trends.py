"""Findings of the authors of a suite's experiment next to what was measured: the same direction, or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from bench.format import NONE, escape, markdown_table, name, percent, plain, points, unbroken
from bench.planning.protocols import OFFICIAL, unchanged
from bench.planning.suites import Suite, Trend, Which, names, suite
from bench.report.comparison import CLAIM_SEEDS, Estimate, corrected, is_claimed
from bench.report.rows import accuracies, records

UNCLAIMED = "not claimed"
LEFT = ("What they report", "Printed", "Protocol", "IPC", "Student", "Direction")
NOTES = f"""\
**Printed**: the two numbers of the authors, in their setting. **Measured**: the two means here. **Δ**: their difference
in points with its 95 % interval, paired by seed and test image. **n**: pairs of distilled sets, of those planned.
**Direction**: *same* or *other* where at least {CLAIM_SEEDS} pairs show a significant difference (5 %, after Holm's
correction for this table), else *{UNCLAIMED}*. Official protocols are each method's own, so what they compare differs
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
    def agrees(self) -> bool:
        """Tell whether the difference of the means is on the authors' side."""
        return (self.difference.mean > 0) == _upward(self.trends[0])

    @property
    def direction(self) -> str:
        """``same`` or ``other`` than the authors found, or ``not claimed``."""
        return ("same" if self.agrees else "other") if is_claimed(self.difference) else UNCLAIMED

    @property
    def pairs(self) -> str:
        """``3``; ``2/3`` while one is to come."""
        expected = len(set(self.more.seeds) & set(self.less.seeds))
        return f"{self.difference.n}" + (f"/{expected}" if self.difference.n < expected else "")


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
    both = zip(found.values(), p_values, strict=True)
    return [one._replace(difference=replace(one.difference, p=p)) for one, p in both]


def about(trends: Sequence[Trend], dataset: str) -> list[Trend]:
    """Trends that a board of a data set is about: those on this data set where any is, else all."""
    own = any(trend.dataset == dataset for trend in trends)
    return [trend for trend in trends if not own or trend.dataset in (None, dataset)]


def _upward(trend: Trend) -> bool:
    """Tell whether the authors found the first of the two to do better."""
    first, second = trend.printed or (1.0, 0.0)
    return first > second


def _pairs(trend: Trend, rows: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Rows a trend is about, two by two, that differ in nothing but what it names, and in official protocols."""
    students = (trend.student, *trend.kin)
    here = [row for row in rows if trend.ipc in (None, row.ipc) and (not trend.student or row.student in students)]
    same = [of for of in ("ipc", "student") if getattr(trend.more, of) is getattr(trend.less, of) is None]
    for more in here:
        for less in here:
            alike = _recipe(more) == _recipe(less) and all(getattr(more, of) == getattr(less, of) for of in same)
            if alike and less is not more and _like(trend.more, more) and _like(trend.less, less):
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
    if not (found := findings(whole, rows, frame)):
        return f"{head}\n\nNone of its trends can be seen in these rows."
    ways = Counter(one.direction for one in found)
    words = {"same": "the same way", "other": "the other way", UNCLAIMED: UNCLAIMED}
    said = f"Beside theirs: {', '.join(f'{ways[way]} {text}' for way, text in words.items() if ways[way])}; "
    said += f"{sum(one.agrees for one in found)} of {len(found)} means point their way."
    several = len({_recipe(one.more) for one in found}) > 1
    lines = pd.DataFrame(map(_line, found)).drop(columns=[] if several else ["Protocol"]).to_dict("records")
    measured = [trend for one in found for trend in one.trends]
    missing = [f"{escape(trend.claim)}{_where(trend)}{f' at IPC {trend.ipc}' if trend.ipc else ''}"
               for trend in about(whole.trends, rows["dataset"].iloc[0]) if trend not in measured]  # fmt: skip
    missing[NAMED:] = [f"and {len(missing) - NAMED} more"] * (len(missing) > NAMED)
    rest = f"Not measured here: {'; '.join(missing)}." if missing else ""
    return "\n\n".join(filter(None, [head, said, markdown_table(lines, LEFT), rest, NOTES]))


def _where(trend: Trend) -> str:
    """Name the setting in which the authors found it."""
    where = ", ".join(filter(None, (trend.dataset, trend.student)))
    return f" ({name(where)})" if where else ""


def _line(one: Finding) -> dict[str, str]:
    delta, more, less = one.difference, one.more, one.less
    interval = "" if delta.low != delta.low else f" ({points(delta.low)} to {points(delta.high)})"
    printed = [unbroken(" : ".join(f"{value:g}" for value in trend.printed)) + _where(trend) if trend.printed else NONE
               for trend in one.trends]  # fmt: skip
    return {
        "What they report": escape(one.trends[0].claim),
        "Printed": "; ".join(printed),
        "Protocol": name(_recipe(more)[0]),
        "IPC": " : ".join(dict.fromkeys((str(more.ipc), str(less.ipc)))),
        "Student": " : ".join(dict.fromkeys(escape(plain(row.student)) for row in (more, less))),
        "Measured": unbroken(f"{percent(more.top1_mean)} : {percent(less.top1_mean)}"),
        "Δ": unbroken(points(delta.mean) + interval),
        "n": one.pairs,
        "Direction": one.direction,
    }
