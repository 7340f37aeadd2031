"""Rows → one HTML file a data set: who wins, figures, a table that sorts and filters, pictures, and where every number
came from.

The page is whole without a network and readable without JavaScript. A policy in its head lets nothing run but its own
script and loads nothing from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench.report_legacy import page_template, wording
from bench.report_legacy.board import Row
from bench.report_legacy.entries import Entry, LeftOut, unread
from bench.report_legacy.footnotes import notes
from bench.report_legacy.names import rank
from bench.report_legacy.page_template import Scale, figure, from_markdown, method_name
from bench.report_legacy.pictures import Pictures, Sheet
from bench.report_legacy.scores import Scores
from bench.report_legacy.winners import ALL, Winner, hypervolumes, winners
from bench.store.cell import canonical


@dataclass(frozen=True)
class Group:
    """The rows that are compared with each other: of one protocol, IPC and student, best mean first. Their intervals
    are drawn on one scale."""

    ipc: int | None
    student: str
    rows: tuple[Row, ...]
    scale: Scale


@dataclass(frozen=True)
class Section:
    """All rows under one protocol."""

    protocol: str
    version: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Summary:
    """Who wins under one protocol, with one student; ``budget`` and ``volumes`` as in
    :func:`~bench.report_legacy.winners.hypervolumes`, the methods best first."""

    protocol: str
    version: int
    student: str
    winners: list[Winner]
    budget: int
    volumes: list[tuple[str, dict[int, float]]]


def render_page(
    title: str,
    rows: Sequence[Row],
    titles: Mapping[str, str] | None = None,
    baselines: Collection[str] = (),
    *,
    commands: Callable[[Row], str],
    scores: Mapping[tuple[Any, ...], Scores] | None = None,
    plots: Mapping[str, str] | None = None,
    pictures: Pictures | None = None,
    published: str = "",
    trends: str = "",
    left_out: Sequence[LeftOut] = (),
) -> str:
    """The page of one data set: the same bytes for the same arguments, whatever the order of the rows.

    Args:
        title: of the data set.
        rows: all of one data set, at least one.
        titles: method name -> title; the name where there is none.
        baselines: names of methods that ride along: set in italics.
        commands: row -> the command that makes it again.
        scores: of rows, by :attr:`Row.key`.
        plots: name -> SVG, shown in this order, the first of them unfolded.
        pictures: sheets of distilled images; None: there is no such section.
        trends: Markdown of what the authors of the board's suite report, with its heading; empty: it has no suite.
        published: Markdown of what others have published, with its heading; empty: there is no such section.
        left_out: lines of the board's file that could not be read.
    """
    titles, scores = titles or {}, scores or {}
    ordered = sorted(rows, key=_place)
    entries = {entry.cell: entry for row in ordered for entry in row.entries}
    numbers, environments = _environments(entries)
    common, differing = _facts(environments)
    states = [entry.state for entry in entries.values()]
    return page_template.template().render(
        title=title,
        dataset=ordered[0].dataset,
        rows=ordered,
        titles=titles,
        baselines=baselines,
        command=commands,
        sections=_sections(ordered),
        summaries=_summaries(ordered, baselines),
        methods=dict(sorted({row.method: method_name(row, titles) for row in ordered}.items())),
        labels=sorted({row.labels for row in ordered}),
        ipcs=sorted({row.ipc for row in ordered}, key=lambda ipc: (ipc is None, ipc or 0)),
        students=sorted({row.student for row in ordered}),
        states={state: states.count(state) for state in ("done", "failed", "missing")},
        unread=[*unread(entries.values()), *sorted(map(str, left_out))],
        environments=environments,
        numbers=numbers,
        common=common,
        differing=differing,
        scores=scores,
        unscored=Scores(),
        scored=[name for name in ("lrs", "ars") if any(getattr(one, name) is not None for one in scores.values())],
        plots=[figure(name, svg) for name, svg in (plots or {}).items()],
        pictures=pictures,
        sheets=_sheets(pictures, baselines),
        published=from_markdown(published),
        trends=from_markdown(trends),
        notes=from_markdown(notes(ordered)),
        style=page_template.style(),
        script=page_template.script(),
        policy=page_template.policy(),
    )


def _place(row: Row) -> tuple[Any, ...]:
    return (row.protocol, row.protocol_version, row.ipc is None, row.ipc or 0, *rank(row))


def _sections(rows: Sequence[Row]) -> list[Section]:
    found = []
    for (protocol, version), own in groupby(rows, key=lambda row: (row.protocol, row.protocol_version)):
        tables = [tuple(same) for _, same in groupby(own, key=lambda row: row.table)]
        groups = [Group(table[0].ipc, table[0].student, table, page_template.scale_of(table)) for table in tables]
        found.append(Section(protocol, version, tuple(groups)))
    return found


def _summaries(rows: Sequence[Row], baselines: Collection[str]) -> list[Summary]:
    def place(row: Row) -> tuple[str, int, str]:
        return (row.protocol, row.protocol_version, row.student)

    found = []
    for (protocol, version, student), group in groupby(sorted(rows, key=place), key=place):
        own = list(group)
        if first := winners(own, baselines):
            budget, volumes = hypervolumes(own)
            sizes = sorted(volumes[ALL], reverse=True)
            by_method = sorted(volumes.items(), key=lambda item: ([-item[1].get(ipc, 0.0) for ipc in sizes], item[0]))
            found.append(Summary(protocol, version, student, first, budget, by_method))
    return found


def _environments(entries: Mapping[str, Entry]) -> tuple[dict[str, int], list[dict[str, str]]]:
    """Cell → the number of its environment, from 1 on, and the environments."""
    numbers: dict[str, int] = {}
    found: dict[str, tuple[int, dict[str, str]]] = {}
    for cell in sorted(entries):
        if environment := entries[cell].environment:
            numbers[cell], _ = found.setdefault(canonical(environment), (len(found) + 1, environment))
    return numbers, [environment for _, environment in found.values()]


def _facts(environments: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], list[str]]:
    """What all environments agree in, and the names of what they don't."""
    names = sorted({name for one in environments for name in one})
    values = {name: {one.get(name, wording.NONE) for one in environments} for name in names}
    common = {name: next(iter(found)) for name, found in values.items() if len(found) == 1}
    return common, [name for name in names if name not in common]


def _sheets(pictures: Pictures | None, baselines: Collection[str]) -> list[Sheet]:
    """Those of baselines last."""
    found = pictures.sheets if pictures is not None else ()
    return sorted(found, key=lambda sheet: all(method in baselines for method in sheet.methods))
