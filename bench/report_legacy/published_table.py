"""Published numbers as a Markdown block of a board, and as points of a plot. They are marked †, never ranked and never
bold; where sources disagree, all of them are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from bench.api import catalogue, registry
from bench.report_legacy.board import Row
from bench.report_legacy.published import label_bytes, load, measured_for, printed_bytes, sources
from bench.report_legacy.published_file import Published
from bench.report_legacy.wording import JOINED, NONE, escape, percent, plain, size, superscript

COLUMNS = {  # column -> its alignment; those of what was measured are left out where nothing was
    "Method": "left",
    "Student": "left",
    "IPC": "right",
    "Top-1 % †": "right",
    "Measured": "right",
    "Δ": "right",
    "Label bytes": "right",
    "Storage it prints": "left",
    "Printed by": "left",
}
NOTES = f"""\
† Printed by others: the best epoch on the test set, as papers report it. Where sources disagree, each has its line; ?:
not compared with its source. **Measured**: here, under the same recipe: mean ± standard deviation (seeds) of the last
epoch. **Δ**: measured − published in points, ± half the 95 % interval of what was measured; ‡: the source's recipe is
not known. **Label bytes**: computed from the source's recipe (SRe2L's files of stored logits; of a model its parameters
in fp32, without the public base it stands on); ≈: the source leaves open what that rests on; {NONE}: it does not say
enough. **Storage it prints**: in the source's own terms."""


@dataclass(frozen=True)
class Number:
    """One value of one setting and all sources that print it, that with a standard deviation first."""

    rows: tuple[Published, ...]

    @property
    def first(self) -> Published:
        """Stands for all of them."""
        return self.rows[0]

    @property
    def text(self) -> str:
        """``46.8 ± 0.2``, ``27.0?`` where it was not compared with its source."""
        value, _, std = self.first.printed.partition("±")
        mark = "?" if all(one.unchecked for one in self.rows) else ""
        return value + (f" ±{JOINED}{std}" if std else "") + mark

    @property
    def label_bytes(self) -> int | None:
        """Computed from the recipe of any of the sources."""
        return next((found for one in self.rows if (found := label_bytes(one)) is not None), None)

    @property
    def label_text(self) -> str:
        """``5.7 GiB``, or ``≈ 3.1 MiB`` where the source leaves open what it rests on; empty where it is not known."""
        known = next((one for one in self.rows if label_bytes(one) is not None), None)
        if known is None:
            return ""
        mark = f"≈{JOINED}" if known.recipe and known.recipe.assumed else ""
        return mark + size(label_bytes(known)).replace(" ", JOINED)

    @property
    def storage(self) -> str:
        """What sources print as storage."""
        return "; ".join(dict.fromkeys(one.storage for one in self.rows if one.storage))


def numbers(rows: Iterable[Published]) -> list[Number]:
    """Published rows, those that say the same of a setting together: by method, variant and student as the file brings
    them up, then by IPC."""
    rows = list(rows)
    rank = {key: at for at, key in enumerate(dict.fromkeys(key for one in rows for key in _ranks(one)))}
    found: list[list[Published]] = []
    by_value: dict[tuple[object, ...], list[list[Published]]] = {}
    for one in rows:
        groups = by_value.setdefault((one.setting, one.top1), [])
        weighs = label_bytes(one)
        for group in groups:
            known = {label_bytes(other) for other in group} - {None}
            if weighs is None or not known or weighs in known:
                group.append(one)
                break
        else:
            groups.append([one])
            found.append(groups[-1])
    found.sort(key=lambda group: (*(rank[key] for key in _ranks(group[0])), group[0].ipc))
    return [Number(tuple(sorted(group, key=lambda one: one.std is None))) for group in found]


def _ranks(one: Published) -> tuple[tuple[str, ...], ...]:
    return ("method", one.method), ("variant", one.method, one.variant), ("student", one.student)


def method_titles() -> dict[str, str]:
    """Names of methods → as papers write them."""
    infos = [registry.method(name).info for name in registry.method_names()]
    return {name: source.title for name, source in sources().items()} | {info.name: info.title for info in infos}


def render(dataset: str, measured: Sequence[Row] = (), published: Sequence[Published] | None = None) -> str:
    """The Markdown block of the published numbers on a data set; empty where there are none.

    Args:
        dataset: its name in the catalogue.
        measured: rows of its board; those under a protocol after a paper's recipe stand beside the published
            numbers.
        published: what to show; None: all there is.

    Raises:
        UserError: the file of published numbers is missing or broken.
    """
    rows = [one for one in (load() if published is None else published) if one.dataset == dataset]
    if not rows:
        return ""
    found = numbers(rows)
    beside = [measured_beside(number, measured) for number in found]
    notes = {note: at for at, note in enumerate(dict.fromkeys(one.note for one in rows if one.note), start=1)}
    titles, known = method_titles(), sources()
    default = catalogue.dataset(dataset).student if dataset in catalogue.names() else ""
    order = sorted(range(len(found)), key=lambda at: _rank(found[at].first, default))  # variants as in the file
    columns = {name: align for name, align in COLUMNS.items() if any(beside) or name not in ("Measured", "Δ")}
    lines = [_line(found[at], beside[at], notes, titles) for at in order]
    table = tabulate(
        [[line[name] for name in columns] for line in lines],
        headers=list(columns),
        tablefmt="pipe",
        disable_numparse=True,
        colalign=list(columns.values()),
    )
    legend = [f"- {superscript(at)} {escape(note)}." for note, at in notes.items()]
    for name in dict.fromkeys(one.source for one in rows):
        counts = f" Counts as storage: {escape(known[name].counts)}." if known[name].counts else ""
        legend.append(f"- {escape(known[name].title)}: {escape(known[name].where)}.{counts}")
    return "\n\n".join(["## Published numbers †", table, NOTES, "\n".join(legend)])


def _rank(one: Published, default: str) -> tuple[bool, str, int, str]:
    return one.student != default, one.student, one.ipc, one.method


def _line(number: Number, row: Row | None, notes: Mapping[str, int], titles: Mapping[str, str]) -> dict[str, str]:
    one, known = number.first, sources()
    marks = sorted({notes[row.note] for row in number.rows if row.note})
    return {
        "Method": escape(titles.get(one.method, one.method) + (f", {one.variant}" if one.variant else "")),
        "Student": escape(one.student),
        "IPC": str(one.ipc),
        "Top-1 % †": f"{number.text}{' '.join(map(superscript, marks))}",
        "Measured": NONE if row is None else measured_text(row),
        "Δ": NONE if row is None else delta_text(number, row),
        "Label bytes": number.label_text or NONE,
        "Storage it prints": escape(number.storage),
        "Printed by": escape(", ".join(dict.fromkeys(known[row.source].title for row in number.rows))),
    }


def measured_beside(number: Number, rows: Sequence[Row]) -> Row | None:
    """The measured row to compare a published number with, as :func:`measured_for` chooses it."""
    return next((row for one in number.rows if (row := measured_for(one, rows)) is not None), None)


def measured_text(row: Row) -> str:
    """``45.1 ± 0.2 (3)``: mean, standard deviation and number of distilled sets."""
    spread = "" if row.top1.std is None else f" ±{JOINED}{percent(row.top1.std)}"
    return f"{percent(row.top1.mean)}{spread} ({row.top1.n})"


def delta(number: Number, row: Row) -> float | None:
    """Measured − published, in points of top-1."""
    return None if row.top1.mean is None else 100 * row.top1.mean - number.first.top1


def delta_text(number: Number, row: Row) -> str:
    """``+0.4 ± 0.5``: with half the 95 % interval of what was measured; ‡ where the source's recipe is not known to be
    the one that was measured."""
    difference = delta(number, row)
    if difference is None:
        return NONE
    interval = "" if row.top1.ci95 is None else f" ±{JOINED}{percent(row.top1.ci95)}"
    known = any(one.recipe and one.recipe.runs_as for one in number.rows)
    return f"{difference:+.1f}{interval}{'' if known else ' ‡'}"


def as_points(dataset: str, student: str | None = None) -> list[tuple[str, int, int, float]]:
    """Published numbers as (method, IPC, label bytes, top-1 as a fraction), for plots; a variant is part of the
    method's name. Label bytes are computed from the recipe, or else what the source prints; without either there is
    no point.

    Args:
        student: of this student alone; None: of all.

    Raises:
        UserError: the file of published numbers is missing or broken.
    """
    points = []
    for number in numbers(one for one in load() if one.dataset == dataset and student in (None, one.student)):
        one = number.first
        printed = (found for row in number.rows if (found := printed_bytes(row)) is not None)
        weighs = next(printed, None) if number.label_bytes is None else number.label_bytes
        if weighs is not None:
            name = one.method + (f" ({plain(one.variant)})" if one.variant else "")
            points.append((name, one.ipc, weighs, one.top1 / 100))
    return points
