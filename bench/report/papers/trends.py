"""Findings of the authors of a suite's experiment next to what was measured: the same direction, or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.format import NONE, escape, markdown_table, name, percent, plain, points, unbroken
from bench.planning.protocols import OFFICIAL, unchanged
from bench.planning.suites import Suite, Trend, Which, names, suite
from bench.report.comparison import CLAIM_SEEDS, PAIR, accuracies, corrected, estimate
from bench.report.rows import records, students

WAYS = {"same": "the same way", "other": "the other way", "not claimed": "not claimed"}
LEFT = ("What they report", "Printed", "Protocol", "IPC", "Student", "Direction")
NOTES = f"""\
**Printed**: the two numbers of the authors, in their setting. **Measured**: the two means here. **Δ**: their difference
in points with its 95 % interval, paired by seed and test image. **n**: pairs of distilled sets, of those planned.
**Direction**: *same* or *other* where at least {CLAIM_SEEDS} pairs show a significant difference (5 %, after Holm's
correction for this table), else *not claimed*. Official protocols are each method's own, so what they compare differs
in more than the method."""
NAMED = 5  # of the trends that were not measured; the others are counted


def findings(whole: Suite, rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Trends of a suite in every two rows with something measured that differ in nothing but what a trend names.

    Returns:
        ``trends`` (several where the authors report the same of several data sets or students that one row here stands
        for), ``more`` and ``less`` (places in ``rows``), their difference (:func:`bench.report.comparison.estimate`)
        with ``claimed``, ``planned`` (pairs), ``agrees`` (the means differ as the authors found), ``direction``.
    """
    rows = rows.assign(
        at=rows.index, recipe=[_recipe(*one) for one in rows[["protocol", "protocol_version"]].to_numpy()]
    )
    found = pd.DataFrame([
        {"trend": trend, "claim": trend.claim, "upward": _upward(trend), "more": more, "less": less}
        for trend in about(whole.trends, rows["dataset"].iloc[0]) for more, less in _pairs(trend, rows)
    ], columns=["trend", "claim", "upward", "more", "less"])  # fmt: skip
    found = found.groupby(["claim", "upward", "more", "less"], sort=False)["trend"].agg(list).reset_index(name="trends")
    done = students(rows)
    pairs = found.rename_axis("row").reset_index().merge(done.rename(columns={"row": "more"}), on="more")
    pairs = pairs.merge(done.rename(columns={"row": "less", "cell": "other"}), on=["less", *PAIR])
    images = rows["test_images"].reindex(found["more"]).set_axis(found.index)
    found = found.join(corrected(estimate(pairs, accuracies(frame), images), pd.Series(0, found.index)))
    agrees = (found["mean"] > 0) == found["upward"]
    direction = agrees.map({True: "same", False: "other"}).where(found["claimed"], "not claimed")
    planned = [len({*rows.at[one.more, "seeds"]} & {*rows.at[one.less, "seeds"]}) for one in found.itertuples()]
    return found.assign(agrees=agrees, direction=direction, planned=planned)[found["n"] > 0]


def about(trends: Sequence[Trend], dataset: str) -> list[Trend]:
    """Trends that a board of a data set is about: those on this data set where any is, else all."""
    own = any(trend.dataset == dataset for trend in trends)
    return [trend for trend in trends if not own or trend.dataset in (None, dataset)]


def _upward(trend: Trend) -> bool:
    """Tell whether the authors found the first of the two to do better."""
    first, second = trend.printed or (1.0, 0.0)
    return first > second


def _pairs(trend: Trend, rows: pd.DataFrame) -> Any:
    """Places of two rows that differ in nothing but what a trend names, and in official protocols."""
    rows = rows[rows["ipc"].notna() & ((rows["ipc"] == trend.ipc) | (trend.ipc is None))]
    rows = rows[rows["student"].isin((trend.student, *trend.kin)) | (not trend.student)]
    same = [of for of in ("ipc", "student") if getattr(trend.more, of) is getattr(trend.less, of) is None]
    both = rows[_like(trend.more, rows)].merge(rows[_like(trend.less, rows)], on=["recipe", *same])
    return both.loc[both["at_x"] != both["at_y"], ["at_x", "at_y"]].to_numpy().tolist()


def _recipe(protocol: str, version: int) -> str:
    """Protocol, or that it is official with the same changes."""
    usual = unchanged(protocol)
    official = usual.startswith(f"{OFFICIAL}-")
    return OFFICIAL + protocol.removeprefix(usual) if official else f"{protocol}\0{version}"


def _like(which: Which, rows: pd.DataFrame) -> pd.Series:
    """Tell which rows are meant; with the method's own labels, where none are named."""
    labels = rows["labels"] == which.labels if which.labels else rows["asked"].map(lambda own: "native" in own)
    found = (rows["base"] == which.method.partition("[")[0]) & rows[["via", "method"]].eq(which.method).any(axis=1)
    for of in ("student", "ipc"):
        found &= (rows[of] == getattr(which, of)) | (getattr(which, of) is None)
    return found & labels.astype(bool)


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
    if found.empty:
        return f"{head}\n\nNone of its trends can be seen in these rows."
    ways = found["direction"].value_counts()
    said = f"Beside theirs: {', '.join(f'{ways[way]} {text}' for way, text in WAYS.items() if way in ways)}; "
    said += f"{found['agrees'].sum()} of {len(found)} means point their way."
    known = {row.Index: row for row in records(rows)}
    lines = [_line(one, known[one.more], known[one.less]) for one in records(found)]
    rare = ["Protocol"] if len({line["Protocol"] for line in lines}) == 1 else []
    lines = [{head: text for head, text in line.items() if head not in rare} for line in lines]
    measured = found["trends"].explode().tolist()
    missing = [f"{escape(trend.claim)}{_where(trend)}{f' at IPC {trend.ipc}' if trend.ipc else ''}"
               for trend in about(whole.trends, rows["dataset"].iloc[0]) if trend not in measured]  # fmt: skip
    missing[NAMED:] = [f"and {len(missing) - NAMED} more"] * (len(missing) > NAMED)
    rest = f"Not measured here: {'; '.join(missing)}." if missing else ""
    return "\n\n".join(filter(None, [head, said, markdown_table(lines, LEFT), rest, NOTES]))


def _where(trend: Trend) -> str:
    """Name the setting in which the authors found it."""
    where = ", ".join(filter(None, (trend.dataset, trend.student)))
    return f" ({name(where)})" if where else ""


def _line(one: Any, more: Any, less: Any) -> dict[str, str]:
    interval = "" if one.low is None else f" ({points(one.low)} to {points(one.high)})"
    printed = [unbroken(" : ".join(f"{value:g}" for value in trend.printed)) + _where(trend) if trend.printed else NONE
               for trend in one.trends]  # fmt: skip
    return {
        "What they report": escape(one.trends[0].claim),
        "Printed": "; ".join(printed),
        "Protocol": name(_recipe(more.protocol, more.protocol_version).partition("\0")[0]),
        "IPC": " : ".join(dict.fromkeys((str(more.ipc), str(less.ipc)))),
        "Student": " : ".join(dict.fromkeys(escape(plain(row.student)) for row in (more, less))),
        "Measured": unbroken(f"{percent(more.top1_mean)} : {percent(less.top1_mean)}"),
        "Δ": points(one.mean) + interval,
        "n": f"{one.n}" + (f"/{one.planned}" if one.n < one.planned else ""),
        "Direction": one.direction,
    }
