"""The headline of a row: what its evaluator measures, and how that is called and explained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.report_legacy.board import Row
from bench.report_legacy.wording import escape, plain

HEADLINE = ""  # among the names of columns: that of what is measured
MEANINGS = {
    "top-1": "accuracy on the whole test set after the last epoch",
    "mean top-1": "accuracy on the test images of the classes seen, after the last epoch of each step, mean over the "
    "steps",
    "mean IoU": "intersection over union of the student's mask and the exact one, mean over the test set, after the "
    "last epoch",
}


def metric(rows: Iterable[Row]) -> str:
    """Of rows under one protocol: ``top-1``, ``mean IoU``, …"""
    return plain(next(iter(rows)).entries[0].metric)


def meaning(metric: str) -> str:
    """In words; the name alone where nothing more is known of it."""
    return MEANINGS.get(metric, metric)


def heading(metric: str) -> str:
    """Of a column: ``Top-1 %``."""
    return f"{metric[:1].upper()}{metric[1:]} %"


def notes(rows: Iterable[Row]) -> str:
    """A line of Markdown for each metric of a board."""
    found = dict.fromkeys(metric([row]) for row in rows)
    return "\n".join(
        f"- **{escape(heading(one))}**: {escape(meaning(one))}; mean ± sample standard deviation over the distilled "
        "sets (of\n  the means over their students). Student seed k means the same initial weights and the same order "
        "of views for every\n  method."
        for one in sorted(found)
    )


def headed(columns: Mapping[str, str], head: str) -> dict[str, str]:
    """The columns of a table, with ``head`` where :data:`HEADLINE` stands."""
    return {head if name == HEADLINE else name: side for name, side in columns.items()}
