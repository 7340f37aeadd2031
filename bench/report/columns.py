"""The columns of a board's tables, in Markdown and on its page, and the marks in their cells.

Footnotes are numbered in the order in which a reader meets them, so they depend on nothing but the rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from bench import format as fmt
from bench.api import registry
from bench.format import NONE, code, escape, name, percent, points, superscript, unbroken
from bench.report.comparison import CLAIM_SEEDS, FEWEST

CELLS_NAMED = 5  # by one footnote; the others are in the records
METRICS = {
    "top-1": "accuracy on the whole test set after the last epoch",
    "mean top-1": "accuracy on the test images of the classes seen, after the last epoch of each step, mean over steps",
    "mean IoU": "intersection over union of the student's mask and the exact one, mean over the test set, after the "
    "last epoch",
}
SPREAD = "mean ± sample standard deviation over the distilled sets; the best is bold"
INLINE = 24  # characters of settings
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


class Marks:
    """Footnotes of a board whose tables show ``rows`` in this order (a row may come several times), and its links."""

    def __init__(self, rows: Iterable[Any]):
        self.notes: dict[str, list[str]] = {}  # text → cells that it names
        self.papers: dict[str, str] = {}  # method → address
        for row in rows:
            plain: dict[str, list[str]] = {text: [] for text in (*_settings(row), *_backbones(row))}
            for text, cells in {**plain, **_remarks(row)}.items():
                self.notes[text] = list(dict.fromkeys([*self.notes.get(text, []), *cells]))
            if (base := row.base).partition(":")[0] in registry.method_names():
                found = _ARXIV.search(registry.method(base).info.paper)
                self.papers |= {base: f"https://arxiv.org/abs/{found[1]}"} if found else {}
        self.numbers = {text: superscript(at) for at, text in enumerate(self.notes, 1)}

    def method(self, row: Any) -> str:
        """Title of a row's method, linked to its paper: italic for a baseline, its settings behind it or a mark."""
        title = name(row.method_title)
        title = f"[{title}][{row.base}]" if row.base in self.papers else title
        shown = f"*{title}*" if row.baseline and row.ipc is not None else title
        settings = [
            *map(name, filter(None, short(row.settings).split(","))),
            *map(self.numbers.__getitem__, _settings(row)),
        ]
        return " ".join([shown, *settings, *["(ref.)"] * (row.ipc is None)])

    def labels(self, row: Any) -> str:
        """Labels of a row, linked to their explanation, with a mark for the frozen backbones they need."""
        return " ".join([f"[{name(row.labels)}][labels]", *map(self.numbers.__getitem__, _backbones(row))])

    def accuracy(self, row: Any) -> str:
        """Accuracy; ``fail¹`` for the reasons why cells of a row failed, ``missing``, and marks of its remarks."""
        shown = fmt.accuracy(row.top1_mean, row.top1_std) if row.n else ""
        marks = ["fail" * bool(cells) + self.numbers[text] for text, cells in _remarks(row).items()]
        missing = ["missing"] if "missing" in row.states else []
        return " ".join(filter(None, [f"**{shown}**" if row.best else shown, *missing, *marks])) or NONE

    def blocks(self) -> list[str]:
        """Markdown of the footnotes, and the links of the tables."""
        notes = [f"- {self.numbers[text]} {escape(text)}{_cells(cells)}" for text, cells in self.notes.items()]
        links = ["[labels]: #labels", *(f"[{base}]: {address}" for base, address in sorted(self.papers.items()))]
        return ["\n".join(["## Footnotes\n", *notes]) if notes else "", "\n".join(links)]


def short(settings: str) -> str:
    """Return the settings if they stand behind a method's title; empty where they are long, and a footnote."""
    return settings if len(settings) <= INLINE else ""


def _settings(row: Any) -> list[str]:
    return [] if short(row.settings) == row.settings else [f"settings other than its own: {fmt.plain(row.settings)}"]


def _backbones(row: Any) -> list[str]:
    return [
        f"frozen backbone {fmt.plain(one['name'])}, sha256 {one['sha256'][:16]}, {one['bytes']:,} bytes"
        for one in row.public
    ]


def _remarks(row: Any) -> dict[str, list[str]]:
    """Footnotes of an accuracy; those of failures name cells."""
    failed = {f"failed: {fmt.plain(reason)}": cells for reason, cells in row.reasons.items()}
    return failed | {fmt.plain(remark): [] for remark in row.remarks}


def _cells(cells: list[str]) -> str:
    rest = f" and {len(cells) - CELLS_NAMED:,} more" if len(cells) > CELLS_NAMED else ""
    return ": " + ", ".join(map(code, cells[:CELLS_NAMED])) + rest if cells else ""


def heading(metric: str) -> str:
    """Column of a metric: ``Top-1 %``."""
    return f"{metric[:1].upper()}{metric[1:]} %"


def _count(row: Any, marks: Marks) -> str:
    if row.students < row.students_expected:
        return f"{row.students}/{row.students_expected}"
    students = sorted(set(Counter(seed for seed, _, _ in row.runs).values()))
    if students in ([], [1]):
        return str(row.students)
    return unbroken(f"{row.n} × {students[0]}" + (f"–{students[-1]}" if len(students) > 1 else ""))


def _delta(row: Any, marks: Marks) -> str:
    if row.delta_best is None or row.best:
        return ""
    said = [_span(row.delta_low, row.delta_high, points)] if row.pairs >= FEWEST else []
    said += [fmt.plural(row.pairs, "pair")] if row.unpaired else []
    inner = ", ".join(filter(None, said))
    return unbroken(points(row.delta_best) + (f" ({inner})" if inner else "") + (" *" if row.worse else ""))


def _span(low: float | None, high: float | None, text: Callable[[Any], str]) -> str:
    return "" if low is None else f"{text(low)} to {text(high)}"


def label_bytes(row: Any) -> str:
    """Label bytes, a range where seeds differ, and behind a plus sign those of frozen backbones."""
    low, high = fmt.size(row.label_low), fmt.size(row.label_high)
    own = low if low == high else f"{low} to {high}"
    return f"{own} + {fmt.size(row.public_bytes)}" if row.public_bytes else own


class Column(NamedTuple):
    """A column: the column of rows that it sorts by, its cells in Markdown, and what it is."""

    by: str
    text: Callable[[Any, Marks], str]
    about: str
    folded: bool = False  # into the second table of Markdown
    paged: bool = True  # a column on the page, too; else in the fold-out of a row


def _decimals(by: str) -> Callable[[Any, Marks], str]:
    return lambda row, _: NONE if (value := getattr(row, by)) is None else f"{value:,.3f}".removesuffix(".000")


# the column of the accuracy has the name of the metric
COLUMNS: dict[str, Column] = {
    "Method": Column("method_title", lambda row, marks: marks.method(row),
        "*baselines* in italics; behind them or under a number: settings other than the method's own"),
    "Labels": Column("labels", lambda row, marks: marks.labels(row),
        "the model that labels every view online (teacher, projector, ensemble); *stored*: its logits for every view, "
        "*static*: one label per image, *hard*: the class alone; *fp16*, *int8*: their numbers, *topk*: the largest "
        "logits of a view, *prune*: one batch in so many is kept; a number: the frozen backbone"),
    "n": Column("n", _count,
        "distilled sets done, and of those planned where some are not; *3 × 2*: with two students each; *missing*, "
        "*fail*: planned, but not done"),
    "": Column("top1_mean", lambda row, marks: marks.accuracy(row), ""),
    "95 % interval": Column("top1_low", lambda row, _: _span(row.top1_low, row.top1_high, percent) or NONE,
        "of that mean: a hierarchical bootstrap over distilled sets and test images where predictions are kept, else "
        "Student's t over the sets, no narrower than the size of the test set allows"),
    "Δ to best": Column("delta_best", _delta,
        "difference to the best mean of the table in points, paired by seed and test image (*pairs* are counted where "
        f"a row has other seeds than the best), with its 95 % interval from {FEWEST} pairs on; a "
        f"star: significantly lower (5 %, Holm over the table); fewer than {CLAIM_SEEDS} pairs of distilled sets claim "
        "nothing, nor does a difference that is the same in every seed"),
    "Label bytes": Column("label_high", lambda row, _: unbroken(label_bytes(row)),
        "everything beyond images and hard labels that a student needs, measured on the files, a range where seeds "
        "differ; after a plus sign frozen backbones, counted apart; 1 KiB is 1,024 bytes"),
    "Pareto": Column("on_front", lambda row, _: {None: "", True: "●", False: "○"}[row.on_front],
        "● no other row of the table has at least this mean for fewer label bytes, or a higher one for as many"),
    "Oracle %": Column("oracle_mean", lambda row, _: percent(row.oracle_mean),
        "the same at the best epoch *on the test set*: no result, but what choosing it there would have gained",
        True, False),
    "σ sets, students": Column("top1_std_sets", lambda row, _: NONE if row.top1_std_students is None else
        f"{percent(row.top1_std_sets)}, {percent(row.top1_std_students)}",
        "standard deviation between distilled sets, and between students of one set (analysis of variance)",
        True, False),
    "Images": Column("image_bytes", lambda row, _: unbroken(fmt.size(row.image_bytes)), "bytes of the encoded images",
        True, False),
    "Parameters": Column("label_parameters", _decimals("label_parameters"),
        "of the label model, without frozen backbones", True, False),
    "Label share": Column("label_share", lambda row, _: fmt.ratio(row.label_share),
        "label bytes / (epochs · images · classes · 2): the share of full fp16 labels of every view", True),
    "Seconds": Column("seconds_total", lambda row, _: fmt.seconds(row.seconds_total),
        "wall time of all cells behind a student; rows that share a cell each count it in full", True),
    "LRS": Column("lrs", _decimals("lrs"),
        "DD-Ranking's label robust score (arXiv 2505.13300), w = 0.5, from the means of this board: how much better "
        "than random images under the same labels, less how much worse than all real images under hard labels", True),
    "ARS": Column("ars", _decimals("ars"),
        "their augmentation robust score, of the same recipe with and without augmentation", True, False),
}  # fmt: skip
LEFT = ("Method", "Labels")
RARE = ("Δ to best", "σ sets, students", "Parameters", "LRS", "ARS")  # left out where no row has a value


def about(metrics: Iterable[str]) -> dict[str, str]:
    """Heading → what a column is; one for each metric."""
    found: dict[str, str] = {}
    for head, column in COLUMNS.items():
        found |= (
            {head: column.about} if head else {heading(one): f"{METRICS.get(one, one)}; {SPREAD}" for one in metrics}
        )
    return found
