"""Notes on reading a board, and the marks in its tables with what they stand for.

Marks are given in the order in which a reader meets them, so they depend on nothing but the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from bench.api import registry
from bench.format import NONE, code, escape, letter, listed, name, plain, superscript
from bench.report.comparison import CLAIM_SEEDS

CELLS_NAMED = 5  # by one footnote; the others are in the records
METRICS = {
    "top-1": "accuracy on the whole test set after the last epoch",
    "mean top-1": "accuracy on the test images of the classes seen, after the last epoch of each step, mean over the "
    "steps",
    "mean IoU": "intersection over union of the student's mask and the exact one, mean over the test set, after the "
    "last epoch",
}
NOTES = {
    "winners": """\
Per IPC and label budget the best mean among rows whose labels take no more than the budget. Only label choices are \
compared for which random real images were measured as well, because accuracy under soft labels is owed to the labels, \
too; rows above the best one without that baseline are named, not ranked.""",
    "no winners": """\
Baseline not measured: random real images were measured under the labels of no method here, so none is named.""",
    "budgets": """\
Mean of the best accuracy in percent that a label budget affords, from {least} to {most}, every doubling of the budget \
counting the same, with the label choices that every method was run with: {choices}.""",
    "mean": "mean\n  ± sample standard deviation over the distilled sets (of the means over their students)",
    "before": f"""\
- **Method**: *baselines* in italics. A letter in square brackets: settings other than the method's own.
- <a id="labels"></a>**Labels**: the model that labels every view online (teacher, projector, ensemble); *stored*: its
  logits for every view; *static*: one label per image; *hard*: the class alone. *fp16*, *int8*: their numbers; *topk*:
  the largest logits of a view; *prune*: one batch in so many is kept. *of*: the label model, where it is not the
  teacher. A letter in round brackets: the frozen backbone that the labels stand on.
- **n**: distilled sets done, each with a student of its own seed, and of those planned where some are not; *3 × 2*:
  with two students each. {NONE}: nothing measured. *missing*, *fail*: planned, but not done.""",
    "after": f"""\
- **95 % interval**: of that mean. Where predictions of the test images are kept, from a hierarchical bootstrap over
  distilled sets and test images; else Student's t over the sets, no narrower than the size of the test set allows.
- **Δ to best**: the difference to the best mean (bold) of the table in points, paired by seed and test image, with its
  95 % interval from the same. A star: significantly lower at 5 % after Holm's correction for the table. Fewer than
  {CLAIM_SEEDS} pairs of distilled sets claim nothing, and neither does a difference that is the same in every seed.
- **Label bytes**: everything beyond images and hard labels that a student needs (stored tensors with their headers,
  or the weights of the label model); after a plus sign frozen backbones, counted apart. **Images**: the encoded images.
  All measured on the files; a range where seeds differ; 1 KiB is 1,024 bytes.
- **Parameters**: of the label model, without frozen backbones.
- **Pareto**: ● no other row of the table has at least this mean for fewer label bytes, or a higher one for as many;
  ○ another has. Intervals are not considered.
- **Oracle %**: the same at the best epoch *on the test set*. It is no result: it shows how much choosing the epoch on
  the test set would have gained.
- **σ sets, students**: standard deviation from distilled set to distilled set, and from student to student of one set
  (analysis of variance, random effects).
- **Label share**: label bytes / (epochs · images · classes · 2), the share of full fp16 labels of every view under the
  same protocol.
- **Seconds**: wall time of all cells behind a student (teacher, images, labels, training), mean over the students.
  Rows that share a cell each count it in full.
- **LRS**, **ARS**: DD-Ranking's label robust and augmentation robust scores (arXiv 2505.13300), w = γ = 0.5, from the
  means of this board, accuracies as fractions after the last epoch: how much better than random images under the same
  labels, less how much worse than all real images under hard labels. Not comparable with their leaderboard, which picks
  the best epoch and learning rate on the test set. ARS takes the same recipe with and without augmentation.""",
}
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def heading(metric: str) -> str:
    """Column of a metric: ``Top-1 %``."""
    return f"{metric[:1].upper()}{metric[1:]} %"


class Marks:
    """Marks of a board whose tables show ``rows`` in this order; a row may come several times."""

    def __init__(self, rows: Iterable[Any]):
        self.settings: dict[str, str] = {}  # of a method → capital letter
        self.backbones: dict[tuple[str, str, int], str] = {}  # → letter
        self.notes: dict[str, dict[str, None]] = {}  # text of a footnote → cells that it names
        self.papers: dict[str, str] = {}  # method → address
        for row in rows:
            if row.settings:
                self.settings.setdefault(row.settings, letter(len(self.settings)).upper())
            for key in map(_backbone, row.public):
                self.backbones.setdefault(key, letter(len(self.backbones)))
            for text, cell in _notes(row):
                self.notes.setdefault(text, {})
                if cell:
                    self.notes[text][cell] = None
            if address := _paper(row.base):
                self.papers[row.base] = address

    def method(self, row: Any) -> str:
        """Title of a row's method, linked to its paper: italic for a baseline, with a mark for its settings."""
        title = name(row.method_title)
        title = f"[{title}][{row.base}]" if row.base in self.papers else title
        shown = f"*{title}*" if row.baseline and row.ipc is not None else title
        settings = f"\\[{self.settings[row.settings]}\\]" if row.settings else ""
        return " ".join(filter(None, (shown, settings, "(ref.)" if row.ipc is None else "")))

    def labels(self, row: Any) -> str:
        """Labels of a row, linked to their explanation, with a mark for the frozen backbones they stand on."""
        letters = sorted((self.backbones[_backbone(one)] for one in row.public), key=lambda mark: (len(mark), mark))
        return f"[{name(row.labels)}][labels]" + (f" ({','.join(letters)})" if letters else "")

    def state(self, row: Any) -> str:
        """``fail¹`` for the reasons why cells of a row failed, ``missing``, and notes on a row that is done."""
        numbers = {text: superscript(at) for at, text in enumerate(self.notes, 1)}
        failed = dict.fromkeys(numbers[_failure(reason)] for reason, _ in row.reasons)
        marks = [f"fail{number}" for number in failed]
        marks += ["missing"] if "missing" in row.states else []
        return " ".join([*marks, *([numbers[_differing(row.differs)]] if row.differs else [])])

    def footnotes(self) -> list[str]:
        """Markdown blocks that say what the marks stand for."""
        blocks = []
        if self.settings:
            blocks += ["## Settings", "\n".join(f"- \\[{mark}\\] {code(text)}" for text, mark in self.settings.items())]
        if self.backbones:
            lines = [f"- ({mark}) {code(base)}, sha256 {code(sha256[:16])}, {size:,} bytes"
                     for (base, sha256, size), mark in self.backbones.items()]  # fmt: skip
            blocks += ["## Frozen backbones", "\n".join(lines)]
        if self.notes:
            lines = [f"- {superscript(at)} {escape(text)}{_cells(list(cells))}"
                     for at, (text, cells) in enumerate(self.notes.items(), 1)]  # fmt: skip
            blocks += ["## Footnotes", "\n".join(lines)]
        return blocks

    def links(self) -> list[str]:
        """Definitions of the links in the tables."""
        return ["[labels]: #labels", *(f"[{base}]: {address}" for base, address in sorted(self.papers.items()))]


def _paper(base: str) -> str:
    if base.partition(":")[0] not in registry.method_names():
        return ""
    found = _ARXIV.search(registry.method(base).info.paper)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


def _backbone(facts: dict[str, Any]) -> tuple[str, str, int]:
    return facts["name"], facts["sha256"], facts["bytes"]


def _notes(row: Any) -> list[tuple[str, str]]:
    found = [(_failure(reason), cell) for reason, cell in row.reasons]
    return [*found, (_differing(row.differs), "")] if row.differs else found


def _failure(reason: str) -> str:
    return f"failed: {plain(reason)}"


def _differing(facts: dict[str, list[str]]) -> str:
    return "students of this row differ in " + listed([f"{fact} ({', '.join(facts[fact])})" for fact in facts])


def _cells(cells: list[str]) -> str:
    if not cells:
        return ""
    rest = f" and {len(cells) - CELLS_NAMED:,} more" if len(cells) > CELLS_NAMED else ""
    return ": " + ", ".join(code(cell) for cell in cells[:CELLS_NAMED]) + rest
