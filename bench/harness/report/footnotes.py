"""The marks in a board's tables and what they stand for: failures get numbers, public bases get letters.

Both are given in the order in which a reader meets them, so they depend on nothing but the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.harness.record import PublicFacts
from bench.harness.report import wording
from bench.harness.report.board import Row
from bench.harness.report.wording import code, escape

CELLS_NAMED = 5  # by one footnote; the others are in the records

NOTES = f"""\
- **Method**: settings in square brackets differ from the method's own. Methods in italics are baselines.
- **Labels**: the model that labels every view online (teacher, projector, ensemble); *stored*: its logits for every
  view; *static*: one answer an image; *hard*: none. *of*: who answered, where it is not the teacher.
- **n**: seeds that are done, of those that should be. {wording.NONE}: nothing measured.
- **Top-1 %**: accuracy on the whole test set after the last epoch, mean ± sample standard deviation over the
  seeds. The best mean of a student is bold.
- **95 % CI**: half the width of Student's t-interval of that mean.
- **Oracle %**: mean accuracy at the best epoch *on the test set*. It is no result: it shows how much choosing
  the epoch on the test set would have gained.
- **Images**: the encoded images. **Label bytes**: everything beyond images and hard labels that a student
  needs (stored tensors with their headers, or the weights of the label model). **Public**: frozen public
  bases, counted apart. All measured on the files, means over the seeds; 1 KiB is 1,024 bytes.
- **Label ratio**: label bytes / (epochs · images · classes · 2), the share of what fp16 labels of every view
  would weigh under the same protocol.
- **Seconds**: wall time of all cells behind a student (teacher, images, labels, training), mean over the
  seeds. Rows that share a cell each count it in full."""


@dataclass(frozen=True)
class Marks:
    """What the marks of a board stand for."""

    failures: dict[str, int]  # reason -> number
    cells: dict[str, list[str]]  # reason -> failed cells
    public: dict[PublicFacts, str]  # base -> letter

    def failed(self, row: Row) -> str:
        """``fail¹`` for every reason why cells of a row failed; empty where none did."""
        numbers = sorted({self.failures[reason] for reason, _ in _failures(row)})
        return " ".join(f"fail{wording.superscript(number)}" for number in numbers)

    def bases(self, row: Row) -> str:
        """``a,b`` for the public bases of a row."""
        letters = [self.public[base] for base in row.public]
        return ",".join(sorted(letters, key=lambda mark: (len(mark), mark)))

    def footnotes(self) -> list[str]:
        """The Markdown blocks that say what the marks stand for."""
        blocks = []
        if self.public:
            bases = [
                f"- ({mark}) {code(base.name)}, sha256 {code(base.sha256[:16])}, {base.bytes:,} bytes"
                for base, mark in self.public.items()
            ]
            blocks += ["## Public bases", "\n".join(bases)]
        if self.failures:
            reasons = [
                f"- {wording.superscript(number)} {escape(reason)}: {_name(self.cells[reason])}"
                for reason, number in self.failures.items()
            ]
            blocks += ["## Failed cells", "\n".join(reasons)]
        return blocks


def mark(rows: Iterable[Row]) -> Marks:
    """The marks of a board whose tables show ``rows`` in this order; a row may come several times."""
    marks = Marks({}, {}, {})
    seen = set()
    for row in rows:
        for base in row.public:
            marks.public.setdefault(base, wording.letter(len(marks.public)))
        for reason, cell in _failures(row):
            marks.failures.setdefault(reason, len(marks.failures) + 1)
            if (reason, cell) not in seen:
                seen.add((reason, cell))
                marks.cells.setdefault(reason, []).append(cell)
    return marks


def _failures(row: Row) -> list[tuple[str, str]]:
    return [
        (wording.plain(entry.reason or "") or "no reason was given", entry.cell)
        for entry in row.entries
        if entry.state == "failed"
    ]


def _name(cells: list[str]) -> str:
    rest = f" and {len(cells) - CELLS_NAMED:,} more" if len(cells) > CELLS_NAMED else ""
    return ", ".join(code(cell) for cell in cells[:CELLS_NAMED]) + rest
