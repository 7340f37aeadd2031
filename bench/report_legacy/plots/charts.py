"""What every figure of one data set, student and protocol knows: its rows, the lines to compare with, its words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from bench.report_legacy import wording
from bench.report_legacy.board import Row
from bench.report_legacy.metrics import metric
from bench.report_legacy.plots.points import Measure, Point, Published, point
from bench.report_legacy.plots.scales import Scale, accuracy_scale
from bench.report_legacy.plots.style import Style, short

DAGGER = "†"
UNLIMITED = ("teacher", "ensemble")  # whole models that label any view: no stored label bounds the training


@dataclass(frozen=True)
class Chart:
    """What is drawn, and how its methods look."""

    title: str  # of the data set
    student: str
    protocol: str
    version: int
    rows: tuple[Row, ...]
    published: tuple[Published, ...]
    styles: Mapping[str, Style]
    baselines: Collection[str]

    @property
    def subtitle(self) -> tuple[str, str]:
        """Two lines: the data set, its student and protocol; what marks and bars are."""
        about = (short(self.title, 64), f"student {short(self.student, 24)}", f"protocol {short(self.protocol, 32)}")
        return f"{' · '.join(about)}, version {self.version}", self.spread

    @property
    def metric(self) -> str:
        """What is measured."""
        return metric(self.rows)

    @property
    def spread(self) -> str:
        """What marks and bars are."""
        counts = sorted({row.top1.n for row in self.rows if row.top1.n and row.ipc is not None})
        if not counts:
            return "Nothing measured yet."
        in_steps = any(entry.steps for row in self.rows for entry in row.entries)
        what = "top-1 after a step, or over all steps" if in_steps else f"{self.metric} after the last epoch"
        if counts == [1]:
            return f"Marks: {what}, one distilled set, so there are no intervals."
        runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        mean = what if what.startswith("mean ") else f"mean {what}"
        marks = f"Marks: {mean}, n = {runs} distilled sets."
        return f"{marks} Bars: 95 % CI of the mean (Student's t)."

    def points(self, measure: Measure) -> list[Point]:
        """The points by a measure of their place on the axis, in the order of the board, published ones last."""
        every: tuple[Row | Published, ...] = (*self.rows, *self.published)
        found = [point(row, measure(row)) for row in every]
        return [one for one in found if one is not None]

    def rows_at(self, ipc: int | None) -> list[Row]:
        """The rows of so many images per class, with those of full data."""
        return [row for row in self.rows if row.ipc in (ipc, None)]

    def methods(self, points: Iterable[Point]) -> list[str]:
        """The methods of measured points by name, baselines last."""
        names = {one.method for one in points if one.n is not None}
        return sorted(names, key=lambda method: (self.styles[method].baseline, self.styles[method].name, method))

    def published_methods(self, points: Iterable[Point]) -> list[str]:
        """The methods of published points by name."""
        return sorted({one.method for one in points if one.n is None}, key=lambda method: self.styles[method].name)

    def say(self, one: Point, place: str) -> str:
        """A point in words, for a tooltip: ``place`` is where it stands on the axis."""
        runs = f"{DAGGER} published: {one.source}" if one.n is None else f"n = {one.n}"
        return f"{self.styles[one.method].name}, {one.labels}, IPC {one.ipc}: {accuracy(one)} % ({runs}), {place}"


def accuracy(one: Point) -> str:
    """``90.0 ± 5.0``: the mean and half the width of its interval, in percent."""
    spread = "" if one.ci95 is None else f" ± {wording.percent(one.ci95)}"
    return wording.percent(one.top1) + spread


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with: ``top1`` as a fraction, ``dashes`` in line widths."""

    name: str
    top1: float
    dashes: tuple[float, ...]


def levels(rows: Iterable[Row], baselines: Collection[str]) -> list[Level]:
    """Full data, the best of an online teacher that labels any view, the best of random images with hard labels."""
    known = [(row, row.top1.mean) for row in rows if row.top1.mean is not None]
    ours = [(row, top1) for row, top1 in known if row.ipc is not None]
    kinds = (
        ("full data", (6.0, 2.0), [top1 for row, top1 in known if row.ipc is None]),
        ("online teacher, no limit", (1.0, 1.5), [top1 for row, top1 in ours if row.labels in UNLIMITED]),
        (
            "random, hard labels",
            (4.0, 1.5, 1.0, 1.5),
            [top1 for row, top1 in ours if row.labels == "hard" and row.method in baselines],
        ),
    )
    return [Level(name, max(found), dashes) for name, dashes, found in kinds if found]


def up_scale(points: Iterable[Point], found: Iterable[Level], most: int = 8) -> Scale:
    """The scale of accuracies for these marks and lines."""
    return accuracy_scale([*(one.top1 for one in points), *(level.top1 for level in found)], most)


def up_label(scale: Scale, metric: str) -> str:
    """What stands beside an axis of accuracies."""
    name = "top-1 accuracy" if metric == "top-1" else metric
    return f"{name} (%)" if scale.place(0.5) == 0.5 else f"{name} (%, log scale of the error)"


def diameters(ipcs: Iterable[int | None]) -> dict[int | None, float]:
    """Markers grow with the images per class, by rank; in points."""
    known = sorted({ipc for ipc in ipcs if ipc is not None})
    if len(known) < 2:
        return dict.fromkeys(known, 5.0)
    return {ipc: 3.6 + 4.0 * rank / (len(known) - 1) for rank, ipc in enumerate(known)}
