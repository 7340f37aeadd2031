"""How a board names its methods, and in what order it shows rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bench.report_legacy import wording
from bench.report_legacy.board import Row
from bench.report_legacy.footnotes import Marks


@dataclass(frozen=True)
class Names:
    """``titles`` of methods by name, the names of the ``baselines``, and the ``marks`` of a board."""

    titles: Mapping[str, str]
    baselines: Collection[str]
    marks: Marks

    def method(self, row: Row) -> str:
        """Its title as Markdown: in italics if it rides along, with a mark for its settings."""
        title = wording.name(self.titles.get(row.base, row.base))
        shown = f"*{title}*" if row.base in self.baselines and row.ipc is not None else title
        return " ".join(filter(None, (shown, self.marks.settings_of(row), "(ref.)" if row.ipc is None else "")))

    def labels(self, row: Row) -> str:
        """Its labels, with a mark for the public bases they stand on."""
        bases = self.marks.bases(row)
        return wording.name(row.labels) + (f" ({bases})" if bases else "")


def rank(row: Row) -> tuple[str, float, str, str]:
    """Methods are compared under one student: best mean first, rows without one last."""
    return (row.student, 1.0 if row.top1.mean is None else -row.top1.mean, row.method, row.labels)
