"""Which figures a board has, their names, titles and captions.

The protocol and student with the most rows have the plain names; the others add what differs, and have only the figures
of steps and of accuracy against label storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.format import plural, round_size, size, slug
from bench.report.figures import chart, tables
from bench.report.figures.style import MARKERS, PALETTE, Look, looks
from bench.report.papers import published
from bench.report.winners import with_baseline

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

PLACE = ["protocol", "protocol_version", "student"]
BUDGET = 100 * 2**10  # bytes of labels; a caption names the best mean within
FEWEST = 3  # distilled sets behind an interval that is drawn
HEAVIEST = 24  # lines of label storage at most
KINDS = {"hard": "hard labels", "stored": "stored labels", "online": "labels from a model"}
COSTS = {  # column → axis, its name, and its name in a title; a line is the frontier of a method
    "label_bytes": (chart.BYTES, "label storage", "label storage"),
    "bytes": (chart.BYTES, "images + labels + frozen backbones", "all bytes"),
    "seconds_total": (chart.SECONDS, "wall time of all cells behind a student", "time"),
}
COUNTS = {  # the same where a line is the best label choice of a method
    "ipc": (chart.IPC, "images per class", "images per class"),
    "classes_seen": (chart.CLASSES, "classes seen", "classes seen"),
}
FRONTIER = "Lines: the best mean within a budget. Pale: other label choices."


Drawing = tuple[str, str, str, "Canvas"]  # name without the folder, title, caption


def drawings(rows: pd.DataFrame, records: pd.DataFrame) -> Iterator[Drawing]:
    """Draw the figures of pooled rows of one data set and their records, in the order a page shows them."""
    known = rows.assign(
        **{name: 100 * rows[f"top1_{name}"] for name in ("mean", "low", "high")},
        bytes=rows[["image_bytes", "label_bytes", "public_bytes"]].sum(axis=1, skipna=False),
        kind=rows["labels"].map(_kind),
        bars=rows["n"] >= FEWEST,
    )
    known = known[known["mean"].notna()]
    distilled, full = known[known["ipc"].notna()], known[known["ipc"].isna()]
    printed = published.points(rows["dataset"].iloc[0])
    styles = looks([*known["method"], *printed["method"]])
    varying = [name for name in PLACE if known[name].nunique() > 1]
    yield from _students(distilled, styles)
    for turn, part in enumerate(sorted((part for _, part in distilled.groupby(PLACE)), key=lambda part: -len(part))):
        first = part.iloc[0]
        fits = printed["wanted_protocol"].map(first["protocol"].startswith).astype(bool)
        theirs = printed[fits & (printed["student"] == first["student"]) & (printed["variant"] == "")]
        tail = "-" + slug("-".join(str(first[name]) for name in varying)) if turn else ""
        board = Board(part, full[(full[PLACE] == first[PLACE]).all(axis=1)], theirs, styles, records, tail)
        for kind in (board.steps, board.budgets, *(() if turn else (board.counts, board.costs, board.classes))):
            yield from kind()


def storage(weights: pd.DataFrame, images: pd.Series) -> Canvas:
    """Draw label bytes (rows of method, labels, ipc, bytes) and the bytes of the images (by IPC) against IPC."""
    table = tables.label_bytes(weights)
    heaviest = table.groupby("line")["y"].max().nlargest(HEAVIEST).index
    styles = {
        name: Look(name, PALETTE[turn % len(PALETTE)], MARKERS[turn % len(MARKERS)])
        for turn, name in enumerate(heaviest)
    }
    points = table[table["line"].isin(heaviest)]
    tips = [f"{one.line}, IPC {one.x:,}: {size(one.y)}" for one in points.itertuples()]
    points = points.assign(low=None, high=None, kind="", tip=tips)
    canvas = chart.lines(points, styles, chart.IPC, chart.BYTES, images.rename("images"))
    canvas.subplots_adjust(left=0.2)
    canvas.axes[0].set(xlabel="images per class", ylabel="label storage")
    return canvas


def _kind(labels: str) -> str:
    """``hard``, ``stored`` or ``online`` (a model labels any view)."""
    return labels if labels == "hard" else "stored" if labels.startswith(("stored:", "static:")) else "online"


def _images(ipc: int) -> str:
    return f"{plural(ipc, 'image')} per class"


@dataclass(frozen=True)
class Board:
    """The rows of one student under one protocol; ``full``: of the whole training set; ``printed``: of papers."""

    rows: pd.DataFrame
    full: pd.DataFrame
    printed: pd.DataFrame
    looks: Mapping[str, Look]
    records: pd.DataFrame
    tail: str  # of the names of its figures

    def steps(self) -> Iterator[Drawing]:
        """Accuracy against classes seen, where classes arrive in steps, a figure per IPC and kind of labels."""
        found, full = (tables.by_step(rows, self.records) for rows in (self.rows, self.full))
        level = full.set_index("classes_seen")["mean"]
        said = "After each step a new student learns from the images of all classes seen."
        for (ipc, kind), part in found.groupby(["ipc", "kind"]):
            last = part["classes_seen"] == part["classes_seen"].max()  # more intervals would hide the lines
            part = part.assign(bars=last & (part["n"] >= FEWEST))
            panel = f"{_images(ipc)}, {KINDS[kind]}"
            yield self._drawing(f"steps-ipc{ipc}-{kind}", part, "classes_seen", panel, said, full=level)

    def budgets(self) -> Iterator[Drawing]:
        """Accuracy against label bytes, a figure per IPC."""
        for ipc, part in self.rows[self.rows["label_bytes"].notna()].groupby("ipc"):
            printed = self.printed[self.printed["ipc"] == ipc]
            best = part[(part["label_bytes"] <= BUDGET) & with_baseline(part)].nlargest(1, "mean")
            said = "".join(
                f"Best mean within {round_size(BUDGET)}, of labels with a measured baseline: "
                f"{self.looks[one.method].name}, {one.labels}, {one.mean:.1f} %. "
                for one in best.itertuples()
            )
            said += FRONTIER + (" Hollow: † published." if len(printed) else "")
            yield self._drawing(f"labels-ipc{ipc}", part, "label_bytes", _images(ipc), said, printed)

    def counts(self) -> Iterator[Drawing]:
        """Accuracy and label bytes against images per class."""
        if self.rows["ipc"].nunique() < 2:
            return
        for kind, words in KINDS.items():
            if len(part := self.rows[self.rows["kind"] == kind]):
                said = "Lines: the best label choice of each method."
                yield self._drawing(f"ipc-{kind}", part, "ipc", words, said)
        weights = self.rows[["method", "labels", "ipc"]].assign(bytes=self.rows["label_bytes"]).dropna()
        if (weights["bytes"] > 0).any():
            canvas = storage(weights, self.rows.groupby("ipc")["image_bytes"].mean().dropna())
            canvas.axes[0].set(title="Label storage")
            said = "Measured bytes of what a student needs beside images and hard labels. Dashed: the encoded images."
            yield "storage", "Label storage against images per class", said, canvas

    def costs(self) -> Iterator[Drawing]:
        """Accuracy against all bytes and against time, over all IPC."""
        for name, column in (("bytes", "bytes"), ("time", "seconds_total")):
            if len(part := self.rows[self.rows[column].notna()]):
                yield self._drawing(name, part, column, "", f"All numbers of images per class. {FRONTIER}")

    def classes(self) -> Iterator[Drawing]:
        """Accuracy per class where predictions were kept, a heat map per IPC."""
        for ipc, part in self.rows.groupby("ipc"):
            if len(table := tables.by_class(part, self.records)):
                canvas = chart.heat_map(table, self.looks, by_column=False)
                canvas.axes[0].set(title=_images(ipc), xlabel="class")
                said = "Percent of the test images of each class, under the best labels of a method."
                yield f"classes-ipc{ipc}", f"Accuracy per class, {_images(ipc)}", said, canvas

    def _drawing(
        self, name: str, rows: pd.DataFrame, across: str, panel: str, said: str, printed: pd.DataFrame | None = None,
        full: pd.Series | None = None,
    ) -> Drawing:  # fmt: skip
        """Draw the accuracy of ``rows`` against a column.

        Args:
            panel: what the rows share; ``said``: begins the caption.
            printed: numbers of papers, of the same panel.
            full: accuracy of the whole training set at each place; None: everywhere the same.
        """
        axis, label, title = {**COSTS, **COUNTS}[across]
        title = f"Accuracy against {title}" + (f", {panel}" if panel else "")
        mark = tables.frontier if across in COSTS else tables.best_labels
        points = mark(rows, across)
        points = points.assign(
            line=points["method"], x=points[across], y=points["mean"],
            **{end: points[end].where(points["bars"]) for end in ("low", "high")},
            tip=[self._tip(one) + ("" if across == "ipc" else f", {axis.word(at)}")
                 for one, at in zip(points.itertuples(), points[across], strict=True)],
        )  # fmt: skip
        if printed is not None and len(printed):
            tips = [f"† {self.looks[one.method].name}, {one.source}: {one.value:.1f} %, {size(one.bytes)}"
                    for one in printed.itertuples()]  # fmt: skip
            theirs = printed.assign(
                line=printed["method"], x=printed["bytes"], y=printed["value"], kind="hollow", tip=tips
            )
            points = pd.concat([points, theirs])
        if full is None:
            full = self.full["mean"].nlargest(1)
        canvas = chart.lines(points, self.looks, axis, chart.ACCURACY, full.rename("Full data"), step=across in COSTS)
        first, counts = self.rows.iloc[0], self.rows["n"]
        metric = "top-1 accuracy" if first["metric"] == "top-1" else first["metric"]
        up = "top-1 on the classes seen" if across == "classes_seen" else metric
        canvas.axes[0].set(title=(panel or title).capitalize(), xlabel=label, ylabel=f"{up} (%)")
        sets = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
        bars = f", bars 95 % intervals where n ≥ {FEWEST}" if counts.max() >= FEWEST else ""
        place = f"Student {first['student']}, protocol {first['protocol']}, version {first['protocol_version']}."
        return (name + self.tail, title, f"{said} Marks: means of n = {sets} distilled sets{bars}. {place}", canvas)

    def _tip(self, row: Any) -> str:
        """``RDED, teacher, IPC 10: 90.0 % (85.1 to 94.9, n = 3)``: a mean with its 95 % interval."""
        interval = f"{row.low:.1f} to {row.high:.1f}, " if row.low == row.low else ""
        name = self.looks[row.method].name
        return f"{name}, {row.labels}, IPC {row.ipc}: {row.mean:.1f} % ({interval}n = {row.n})"


def _students(rows: pd.DataFrame, looks: Mapping[str, Look]) -> Iterator[Drawing]:
    """Students × methods under the protocol that has most students, a heat map per IPC."""
    students = rows.groupby("protocol")["student"].nunique()
    if not len(students) or students.max() < 2:
        return
    for ipc, part in rows[rows["protocol"] == students.idxmax()].groupby("ipc"):
        table = part.pivot_table(index="method", columns="student", values="mean", aggfunc="max")
        canvas = chart.heat_map(table, looks, by_column=True)
        canvas.axes[0].set(title=_images(ipc))
        said = (
            "Means in percent under the best labels of a method; colours from a student's worst to its best. Protocol"
        )
        yield f"students-ipc{ipc}", f"Students and methods, {_images(ipc)}", f"{said} {students.idxmax()}.", canvas
