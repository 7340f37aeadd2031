"""Rows → the Markdown board of one data set: a sentence, who wins at which label budget, a table per IPC, fold-outs.

A table never mixes two protocols, students or data sets. It ends with full data as reference; rows that failed or are
missing are marked, and what only some readers look for is folded away, so that no table is wider than a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench import format as fmt
from bench.format import NONE, code, escape, markdown_table, unbroken
from bench.report.columns import COLUMNS, LEFT, RARE, Marks, about, heading
from bench.report.command import command
from bench.report.figures import Figure
from bench.report.rows import UNKNOWN, environment_facts, records
from bench.report.winners import Winner, first_sentence, winners

LEFT_OUT_NAMED = 5  # the others are counted
LONGEST_LEFT_OUT = 200  # characters
WINNERS = """\
Per IPC and label budget the best mean among rows whose labels take no more than the budget. Only label choices are \
compared for which random real images were measured as well, because accuracy under soft labels is owed to the labels, \
too; rows above the best one without that baseline are named, not ranked."""
RARE_WINNER = "Baseline not measured"
NO_WINNERS = """\
Baseline not measured: random real images were measured under the labels of no method here, so none is named."""


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
        figures: those of the board.
    """
    rows = rows.assign(section=sections(rows))
    listed = list(tables(rows))
    marks = Marks(row for _, _, table in listed for row in table)
    blocks = [f"# {escape(title)}", f"**{escape(first_sentence(rows))}**", _head(frame), _left_out(rows), trends]
    blocks += [*_summary(rows, marks), _shown(figures)]
    for section, own in rows.groupby("section", sort=False):
        blocks.append(f"## Protocol {escape(section)}")
        for _, head, table in (one for one in listed if one[0] == section):
            blocks += [f"### {head}", _table(table, marks, False), _table(table, marks, True)]
        blocks.append(f"To reproduce:\n\n```\n{command(records(own))}\n```")
    anchors = {"Labels": '<a id="labels"></a>'}
    legend = [f"- {anchors.get(head, '')}**{escape(head)}**: {text}."
              for head, text in about(sorted(rows["metric"].unique())).items()]  # fmt: skip
    blocks += [published, "## How to read the tables", "\n".join(legend), *marks.blocks()]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _shown(figures: Sequence[Figure]) -> str:
    """Block of the figures of label storage; the others are a click away."""
    chosen = [one for one in figures if one.name.partition("/")[2].startswith("labels-")]
    images = "\n\n".join(f"![{escape(one.alt)}]({one.name}.svg)" for one in chosen)
    rest = ", ".join(f"[{escape(one.title)}]({one.name}.svg)" for one in figures if one not in chosen)
    return "\n\n".join(filter(None, ["## Figures" if figures else "", images, rest]))


def sections(rows: pd.DataFrame) -> pd.Series:
    """Name the protocol of each row; with digests of protocol and data where others share its name and version."""
    names = rows["protocol"] + ", version " + rows["protocol_version"].astype(str)
    digests = pd.DataFrame({what: rows[f"{what}_digest"].replace("", UNKNOWN) for what in ("protocol", "data")})
    said = digests.where(digests.groupby(names).transform("nunique") > 1)
    facts = [", ".join(f"{what} {one}" for what, one in own.items() if one == one) for own in said.to_dict("records")]
    return names + pd.Series([f" ({one})" if one else "" for one in facts], rows.index, dtype="str")


def tables(rows: pd.DataFrame) -> Iterator[tuple[str, str, list[Any]]]:
    """Section, heading and rows of each table: best mean first, then what has none, then full data."""
    known = {row.Index: row for row in records(rows)}
    ranked = rows.sort_values(["top1_mean", "method", "labels"], ascending=[False, True, True], kind="stable")
    for (section, student), group in rows.groupby(["section", "student"], sort=False):
        full = [known[at] for at in group.index[group["ipc"].isna()]]
        own = ranked.loc[ranked.index.isin(group.index) & ranked["ipc"].notna()]
        found = [(f"{fmt.plural(int(ipc), 'image')} per class", table.index) for ipc, table in own.groupby("ipc")]
        for scale, places in found or [("Full data", own.index)]:
            yield section, f"{scale}, student {escape(student)}", [*(known[at] for at in places), *full]


def _head(frame: pd.DataFrame) -> str:
    counts = frame["state"].value_counts()
    others = [f"{counts[state]:,} {state}" for state in ("failed", "missing") if state in counts]
    coverage = f"{counts.get('done', 0):,} of {fmt.plural(len(frame), 'student')} done"
    coverage += f" ({', '.join(others)})" if others else ""
    facts = "; ".join(facts_text(frame))
    datasets = ", ".join(code(name) for name in sorted(frame["dataset"].unique()))
    return f"Data set {datasets} · {coverage}{' · computed with ' if facts else ''}{facts}."


def facts_text(frame: pd.DataFrame) -> list[str]:
    """Facts of the environments of records, as Markdown."""
    facts = environment_facts(frame["environment"])
    return [f"{escape(fact)} {escape(', '.join(values))}" for fact, values in facts.items()]


def _left_out(rows: pd.DataFrame) -> str:
    """Name what could not be read, so that nobody takes the board for complete."""
    found = sorted(rows.attrs["left_out"])
    lines = [f"- {code(text[:LONGEST_LEFT_OUT])}" for text in found[:LEFT_OUT_NAMED]]
    lines += [f"- and {len(found) - LEFT_OUT_NAMED:,} more"] * (len(found) > LEFT_OUT_NAMED)
    return f"{fmt.plural(len(found), 'record')} left out:\n\n" + "\n".join(lines) if found else ""


def _summary(rows: pd.DataFrame, marks: Marks) -> list[str]:
    """Show the winners, for each protocol and student whose distilled sets have a random baseline."""
    blocks = []
    for (section, student), own in rows.groupby(["section", "student"], sort=False):
        found = winners(own)
        if any(one.distilled is not None for one in found):
            blocks += [f"### Protocol {escape(section)}, student {escape(student)}", _winners(found, marks)]
    return ["## Which method at which label budget", *([WINNERS, *blocks] if blocks else [NO_WINNERS])]


def _winners(found: Sequence[Winner], marks: Marks) -> str:
    def named(row: Any, mark: str = "") -> str:
        return f"{marks.method(row)}, {marks.labels(row)}: {mark}{fmt.accuracy(row.top1_mean, row.top1_std)}{mark}"

    lines = [
        {
            "IPC": str(one.ipc),
            "Label budget": unbroken(one.budget),
            "Best": named(one.best, "**"),
            "Best distilled set": NONE if one.distilled is None else
            "the same" if one.distilled == one.best else named(one.distilled),
            "Random, same labels": fmt.accuracy(one.random.top1_mean, one.random.top1_std) if one.random else NONE,
            RARE_WINNER: escape("; ".join(one.unmeasured[:2]))
            + (f"; and {len(one.unmeasured) - 2} more" if len(one.unmeasured) > 2 else ""),
        }
        for one in found
    ]  # fmt: skip
    return markdown_table(lines, ("Label budget", "Best", "Best distilled set", RARE_WINNER), rare=(RARE_WINNER,))


def _table(table: Sequence[Any], marks: Marks, folded: bool) -> str:
    used = {head or heading(table[0].metric): column for head, column in COLUMNS.items()
            if head in LEFT or column.folded == folded}  # fmt: skip
    made = markdown_table(
        [{head: column.text(row, marks) for head, column in used.items()} for row in table], LEFT, RARE
    )
    if not folded:
        return made
    heads = [head for head in map(str.strip, made.partition("\n")[0].strip("|").split("|")) if head not in LEFT]
    return f"<details>\n<summary>{', '.join(heads)}</summary>\n\n{made}\n\n</details>"
