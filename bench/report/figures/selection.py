"""The figures of a board: their names, titles and captions.

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
AXES = {  # column → axis, its name, and its name in a title
    "classes_seen": (chart.CLASSES, "classes seen", "classes seen"),
    "label_bytes": (chart.BYTES, "label storage", "label storage"),
    "ipc": (chart.IPC, "images per class", "images per class"),
    "bytes": (chart.BYTES, "images + labels + frozen backbones", "all bytes"),
    "seconds_total": (chart.SECONDS, "wall time of all cells behind a student", "time"),
}
COUNTS = ("classes_seen", "ipc")  # there a line is the best label choice of a method, elsewhere its frontier
STEPS = "After each step a new student learns from the images of all classes seen."
FRONTIER = "Lines: the best mean within a budget. Pale: other label choices."
# name, column on the x-axis, what has figures of its own, what a caption says
PANELS: tuple[tuple[str, str, list[str], str], ...] = (
    ("steps", "classes_seen", ["ipc", "kind"], STEPS),
    ("labels", "label_bytes", ["ipc"], FRONTIER),
    ("ipc", "ipc", ["kind"], "Lines: the best label choice of each method."),
    ("bytes", "bytes", [], f"All numbers of images per class. {FRONTIER}"),
    ("time", "seconds_total", [], f"All numbers of images per class. {FRONTIER}"),
)
EVERYWHERE = 2  # the first panels, for other protocols and students as well

Drawing = tuple[str, str, str, "Canvas"]  # name without the folder, title, caption


def drawings(rows: pd.DataFrame, records: pd.DataFrame) -> Iterator[Drawing]:
    """Draw the figures of pooled rows of one data set and their records, in the order a page shows them."""
    known = rows.assign(
        **{name: 100 * rows[f"top1_{name}"] for name in ("mean", "low", "high")},
        bytes=rows[["image_bytes", "label_bytes", "public_bytes"]].sum(axis=1, skipna=False),
        kind=pd.Categorical(rows["labels"].map(_kind), list(KINDS)),
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
        for panel in PANELS[:EVERYWHERE] if turn else PANELS:
            yield from board.panels(*panel)
            if panel[0] == "ipc":
                yield from board.storage()
        if not turn:
            yield from board.classes()


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

    def panels(self, name: str, across: str, by: list[str], said: str) -> Iterator[Drawing]:
        """Draw accuracy against a column, a figure per IPC or kind of labels."""
        rows = tables.by_step(self.rows, self.records) if across == "classes_seen" else self.rows
        rows = rows[rows[across].notna()]
        if rows[across].nunique() < (2 if across == "ipc" else 1):
            return
        for key, part in rows.groupby(by, observed=True) if by else [((), rows)]:
            place = dict(zip(by, key, strict=True))
            words = [_images(value) if column == "ipc" else KINDS[value] for column, value in place.items()]
            stem = "-".join([name, *(f"ipc{value}" if column == "ipc" else value for column, value in place.items())])
            yield self._drawing(stem, part, across, ", ".join(words), said)

    def storage(self) -> Iterator[Drawing]:
        """Draw label bytes against images per class."""
        weights = self.rows[["method", "labels", "ipc"]].assign(bytes=self.rows["label_bytes"]).dropna()
        if self.rows["ipc"].nunique() > 1 and (weights["bytes"] > 0).any():
            canvas = storage(weights, self.rows.groupby("ipc")["image_bytes"].mean().dropna())
            canvas.axes[0].set(title="Label storage")
            said = "Measured bytes of what a student needs beside images and hard labels. Dashed: the encoded images."
            yield "storage", "Label storage against images per class", said, canvas

    def classes(self) -> Iterator[Drawing]:
        """Accuracy per class where predictions were kept, a heat map per IPC."""
        for ipc, part in self.rows.groupby("ipc"):
            if len(table := tables.by_class(part, self.records)):
                canvas = chart.heat_map(table, self.looks, by_column=False)
                canvas.axes[0].set(title=_images(ipc), xlabel="class")
                said = "Percent of the test images of each class, under the best labels of a method."
                yield f"classes-ipc{ipc}", f"Accuracy per class, {_images(ipc)}", said, canvas

    def _drawing(self, name: str, rows: pd.DataFrame, across: str, panel: str, said: str) -> Drawing:
        """Draw one panel; ``panel`` says what its rows share."""
        axis, label, title = AXES[across]
        title = f"Accuracy against {title}" + (f", {panel}" if panel else "")
        points = tables.best_labels(rows, across) if across in COUNTS else tables.frontier(rows, across)
        bars, full, up = points["n"] >= FEWEST, self.full["mean"].nlargest(1), self.rows["metric"].iloc[0]
        if across == "classes_seen":
            bars &= points[across] == points[across].max()  # more would hide the lines
            full = tables.by_step(self.full, self.records).set_index(across)["mean"]
            up = "top-1 on the classes seen"
        points = points.assign(
            line=points["method"], x=points[across], y=points["mean"],
            **{end: points[end].where(bars) for end in ("low", "high")},
            tip=[self._tip(one) + ("" if across == "ipc" else f", {axis.word(at)}")
                 for one, at in zip(points.itertuples(), points[across], strict=True)],
        )  # fmt: skip
        if across == "label_bytes":
            best = rows[(rows["label_bytes"] <= BUDGET) & with_baseline(rows)].nlargest(1, "mean")
            for one in best.itertuples():
                said = f"{self.looks[one.method].name}, {one.labels}, {one.mean:.1f} %. {said}"
                said = f"Best mean within {round_size(BUDGET)}, of labels with a measured baseline: {said}"
            printed = self.printed[self.printed["ipc"] == rows["ipc"].iloc[0]]
            tips = [f"† {self.looks[one.method].name}, {one.source}: {one.value:.1f} %, {size(one.bytes)}"
                    for one in printed.itertuples()]  # fmt: skip
            printed = printed.assign(
                line=printed["method"], x=printed["bytes"], y=printed["value"], kind="hollow", tip=tips
            )
            said += " Hollow: † published." if len(printed) else ""
            points = pd.concat([points, printed]) if len(printed) else points
        canvas = chart.lines(
            points, self.looks, axis, chart.ACCURACY, full.rename("Full data"), step=across not in COUNTS
        )
        up = "top-1 accuracy" if up == "top-1" else up
        canvas.axes[0].set(title=(panel or title).capitalize(), xlabel=label, ylabel=f"{up} (%)")
        first, counts = self.rows.iloc[0], self.rows["n"]
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
