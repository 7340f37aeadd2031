"""Which figures a board has, their names, titles and captions.

The protocol and student with the most rows have the plain names; the others add what differs, and have only the figures
of steps and of accuracy against label storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from bench.format import plural, round_size, size, slug
from bench.report.figures import frontier, heatmap, lines, storage, style
from bench.report.papers import published
from bench.report.winners import with_baseline

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

CHART = ["protocol", "protocol_version", "student"]
BUDGET = 100 * 2**10  # bytes of labels; a caption names the best mean within
KINDS = {"hard": "hard labels", "stored": "stored labels", "online": "labels from a model"}
COSTS = (
    ("bytes", "Accuracy against all bytes", "images + labels + frozen backbones", style.bytes_axis, size),
    (
        "seconds_total",
        "Accuracy against time",
        "wall time of all cells behind a student",
        style.seconds_axis,
        style.duration,
    ),
)
FRONTIER = "Lines: the best mean within a budget. Pale: other label choices."


class Drawing(NamedTuple):
    """A figure before it is written; ``name`` without the folder."""

    name: str
    title: str
    caption: str
    canvas: Canvas


def drawings(rows: pd.DataFrame, records: pd.DataFrame) -> Iterator[Drawing]:
    """The figures of pooled rows of one data set and their records, in the order a page shows them."""
    percents = {name: 100 * rows[f"top1_{name}"] for name in ("mean", "low", "high")}
    known = rows.assign(**percents, kind=rows["labels"].map(_kind)).loc[rows["top1_mean"].notna()]
    printed = published.points(rows["dataset"].iloc[0])
    looks = style.looks([*known["method"], *printed["method"]])
    found = sorted((part for _, part in known[known["ipc"].notna()].groupby(CHART)), key=lambda part: -len(part))
    varying = [name for name in CHART if known[name].nunique() > 1]
    yield from _students(known[known["ipc"].notna()], looks)
    for place, part in enumerate(found):
        same = (known[CHART] == part[CHART].iloc[0]).all(axis=1)
        first = part.iloc[0]
        fits = printed["wanted_protocol"].map(first["protocol"].startswith).astype(bool)
        theirs = printed[fits & (printed["student"] == first["student"]) & (printed["variant"] == "")]
        chart = Chart(part, known[same & known["ipc"].isna()], theirs, looks, records)
        tail = "-" + slug("-".join(str(part[name].iloc[0]) for name in varying)) if place else ""
        kinds = (
            [chart.steps, chart.budgets]
            if place
            else [chart.steps, chart.budgets, chart.counts, chart.others, chart.classes]
        )
        for kind in kinds:
            yield from (one._replace(name=one.name + tail) for one in kind())


def _kind(labels: str) -> str:
    """``hard``, ``stored`` or ``online`` (a model labels any view)."""
    return labels if labels == "hard" else "stored" if labels.startswith(("stored:", "static:")) else "online"


def _images(ipc: int) -> str:
    return f"{plural(ipc, 'image')} per class"


@dataclass(frozen=True)
class Chart:
    """The rows of one student under one protocol; ``full``: of the whole training set there; ``printed``: the numbers
    of papers.
    """

    rows: pd.DataFrame
    full: pd.DataFrame
    printed: pd.DataFrame
    looks: Mapping[str, style.Look]
    records: pd.DataFrame

    @property
    def top(self) -> float | None:
        """The accuracy of the whole training set in percent."""
        return float(self.full["mean"].max()) if len(self.full) else None

    def _drawing(
        self, name: str, title: str, said: str, canvas: Canvas, panel: str, across: str, up: str = ""
    ) -> Drawing:
        """Name the axes of a canvas and describe it; ``panel``: its title."""
        first, counts = self.rows.iloc[0], self.rows["n"]
        metric = "top-1 accuracy" if first["metric"] == "top-1" else first["metric"]
        canvas.axes[0].set(title=panel, xlabel=across, ylabel=up or f"{metric} (%)")
        sets = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
        bars = f", bars 95 % intervals where n ≥ {style.FEWEST}" if counts.max() >= style.FEWEST else ""
        place = f"Student {first['student']}, protocol {first['protocol']}, version {first['protocol_version']}."
        return Drawing(name, title, f"{said} Marks: means of n = {sets} distilled sets{bars}. {place}", canvas)

    def budgets(self) -> Iterator[Drawing]:
        """Accuracy against label bytes, a figure per IPC."""
        for ipc, part in self.rows[self.rows["label_bytes"].notna()].groupby("ipc"):
            printed = self.printed[self.printed["ipc"] == ipc]
            canvas = frontier.draw(part, "label_bytes", self.looks, style.bytes_axis, size, self.top, printed)
            best = part[(part["label_bytes"] <= BUDGET) & with_baseline(part)].nlargest(1, "mean")
            said = "".join(
                f"Best mean within {round_size(BUDGET)}, of labels with a measured baseline: "
                f"{self.looks[one.method].name}, {one.labels}, {one.mean:.1f} %. "
                for one in best.itertuples()
            )
            said += FRONTIER + (" Hollow: † published." if len(printed) else "")
            title = f"Accuracy against label storage, {_images(ipc)}"
            yield self._drawing(f"labels-ipc{ipc}", title, said, canvas, _images(ipc), "label storage")

    def counts(self) -> Iterator[Drawing]:
        """Accuracy and label bytes against images per class."""
        places = sorted(self.rows["ipc"].unique())
        if len(places) < 2:
            return
        across = "images per class"
        for kind, words in KINDS.items():
            if len(part := self.rows[self.rows["kind"] == kind]):
                canvas = lines.draw(
                    part, "ipc", self.looks, dict.fromkeys(places, self.top) if self.top else {}, log=True
                )
                title, said = f"Accuracy against {across}, {words}", "Lines: the best label choice of each method."
                yield self._drawing(f"ipc-{kind}", title, said, canvas, words.capitalize(), across)
        weights = self.rows.assign(bytes=self.rows["label_bytes"])[["method", "labels", "ipc", "bytes"]].dropna()
        if len(curves := storage.distinct(weights)):
            canvas = storage.draw(curves, self.rows.groupby("ipc")["image_bytes"].mean().dropna())
            canvas.axes[0].set(title="Label storage")
            said = "Measured bytes of what a student needs beside images and hard labels. Dashed: the encoded images."
            yield Drawing("storage", f"Label storage against {across}", said, canvas)

    def others(self) -> Iterator[Drawing]:
        """Accuracy against all bytes and against time, over all IPC."""
        all_bytes = self.rows[["image_bytes", "label_bytes", "public_bytes"]].sum(axis=1, skipna=False)
        every = self.rows.assign(bytes=all_bytes)
        for cost, title, across, scale, word in COSTS:
            if len(part := every[every[cost].notna()]):
                canvas = frontier.draw(part, cost, self.looks, scale, word, self.top)
                name, said = cost.replace("seconds_total", "time"), f"All numbers of images per class. {FRONTIER}"
                yield self._drawing(name, title, said, canvas, title, across)

    def steps(self) -> Iterator[Drawing]:
        """Accuracy against classes seen, where classes arrive in steps, a figure per IPC and kind of labels."""
        found, full = (lines.by_step(rows, self.records) for rows in (self.rows, self.full))
        level = dict(zip(full["classes_seen"], full["mean"], strict=True))
        for (ipc, kind), part in found.groupby(["ipc", "kind"]):
            canvas = lines.draw(part, "classes_seen", self.looks, level, log=False)
            panel = f"{_images(ipc)}, {KINDS[kind]}"
            said = "After each step a new student learns from the images of all classes seen."
            up = "top-1 on the classes seen (%)"
            title = f"Accuracy against classes seen, {panel}"
            yield self._drawing(f"steps-ipc{ipc}-{kind}", title, said, canvas, panel, "classes seen", up)

    def classes(self) -> Iterator[Drawing]:
        """Accuracy per class where predictions were kept, a heat map per IPC."""
        for ipc, part in self.rows.groupby("ipc"):
            if len(table := heatmap.by_class(part, self.records)):
                canvas = heatmap.draw(table, self.looks, by_column=False)
                canvas.axes[0].set(title=_images(ipc), xlabel="class")
                said = "Percent of the test images of each class, under the best labels of a method."
                yield Drawing(f"classes-ipc{ipc}", f"Accuracy per class, {_images(ipc)}", said, canvas)


def _students(rows: pd.DataFrame, looks: Mapping[str, style.Look]) -> Iterator[Drawing]:
    """Students × methods under the protocol that has most students, a heat map per IPC."""
    students = rows.groupby("protocol")["student"].nunique()
    if not len(students) or students.max() < 2:
        return
    for ipc, part in rows[rows["protocol"] == students.idxmax()].groupby("ipc"):
        table = part.pivot_table(index="method", columns="student", values="mean", aggfunc="max")
        canvas = heatmap.draw(table, looks, by_column=True)
        canvas.axes[0].set(title=_images(ipc))
        said = (
            "Means in percent under the best labels of a method; colours from a student's worst to its best. Protocol"
        )
        yield Drawing(
            f"students-ipc{ipc}", f"Students and methods, {_images(ipc)}", f"{said} {students.idxmax()}.", canvas
        )
