"""Rows → the Markdown board of one data set: a sentence, who wins at which label budget, a table per IPC, fold-outs.

A table never mixes two protocols, students or data sets. It ends with full data as reference; rows that failed or are
missing are marked, and what only some readers look for is folded away, so that no table is wider than a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench import format as fmt
from bench.format import NONE, code, escape, markdown_table, percent, points, unbroken
from bench.report.command import command
from bench.report.figures import Figure
from bench.report.notes import METRICS, NOTES, Marks, heading
from bench.report.results import environment_facts
from bench.report.rows import records
from bench.report.winners import Winner, budget_range, budget_words, first_sentence, over_budgets, titles, winners

LEFT_OUT_NAMED = 5  # the others are counted
LONGEST_LEFT_OUT = 200  # characters
LEFT = ("Method", "Labels")
RARE = ("Δ to best", "σ sets, students", "Parameters", "LRS", "ARS")
SECTION = ["protocol", "protocol_version", "protocol_digest", "data_digest"]


def render(
    title: str,
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    trends: str = "",
    published: str = "",
    figures: Sequence[Figure] = (),
) -> str:
    """Board of one data set.

    Args:
        title: of the data set.
        frame: its records; rows: pooled from them.
        trends, published: Markdown of what papers report.
        figures: those that lie beside the board.
    """
    tables = list(_tables(rows))
    marks = Marks([row for _, table in tables for row in table])
    blocks = [f"# {escape(title)}", f"**{escape(first_sentence(rows))}**", _head(frame), _left_out(rows), trends]
    blocks += [*_summary(rows, marks), shown(figures)]
    several = rows.drop_duplicates(SECTION).duplicated(["protocol", "protocol_version"], keep=False).any()
    for key, section in rows.groupby(SECTION, sort=False, dropna=False):
        digests = f" ({'/'.join(one or 'not recorded' for one in key[2:])})" if several else ""
        blocks.append(f"## Protocol {escape(key[0])}, version {key[1]}{digests}")
        for heading_of_table, table in tables:
            if table[0].Index in section.index:
                blocks += [f"### {heading_of_table}", _main(table, marks), _details(table, marks)]
        blocks.append(f"To reproduce:\n\n```\n{command(records(section))}\n```")
    blocks += [published, "## How to read the tables", _notes(rows), *marks.footnotes(), "\n".join(marks.links())]
    return "\n\n".join(filter(None, blocks)) + "\n"


def shown(figures: Sequence[Figure]) -> str:
    """Block of the figures of label storage; the others are a click away."""
    chosen = [one for one in figures if one.name.partition("/")[2].startswith("labels-")]
    images = "\n\n".join(f"![{escape(one.alt)}]({one.name}.svg)" for one in chosen)
    rest = ", ".join(f"[{escape(one.title)}]({one.name}.svg)" for one in figures if one not in chosen)
    return "\n\n".join(filter(None, ["## Figures" if figures else "", images, rest]))


def _tables(rows: pd.DataFrame) -> Iterator[tuple[str, list[Any]]]:
    """Heading and rows of each table: best mean first, then what has none, then full data."""
    known = {row.Index: row for row in records(rows)}
    for key, group in rows.groupby([*SECTION, "student"], dropna=False, sort=False):
        full = [known[at] for at in group.index[group["ipc"].isna()]]
        ranked = group.sort_values(["top1_mean", "method", "labels"], ascending=[False, True, True], na_position="last")
        by_ipc = ranked[ranked["ipc"].notna()].groupby("ipc")
        for ipc, table in by_ipc:
            yield _heading(int(ipc), key[-1]), [*(known[at] for at in table.index), *full]
        if not len(by_ipc):
            yield _heading(None, key[-1]), full


def _heading(ipc: int | None, student: str) -> str:
    scale = "Full data" if ipc is None else f"{fmt.plural(ipc, 'image')} per class"
    return f"{scale}, student {escape(student)}"


def _head(frame: pd.DataFrame) -> str:
    counts = frame["state"].value_counts()
    coverage = f"{counts.get('done', 0):,} of {fmt.plural(len(frame), 'student')} done"
    if others := [f"{counts[state]:,} {state}" for state in ("failed", "missing") if state in counts]:
        coverage += f" ({', '.join(others)})"
    computed = "; ".join(facts_text(frame))
    datasets = ", ".join(code(name) for name in sorted(frame["dataset"].unique()))
    return " · ".join([f"Data set {datasets}", coverage, *([f"computed with {computed}"] if computed else [])]) + "."


def facts_text(frame: pd.DataFrame) -> list[str]:
    """Facts of the environments of records, as Markdown."""
    facts = environment_facts(frame["environment"])
    return [f"{escape(fact)} {escape(', '.join(values))}" for fact, values in facts.items()]


def _left_out(rows: pd.DataFrame) -> str:
    """Name what could not be read, so that nobody takes the board for complete."""
    found = sorted(rows.attrs["left_out"])
    if not found:
        return ""
    rest = f"\n- and {len(found) - LEFT_OUT_NAMED:,} more" if len(found) > LEFT_OUT_NAMED else ""
    named = "\n".join(f"- {code(text[:LONGEST_LEFT_OUT])}" for text in found[:LEFT_OUT_NAMED])
    return f"{fmt.plural(len(found), 'record')} left out:\n\n{named}{rest}"


# ------------------------------------------------------------------------------------------------------------- winners


def _summary(rows: pd.DataFrame, marks: Marks) -> list[str]:
    """Show the winners, for each protocol and student whose distilled sets have a random baseline."""
    blocks = []
    for key, own in rows.groupby([*SECTION, "student"], sort=False, dropna=False):
        found = winners(own)
        if any(one.distilled is not None for one in found):
            blocks += [f"### Protocol {escape(key[0])}, student {escape(key[-1])}", _winners(found, marks)]
            blocks += _over_budgets(own)
    head = "## Which method at which label budget"
    return [head, NOTES["winners"], *blocks] if blocks else [head, NOTES["no winners"]]


def _winners(found: Sequence[Winner], marks: Marks) -> str:
    lines = [
        {
            "IPC": str(one.ipc) if before is None or before.ipc != one.ipc else "",
            "Label budget": unbroken(budget_words(one)),
            "Best": f"{_named(one.best, marks)}: **{_accuracy(one.best)}**",
            "Best distilled set": _distilled(one, marks),
            "Random, same labels": NONE if one.random is None else _accuracy(one.random),
            "Baseline not measured": escape(titles(one.unmeasured)),
        }
        for before, one in zip([None, *found], found, strict=False)
    ]
    left = ("Label budget", "Best", "Best distilled set", "Baseline not measured")
    return markdown_table(lines, left, rare=("Baseline not measured",))


def _distilled(one: Winner, marks: Marks) -> str:
    if one.distilled is None:
        return NONE
    return "the same" if one.distilled == one.best else f"{_named(one.distilled, marks)}: {_accuracy(one.distilled)}"


def _named(row: Any, marks: Marks) -> str:
    return f"{marks.method(row)}, {marks.labels(row)}"


def _accuracy(row: Any) -> str:
    return fmt.accuracy(row.top1_mean, row.top1_std)


def _over_budgets(rows: pd.DataFrame) -> list[str]:
    span = budget_range(rows["dataset"].iloc[0])
    choices, table = over_budgets(rows) if not rows["suite"].iloc[0] else ([], pd.DataFrame())
    if not choices or span is None:
        return []
    table.columns = [fmt.plural(int(ipc), "image") for ipc in table]
    cells = table.map(percent).rename(index=escape).reset_index(names="Method")
    words = NOTES["budgets"].format(least=fmt.size(span[0]), most=fmt.size(span[1]), choices=fmt.listed(choices))
    return [words, markdown_table(cells.to_dict("records"), left=("Method",))]


# -------------------------------------------------------------------------------------------------------------- tables


def _main(table: Sequence[Any], marks: Marks) -> str:
    return markdown_table([_main_cells(row, marks, heading(table[0].metric)) for row in table], LEFT, RARE)


def _main_cells(row: Any, marks: Marks, head: str) -> dict[str, str]:
    accuracy = _accuracy(row) if row.n else ""
    return {
        "Method": marks.method(row),
        "Labels": marks.labels(row),
        "n": _count(row),
        head: " ".join(filter(None, [f"**{accuracy}**" if row.best else accuracy, marks.state(row)])) or NONE,
        "95 % interval": _interval(row.top1_low, row.top1_high),
        "Δ to best": _delta(row),
        "Label bytes": _label_bytes(row),
        "Pareto": {None: "", True: "●", False: "○"}[row.on_front],
    }


def _interval(low: float | None, high: float | None, signed: bool = False) -> str:
    if low is None or high is None:
        return NONE
    return f"{points(low)} to {points(high)}" if signed else f"{percent(low)} to {percent(high)}"


def _delta(row: Any) -> str:
    if row.delta_best is None or row.best:
        return ""
    interval = "" if row.delta_low is None else f" ({_interval(row.delta_low, row.delta_high, signed=True)})"
    return unbroken(f"{points(row.delta_best)}{interval}{' *' if row.worse else ''}")


def _label_bytes(row: Any) -> str:
    low, high = fmt.size(row.label_low), fmt.size(row.label_high)
    own = fmt.size(row.label_bytes) if low == high else f"{low} to {high}"
    return unbroken(f"{own} + {fmt.size(row.public_bytes)}" if row.public_bytes else own)


def _count(row: Any) -> str:
    if row.students < row.students_expected:
        return f"{row.students}/{row.students_expected}"
    students = sorted({len(run) for run in row.runs.values()})
    if students in ([], [1]):
        return str(row.students)
    return unbroken(f"{row.n} × {students[0]}" + (f"–{students[-1]}" if len(students) > 1 else ""))


def _details(table: Sequence[Any], marks: Marks) -> str:
    lines = [_detail_cells(row, marks) for row in table]
    shown = [name for name in lines[0] if name not in RARE or any(line[name] != NONE for line in lines)]
    summary = ", ".join(name for name in shown if name not in LEFT)
    return f"<details>\n<summary>{summary}</summary>\n\n{markdown_table(lines, LEFT, RARE)}\n\n</details>"


def _detail_cells(row: Any, marks: Marks) -> dict[str, str]:
    both = row.top1_std_students is not None
    return {
        "Method": marks.method(row),
        "Labels": marks.labels(row),
        "Oracle %": percent(row.oracle_mean),
        "σ sets, students": f"{percent(row.top1_std_sets)}, {percent(row.top1_std_students)}" if both else NONE,
        "Images": unbroken(fmt.size(row.image_bytes)),
        "Parameters": NONE if row.label_parameters is None else f"{row.label_parameters:,}",
        "Label share": fmt.ratio(row.label_share),
        "Seconds": fmt.seconds(row.seconds_total),
        "LRS": NONE if row.lrs is None else f"{row.lrs:.3f}",
        "ARS": NONE if row.ars is None else f"{row.ars:.3f}",
    }


def _notes(rows: pd.DataFrame) -> str:
    metrics = "\n".join(
        f"- **{escape(heading(one))}**: {escape(METRICS.get(one, one))}; {NOTES['mean']}"
        for one in sorted(rows["metric"].unique())
    )
    return f"{NOTES['before']}\n{metrics}\n{NOTES['after']}"
