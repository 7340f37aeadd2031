"""Rows → the Markdown board of one data set: a section a protocol, in it a table for every IPC.

A table never mixes two protocols. It ends with the full-data rows as reference, and rows that are missing or
failed stand in it like any other.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from tabulate import tabulate

from bench.harness.report import wording
from bench.harness.report.board import Row
from bench.harness.report.footnotes import NOTES, Marks, mark
from bench.harness.report.wording import JOINED, NONE, code, escape

COLUMNS = {  # column -> its alignment
    "Method": "left",
    "Student": "left",
    "Labels": "left",
    "n": "right",
    "Top-1 %": "right",
    "95 % CI": "right",
    "Oracle %": "right",
    "Images": "right",
    "Label bytes": "right",
    "Public": "right",
    "Label ratio": "right",
    "Seconds": "right",
}


@dataclass(frozen=True)
class _Table:
    protocol: tuple[str, int]  # name, version
    ipc: int | None
    rows: tuple[Row, ...]  # as shown; full-data rows last


@dataclass(frozen=True)
class _Names:
    titles: Mapping[str, str]
    baselines: Collection[str]

    def show(self, row: Row) -> str:
        base, bracket, settings = row.method.partition("[")  # "hello[rank=4]": the title of hello
        name = escape(self.titles.get(base, base) + bracket + settings)
        if row.ipc is None:
            return f"{name} (ref.)"
        return f"*{name}*" if base in self.baselines else name


def render_markdown(
    title: str, rows: Sequence[Row], titles: Mapping[str, str] | None = None, baselines: Collection[str] = ()
) -> str:
    """The board of one data set.

    Args:
        title: of the data set.
        rows: all of one data set, in any order.
        titles: method name -> title; the name where there is none.
        baselines: names of methods that ride along: set in italics, left out of the commands.
    """
    names = _Names(titles or {}, baselines)
    tables = _tables(rows)
    marks = mark(row for table in tables for row in table.rows)
    blocks = [f"# {escape(title)}", _head(rows)]
    for (protocol, version), group in groupby(tables, key=lambda table: table.protocol):
        section = list(group)
        blocks.append(f"## Protocol {escape(protocol)}, version {version}")
        for table in section:
            blocks += [_heading(table), _render(table, marks, names)]
        blocks.append(f"To reproduce:\n\n```\n{_command(section, names)}\n```")
    blocks += ["## How to read the tables", NOTES, *marks.footnotes()]
    return "\n\n".join(blocks) + "\n"


def _tables(rows: Sequence[Row]) -> list[_Table]:
    found: dict[tuple[str, int], dict[int | None, list[Row]]] = {}
    for row in sorted(rows, key=_rank):
        found.setdefault((row.protocol, row.protocol_version), {}).setdefault(row.ipc, []).append(row)
    tables = []
    for protocol, by_ipc in sorted(found.items()):
        reference = by_ipc.pop(None, [])
        for ipc in sorted(by_ipc, key=lambda ipc: ipc or 0) or [None]:
            tables.append(_Table(protocol, ipc, (*by_ipc.get(ipc, []), *reference)))
    return tables


def _rank(row: Row) -> tuple[str, float, str, str]:
    """Methods are compared under one student: best mean first, rows without one last."""
    return (row.student, 1.0 if row.top1.mean is None else -row.top1.mean, row.method, row.labels)


def _head(rows: Sequence[Row]) -> str:
    entries = {entry.cell: entry for row in rows for entry in row.entries}
    states = [entry.state for entry in entries.values()]
    coverage = f"{states.count('done'):,} of {wording.plural(len(states), 'cell')} done"
    if others := [f"{states.count(state):,} {state}" for state in ("failed", "missing") if state in states]:
        coverage += f" ({', '.join(others)})"
    facts: dict[str, set[str]] = {}
    for entry in entries.values():
        for key, value in entry.environment.items():
            facts.setdefault(key, set()).add(value)
    environment = [f"{escape(key)} {escape(', '.join(sorted(facts[key])))}" for key in sorted(facts)]
    protocols = sorted({(row.protocol, row.protocol_version) for row in rows})
    parts = [
        f"Data set {', '.join(code(name) for name in sorted({row.dataset for row in rows}))}",
        "protocol " + ", ".join(f"{escape(name)} (version {version})" for name, version in protocols),
        coverage,
        *([f"computed with {'; '.join(environment)}"] if environment else []),
    ]
    return " · ".join(parts) + "."


def _students(rows: Iterable[Row]) -> list[str]:
    return sorted({row.student for row in rows})


def _heading(table: _Table) -> str:
    scale = "Full data" if table.ipc is None else wording.plural(table.ipc, "image") + " per class"
    students = _students(table.rows)
    return f"### {scale}" + (f", student {escape(students[0])}" if len(students) == 1 else "")


def _render(table: _Table, marks: Marks, names: _Names) -> str:
    best: dict[str, float] = {}
    for row in table.rows:
        if row.ipc is not None and row.top1.mean is not None:
            best[row.student] = max(row.top1.mean, best.get(row.student, 0.0))
    columns = [name for name in COLUMNS if name != "Student" or len(_students(table.rows)) > 1]
    cells = [_cells(row, best.get(row.student), marks, names) for row in table.rows]
    text: str = tabulate(
        [[row[name] for name in columns] for row in cells],
        headers=columns,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=[COLUMNS[name] for name in columns],
    )
    return text


def _cells(row: Row, best: float | None, marks: Marks, names: _Names) -> dict[str, str]:
    bases = marks.bases(row)
    return {
        "Method": names.show(row),
        "Student": escape(row.student),
        "Labels": escape(row.labels),
        "n": str(row.expected) if row.top1.n == row.expected else f"{row.top1.n}/{row.expected}",
        "Top-1 %": " ".join(part for part in (_accuracy(row, best), marks.failed(row)) if part) or NONE,
        "95 % CI": NONE if row.top1.ci95 is None else f"±{wording.percent(row.top1.ci95)}",
        "Oracle %": wording.percent(row.oracle.mean),
        "Images": wording.size(row.image_bytes),
        "Label bytes": wording.size(row.label_bytes),
        "Public": wording.size(row.public_bytes) + (f" ({bases})" if bases else ""),
        "Label ratio": wording.ratio(row.label_ratio),
        "Seconds": wording.seconds(row.seconds_total),
    }


def _accuracy(row: Row, best: float | None) -> str:
    if row.top1.mean is None:
        return ""
    text = wording.percent(row.top1.mean)
    if row.top1.std is not None:
        text += f" ±{JOINED}{wording.percent(row.top1.std)}"
    return f"**{text}**" if row.ipc is not None and row.top1.mean == best else text


def _command(section: Sequence[_Table], names: _Names) -> str:
    """What makes the cells of a section; baselines ride along by themselves."""
    rows = [row for table in section for row in table.rows]
    methods = sorted({row.method.partition("[")[0] for row in rows if row.ipc is not None})
    asked = {entry.asked for row in rows for entry in row.entries if entry.asked}
    wanted = {
        "--methods": [method for method in methods if method not in names.baselines] or methods,
        "--ipc": [str(ipc) for ipc in sorted({row.ipc for row in rows if row.ipc is not None})],
        "--dataset": sorted({row.dataset for row in rows}),
        "--students": _students(rows),
        "--seeds": [str(seed) for seed in sorted({entry.seed for row in rows for entry in row.entries})],
        "--protocol": [section[0].protocol[0]],
        "--labels": [] if asked <= {"native"} else sorted(asked),
    }
    options = [f"{flag} {shlex.quote(wording.plain(','.join(values)))}" for flag, values in wanted.items() if values]
    lines = [" ".join(group) for group in (options[:3], options[3:6], options[6:]) if group]
    return "python -m bench run " + " \\\n    ".join(lines)
