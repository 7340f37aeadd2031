"""The first tables of a board: who wins at which label budget, and how good each method is over all budgets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bench.report_legacy import metrics, wording
from bench.report_legacy.board import Row
from bench.report_legacy.names import Names
from bench.report_legacy.pipe_table import render_table
from bench.report_legacy.winners import ALL, Winner, hypervolumes, winners
from bench.report_legacy.wording import NONE

WINNERS = {
    "IPC": "right",
    "Label budget": "left",
    "Best": "left",
    metrics.HEADLINE: "right",
    "Tied": "right",
    "Best distilled": "left",
}
WORDS = """\
The best mean among the rows whose labels weigh no more than the budget. **Tied**: how many of the others within it \
can't be told from the best; nothing can of one set. **Best distilled**: the best that is no baseline."""
VOLUME_WORDS = """\
Over all label budgets: the mean of the best {metric} that a budget affords, from one byte to {budget}, each doubling \
of the budget counting the same."""


def render_summary(rows: Sequence[Row], names: Names) -> list[str]:
    """Markdown blocks: for each protocol and student a table of winners and one of hypervolumes; none where nothing
    was measured."""
    blocks: list[str] = []
    for (protocol, version, student), group in groupby(sorted(rows, key=_place), key=_place):
        own = list(group)
        if found := winners(own, names.baselines):
            blocks.append(
                f"### Protocol {wording.escape(protocol)}, version {version}, student {wording.escape(student)}"
            )
            blocks += [_winners(found, names), *_volumes(own, names)]
    return ["## Who wins at which label budget", WORDS, *blocks] if blocks else []


def _place(row: Row) -> tuple[str, int, str]:
    return (row.protocol, row.protocol_version, row.student)


def _winners(found: Sequence[Winner], names: Names) -> str:
    lines, head = [], wording.escape(metrics.heading(metrics.metric(one.row for one in found)))
    for index, one in enumerate(found):
        first = index == 0 or found[index - 1].ipc != one.ipc
        best, distilled = one.row, one.distilled
        lines.append(
            {
                "IPC": str(one.ipc) if first else "",
                "Label budget": _budget(one),
                "Best": f"{names.method(best)}, {names.labels(best)}",
                head: f"**{wording.accuracy(best.top1)}**",
                "Tied": wording.joined(f"{one.ties} of {one.others}") if one.others and one.told else NONE,
                "Best distilled": _distilled(best, distilled, names),
            }
        )
    return render_table(metrics.headed(WINNERS, head), lines)


def _distilled(best: Row, distilled: Row | None, names: Names) -> str:
    if distilled is None:
        return NONE
    if distilled is best:
        return "the same"
    return f"{names.method(distilled)}, {names.labels(distilled)}: {wording.accuracy(distilled.top1)}"


def _budget(one: Winner) -> str:
    least = wording.round_size(one.least)
    if one.most is None:
        return wording.joined(f"{least} or more")
    return wording.joined(least if one.most == one.least else f"{least} to {wording.round_size(one.most)}")


def _volumes(rows: Sequence[Row], names: Names) -> list[str]:
    budget, volumes = hypervolumes(rows)
    ipcs = sorted(volumes[ALL])
    shown = {row.method: names.method(row) for row in rows}
    lines = []
    for method in sorted(volumes, key=lambda name: ([-volumes[name].get(ipc, 0.0) for ipc in reversed(ipcs)], name)):
        line = {"Method": "All together" if method == ALL else shown[method]}
        for ipc in ipcs:
            line[wording.plural(ipc, "image")] = wording.percent(volumes[method].get(ipc))
        lines.append(line)
    columns = {"Method": "left"} | {wording.plural(ipc, "image"): "right" for ipc in ipcs}
    words = VOLUME_WORDS.format(metric=f"{wording.escape(metrics.metric(rows))} %", budget=wording.round_size(budget))
    return [words, render_table(columns, lines)]
