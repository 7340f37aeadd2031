"""Rows → the Markdown board of one data set: who wins at which budget, then a section a protocol with a table for every
IPC and student.

A table never mixes two protocols or students. It ends with the full-data rows as reference, and rows that are missing
or failed stand in it like any other. What only some readers look for is folded away behind each table, so that no
table is wider than a page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench.report_legacy import metrics, wording
from bench.report_legacy.board import Row
from bench.report_legacy.command import command
from bench.report_legacy.entries import LeftOut, environment, unread
from bench.report_legacy.footnotes import mark, notes
from bench.report_legacy.names import Names, rank
from bench.report_legacy.pipe_table import render_table, used
from bench.report_legacy.scores import Scores
from bench.report_legacy.summary import render_summary
from bench.report_legacy.wording import NONE, code, escape

COLUMNS = {  # column -> its alignment
    "Method": "left",
    "Labels": "left",
    "n": "right",
    metrics.HEADLINE: "right",
    "95 % CI": "right",
    "Label bytes": "right",
    "Front": "right",
}
DETAILS = {
    "Method": "left",
    "Labels": "left",
    "p": "right",
    "Oracle %": "right",
    "σ sets, students": "right",
    "Images": "right",
    "Parameters": "right",
    "Label ratio": "right",
    "Seconds": "right",
    "LRS": "right",
    "ARS": "right",
}
RARE = ("σ sets, students", "Parameters", "LRS", "ARS")  # columns that are left out where no row has a value
LEFT_OUT_NAMED = 5  # of what could not be read; the others are counted
LONGEST_LEFT_OUT = 200  # characters said of one


@dataclass(frozen=True)
class _Table:
    protocol: tuple[str, int]  # name, version
    ipc: int | None
    student: str
    rows: tuple[Row, ...]  # as shown; full-data rows last


def render_markdown(
    title: str,
    rows: Sequence[Row],
    scores: Mapping[tuple[Any, ...], Scores],
    titles: Mapping[str, str] | None = None,
    baselines: Collection[str] = (),
    left_out: Sequence[LeftOut] = (),
    published: str = "",
    trends: str = "",
) -> str:
    """The board of one data set.

    Args:
        title: of the data set.
        rows: all of one data set, in any order.
        scores: :func:`~bench.report_legacy.scores.score` of them.
        titles: method name -> title; the name where there is none.
        baselines: names of methods that ride along: set in italics, left out of the commands.
        left_out: lines of the board's file that could not be read.
        published: Markdown of what papers print.
        trends: Markdown of what the authors of the board's suite report, beside what was measured.
    """
    tables = _tables(rows)
    marks = mark(row for table in tables for row in table.rows)
    names = Names(titles or {}, baselines, marks)
    blocks = [f"# {escape(title)}", _head(rows), *_left_out(rows, left_out), *filter(None, [trends])]
    blocks += render_summary(rows, names)
    for (protocol, version), group in groupby(tables, key=lambda table: table.protocol):
        section = list(group)
        blocks.append(f"## Protocol {escape(protocol)}, version {version}")
        for table in section:
            blocks += [_heading(table), *_ties(table), _main(table, names), *_details(table, names, scores)]
        again = command((row for table in section for row in table.rows), baselines)
        blocks.append(f"To reproduce:\n\n```\n{again}\n```")
    if published:
        blocks.append(published)
    blocks += ["## How to read the tables", notes(rows), *marks.footnotes()]
    return "\n\n".join(blocks) + "\n"


def _tables(rows: Sequence[Row]) -> list[_Table]:
    found: dict[tuple[str, int], dict[str, dict[int | None, list[Row]]]] = {}
    for row in sorted(rows, key=rank):
        students = found.setdefault((row.protocol, row.protocol_version), {})
        students.setdefault(row.student, {}).setdefault(row.ipc, []).append(row)
    tables = []
    for protocol, students in sorted(found.items()):
        for student, by_ipc in sorted(students.items()):
            reference = by_ipc.pop(None, [])
            for ipc in sorted(by_ipc, key=lambda ipc: ipc or 0) or [None]:
                tables.append(_Table(protocol, ipc, student, (*by_ipc.get(ipc, []), *reference)))
    return sorted(tables, key=lambda table: (table.protocol, table.ipc is None, table.ipc or 0, table.student))


def _head(rows: Sequence[Row]) -> str:
    entries = {entry.cell: entry for row in rows for entry in row.entries}
    states = [entry.state for entry in entries.values()]
    coverage = f"{states.count('done'):,} of {wording.plural(len(states), 'cell')} done"
    if others := [f"{states.count(state):,} {state}" for state in ("failed", "missing") if state in states]:
        coverage += f" ({', '.join(others)})"
    facts = [f"{escape(name)} {escape(values)}" for name, values in environment(entries.values()).items()]
    protocols = sorted({(row.protocol, row.protocol_version) for row in rows})
    parts = [
        f"Data set {', '.join(code(name) for name in sorted({row.dataset for row in rows}))}",
        "protocol " + ", ".join(f"{escape(name)} (version {version})" for name, version in protocols),
        coverage,
        *([f"computed with {'; '.join(facts)}"] if facts else []),
    ]
    return " · ".join(parts) + "."


def _left_out(rows: Sequence[Row], lines: Sequence[LeftOut]) -> list[str]:
    """What could not be read, so that nobody takes the board for complete."""
    found = [*unread(entry for row in rows for entry in row.entries), *sorted(map(str, lines))]
    if not found:
        return []
    rest = f"\n- and {len(found) - LEFT_OUT_NAMED:,} more" if len(found) > LEFT_OUT_NAMED else ""
    named = "\n".join(f"- {code(text[:LONGEST_LEFT_OUT])}" for text in found[:LEFT_OUT_NAMED])
    return [f"Left out, because {wording.plural(len(found), 'record')} can't be read:\n\n{named}{rest}"]


def _heading(table: _Table) -> str:
    scale = "Full data" if table.ipc is None else wording.plural(table.ipc, "image") + " per class"
    return f"### {scale}, student {escape(table.student)}"


def _ties(table: _Table) -> list[str]:
    """How far the table tells anything apart."""
    rows = [row for row in table.rows if row.ipc is not None and row.top1.n]
    if len(rows) < 2:
        return []
    sets = max(row.top1.n for row in rows)
    if sets == 1:
        return ["One set a row tells nothing apart: the best mean alone is bold."]
    ties = sum(row.ties for row in rows) - 1
    return [f"From {sets} sets {ties} of the {len(rows) - 1} other rows can't be told from the best (bold)."]


def _main(table: _Table, names: Names) -> str:
    head = escape(metrics.heading(metrics.metric(table.rows)))
    return render_table(metrics.headed(COLUMNS, head), [_cells(row, names, head) for row in table.rows])


def _cells(row: Row, names: Names, head: str) -> dict[str, str]:
    accuracy = wording.accuracy(row.top1) if row.top1.n else ""
    top1 = [f"**{accuracy}**" if row.ties and accuracy else accuracy, names.marks.failed(row)]
    return {
        "Method": names.method(row),
        "Labels": names.labels(row),
        "n": _count(row),
        head: " ".join(filter(None, top1)) or NONE,
        "95 % CI": NONE if row.top1.ci95 is None else f"±{wording.percent(row.top1.ci95)}",
        "Label bytes": _bytes(row),
        "Front": {None: "", True: "●", False: "○"}[row.on_front],
    }


def _bytes(row: Row) -> str:
    own = wording.joined(wording.size(row.label_bytes))
    return f"{own} {wording.joined(f'+ {wording.size(row.public_bytes)}')}" if row.public_bytes else own


def _count(row: Row) -> str:
    if row.done < len(row.entries):
        return f"{row.done}/{len(row.entries)}"  # cells
    students = sorted({len(run) for run in row.runs.values()})
    if students == [1]:
        return str(row.done)
    return wording.joined(f"{row.top1.n} × {students[0]}" + (f"–{students[-1]}" if len(students) > 1 else ""))


def _details(table: _Table, names: Names, scores: Mapping[tuple[Any, ...], Scores]) -> list[str]:
    lines = [_detail_cells(row, names, scores.get(row.key, Scores())) for row in table.rows]
    columns = used(DETAILS, RARE, lines, NONE)
    what = [name for name in columns if name not in ("Method", "Labels")]
    summary = f"<details>\n<summary>{', '.join(what)}</summary>"
    return [summary, render_table(columns, lines), "</details>"]


def _detail_cells(row: Row, names: Names, scores: Scores) -> dict[str, str]:
    return {
        "Method": names.method(row),
        "Labels": names.labels(row),
        "p": wording.p_value(row.p_best),
        "Oracle %": wording.percent(row.oracle.mean),
        "σ sets, students": _spread(row),
        "Images": wording.joined(wording.size(row.image_bytes)),
        "Parameters": NONE if row.label_parameters is None else f"{row.label_parameters:,}",
        "Label ratio": wording.ratio(row.label_ratio),
        "Seconds": wording.seconds(row.seconds_total),
        "LRS": wording.score(scores.lrs),
        "ARS": wording.score(scores.ars),
    }


def _spread(row: Row) -> str:
    if row.spread.students is None:
        return NONE
    return f"{wording.percent(row.spread.sets)}, {wording.percent(row.spread.students)}"
