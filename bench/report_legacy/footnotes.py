"""The marks in a board's tables and what they stand for: failures get numbers, public bases get letters, settings get
capitals.

All are given in the order in which a reader meets them, so they depend on nothing but the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.report_legacy import metrics, wording
from bench.report_legacy.board import Row
from bench.report_legacy.wording import code, escape
from bench.store.record import BackboneFacts

CELLS_NAMED = 5  # by one footnote; the others are in the records

BEFORE = f"""\
- **Method**: *baselines* in italics. A letter in square brackets: settings that differ from the method's own.
- **Labels**: the model that labels every view online (teacher, projector, ensemble); *stored*: its logits for every
  view; *static*: one answer an image; *hard*: none. *of*: who answered, where it is not the teacher. A letter in
  round brackets: the public base that the labels stand on.
- **n**: distilled sets that are done, of those that should be, each with a student of its own seed; *3 × 2*: with two
  students each. {wording.NONE}: nothing measured."""
AFTER = """\
- **95 % CI**: half the width of Student's t-interval of that mean, from the sets alone.
- **Bold**: the best mean of its table (one protocol, one IPC, one student; references left out) and what can't be told
  from it: Student's paired t-test, students paired by seed within a set and sets by theirs, corrected after Holm for
  all tests of that table, at 5 %. Of one set only an equal mean is bold. Few seeds can tell little apart: a bold row is
  not shown to be as good as the best. *p* is the corrected value.
- **Label bytes**: everything beyond images and hard labels that a student needs (stored tensors with their headers,
  or the weights of the label model); after a plus sign frozen public bases, counted apart. **Images**: the encoded
  images. All measured on the files, means over the cells; 1 KiB is 1,024 bytes.
- **Parameters**: the numbers of the model that labels every view, those of public bases left out.
- **Front**: ● no other row of the table has at least this mean for fewer label bytes, or a higher one for as many;
  ○ another has. Spread is not considered.
- **Oracle %**: the same at the best epoch *on the test set*. It is no result: it shows how much choosing
  the epoch on the test set would have gained.
- **σ sets, students**: standard deviation from distilled set to distilled set, and from student to student of
  one set (analysis of variance, random effects).
- **Label ratio**: label bytes / (epochs · images · classes · 2), the share of what fp16 labels of every view
  would weigh under the same protocol.
- **Seconds**: wall time of all cells behind a student (teacher, images, labels, training), mean over the
  cells. Rows that share a cell each count it in full.
- **LRS**, **ARS**: DD-Ranking's label robust and augmentation robust scores (arXiv 2505.13300), w = γ = 0.5, computed
  from the means of this board, accuracies as fractions after the last epoch: how much better than random images under
  the same labels, less how much worse than all real images under hard labels. Not comparable with their leaderboard,
  which picks the best epoch and learning rate on the test set. ARS takes the same recipe with and without
  augmentation."""


def notes(rows: Iterable[Row]) -> str:
    """How to read the tables of a board, as Markdown."""
    return f"{BEFORE}\n{metrics.notes(rows)}\n{AFTER}"


@dataclass(frozen=True)
class Marks:
    """What the marks of a board stand for."""

    failures: dict[str, int] = field(default_factory=dict)  # reason -> number
    cells: dict[str, list[str]] = field(default_factory=dict)  # reason -> failed cells
    public: dict[BackboneFacts, str] = field(default_factory=dict)  # base -> letter
    settings: dict[str, str] = field(default_factory=dict)  # a method's settings -> capital letter

    def failed(self, row: Row) -> str:
        """``fail¹`` for every reason why cells of a row failed; empty where none did."""
        numbers = sorted({self.failures[reason] for reason, _ in _failures(row)})
        return " ".join(f"fail{wording.superscript(number)}" for number in numbers)

    def bases(self, row: Row) -> str:
        """``a,b`` for the public bases of a row."""
        letters = [self.public[base] for base in row.public]
        return ",".join(sorted(letters, key=lambda mark: (len(mark), mark)))

    def settings_of(self, row: Row) -> str:
        """``[A]`` for a row of other settings than its method's own, else empty."""
        return f"\\[{self.settings[row.settings]}\\]" if row.settings else ""

    def footnotes(self) -> list[str]:
        """The Markdown blocks that say what the marks stand for."""
        blocks = []
        if self.settings:
            given = [f"- \\[{mark}\\] {code(settings)}" for settings, mark in self.settings.items()]
            blocks += ["## Settings", "\n".join(given)]
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
    marks = Marks()
    seen = set()
    for row in rows:
        if row.settings:
            marks.settings.setdefault(row.settings, wording.letter(len(marks.settings)).upper())
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
