"""The figures of one board as SVG: pure functions of its rows, the same bytes on every run.

The protocol and student with the most rows have all of them under plain names; the others add what differs to their
names, and have only the figures of steps and of accuracy against label storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.format import plural, round_size, slug
from bench.report.figures import charts
from bench.report.figures.charts import Look, looks
from bench.report.figures.tables import by_step, label_lines, on_lines
from bench.report.papers import published
from bench.report.winners import with_baseline
from bench.store.predictions import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

PLACE = ["protocol", "protocol_version", "student"]
BUDGET = 100 * 2**10  # bytes of labels; a caption names the best mean within
FEWEST = 3  # distilled sets behind an interval that is drawn
HEAVIEST = 24  # lines of label storage at most
KINDS = {"hard": "hard labels", "stored": "stored labels", "online": "labels from a model"}
STEPS = "After each step a new student learns from the images of all classes seen."
BEST = "Lines: the best label choice of each method."
FRONTIER = "Lines: the best mean within a budget. Pale: other label choices."
# name → column on the x-axis, kind of that axis, its name, what has figures of its own, what a caption says
PANELS: dict[str, tuple[str, str, str, list[str], str]] = {
    "steps": ("classes_seen", "classes", "classes seen", ["ipc", "kind"], STEPS),
    "labels": ("label_high", "bytes", "label storage", ["ipc"], FRONTIER),
    "ipc": ("ipc", "ipc", "images per class", ["kind"], BEST),
    "bytes": ("bytes", "bytes", "images + labels + frozen backbones", [], f"All images per class. {FRONTIER}"),
    "time": ("seconds_total", "seconds", "wall time of all cells behind a student", [],
             f"All images per class. {FRONTIER}"),
}  # fmt: skip
EVERYWHERE = ("steps", "labels")  # for other protocols and students as well

Drawing = tuple[str, str, str, "Canvas"]  # name without the folder, title, caption


@dataclass(frozen=True)
class Figure:
    """One figure as it was written."""

    name: str  # of its file without the ending: "digits/labels-ipc10"
    title: str
    caption: str
    svg: str

    @property
    def alt(self) -> str:
        """Title and first sentence, in place of the picture."""
        return f"{self.title}. {self.caption.partition('. ')[0]}."


def draw_figures(rows: pd.DataFrame, records: pd.DataFrame, folder: Path, png: bool = False) -> list[Figure]:
    """Write the figures of one data set below ``folder``; return them in the order a page shows them.

    Args:
        rows: pooled rows (:mod:`bench.report.rows`); what has no accuracy is left out.
        records: the records behind them, for classes that arrive in steps and accuracies per class.
        png: also write each figure as a PNG.
    """
    found, place = [], slug(rows["dataset"].iloc[0])
    with charts.applied():
        for name, title, caption, canvas in drawings(rows, records):
            svg = charts.save(canvas, folder / place / f"{name}.svg", png)
            found.append(Figure(f"{place}/{name}", title, caption, svg))
    return found


def draw_storage(weights: pd.DataFrame, images: pd.Series, path: Path, png: bool = False) -> str:
    """Write the figure of label bytes against images per class to ``path`` (``.svg``); return its text.

    Args:
        weights: rows of method, labels, ipc and bytes; equal ones share a line, hard labels of no bytes have none.
        images: IPC → bytes of the images, a dashed line.
    """
    with charts.applied():
        return charts.save(_storage(weights, images), path, png)


def drawings(rows: pd.DataFrame, records: pd.DataFrame) -> Iterator[Drawing]:
    """Draw all figures."""
    known = rows[rows["top1_mean"].notna()]
    known = known.assign(
        **{name: 100 * known[f"top1_{name}"] for name in ("mean", "low", "high")},
        bytes=known[["image_bytes", "label_high", "public_bytes"]].sum(axis=1, skipna=False),
        kind=pd.Categorical(known["labels"].map(_kind), list(KINDS)),
    )
    distilled = known[known["ipc"].notna()]
    printed = published.load()
    printed = printed[(printed["dataset"] == rows["dataset"].iloc[0]) & (printed["variant"] == "")]
    printed = printed.assign(
        x=printed["label_bytes"].fillna(printed["printed_bytes"]).astype("float64"), y=printed["value"]
    )
    styles = looks([*known["method"], *printed["method"]])
    varying = [name for name in PLACE if known[name].nunique() > 1]
    yield from _students(distilled, styles)
    parts = sorted((part for _, part in distilled.groupby(PLACE)), key=lambda part: -len(part))
    for turn, part in enumerate(parts):
        first = part.iloc[0]
        full = known[known["ipc"].isna() & (known[PLACE] == first[PLACE]).all(axis=1)]
        fits = printed["runs_as"].map(first["protocol"].startswith).astype(bool) & printed["x"].notna()
        theirs = printed[fits & (printed["student"] == first["student"])].drop_duplicates(["method", "ipc", "y"])
        tail = "-" + slug("-".join(str(first[name]) for name in varying)) if turn else ""
        for name in EVERYWHERE if turn else PANELS:
            for stem, *rest in _panels(name, part, full, theirs, styles, records):
                yield (f"{stem}{tail}", *rest)  # type: ignore[misc]
    if parts:
        yield from _more(parts[0], styles, records)


def _kind(labels: str) -> str:
    """``hard``, ``stored`` or ``online`` (a model labels any view)."""
    return labels if labels == "hard" else "stored" if labels.startswith(("stored:", "static:")) else "online"


def _images(ipc: int) -> str:
    return f"{plural(ipc, 'image')} per class"


def _panels(
    name: str, rows: pd.DataFrame, full: pd.DataFrame, printed: pd.DataFrame, styles: Mapping[str, Look],
    records: pd.DataFrame,
) -> Iterator[Drawing]:  # fmt: skip
    """Draw accuracy against a column, a figure per IPC or kind of labels.

    Args:
        rows: of one student under one protocol; full: of the whole training set; printed: by papers.
    """
    across, kind, label, by, said = PANELS[name]
    first, metric, most = rows.iloc[0], rows["metric"].iloc[0], rows["n"].max()
    up = "top-1 accuracy" if metric == "top-1" else metric
    reference = full["mean"].nlargest(1)
    sets = "–".join(dict.fromkeys(map(str, (rows["n"].min(), most))))
    bars = f", bars 95 % intervals where n ≥ {FEWEST}" if most >= FEWEST else ""
    foot = (
        f"Marks: means of n = {sets} distilled sets{bars}. Student {first['student']}, protocol {first['protocol']}, "
    )
    foot += f"version {first['protocol_version']}."
    if name == "steps":
        rows, up = by_step(rows, records), "top-1 on the classes seen"
        reference = by_step(full, records).set_index(across)["mean"]
    rows = rows[rows[across].notna()]
    if rows[across].nunique() < (2 if name == "ipc" else 1):
        return
    for key, part in rows.groupby(by, observed=True) if by else [((), rows)]:
        words = ", ".join(KINDS.get(value) or _images(value) for value in key)
        stem = "-".join(
            [name, *(f"ipc{value}" if column == "ipc" else value for column, value in zip(by, key, strict=True))]
        )
        points = on_lines(part, across).assign(line=lambda one: one["method"])
        points = points.assign(x=points[across].astype("float64"), y=points["mean"])
        # more bars would hide the lines of steps
        drawn = (points["n"] >= FEWEST) & ((name != "steps") | (points["x"] == points["x"].max()))
        points = points.assign(low=points["low"].where(drawn), high=points["high"].where(drawn))
        caption = f"{said} {foot}"
        if name == "labels":
            theirs = printed[printed["ipc"] == part["ipc"].iloc[0]].assign(
                line=lambda one: one["method"], kind="hollow"
            )
            points = pd.concat([points, theirs]) if len(theirs) else points
            caption = caption.replace(FRONTIER, f"{FRONTIER} Hollow: † published.") if len(theirs) else caption
            for one in part[(part["label_high"] <= BUDGET) & with_baseline(part)].nlargest(1, "mean").itertuples():
                best = f"{styles[one.method].name}, {one.labels}, {one.mean:.1f} %"
                caption = (
                    f"Best mean within {round_size(BUDGET)}, of labels with a measured baseline: {best}. {caption}"
                )
        step = name not in ("steps", "ipc")
        canvas = charts.lines(points, styles, (kind, "percent"), reference.rename("Full data"), step)
        canvas.axes[0].set(title=(words or f"against {label}").capitalize(), xlabel=label, ylabel=f"{up} (%)")
        yield stem, f"Accuracy against {label}{', ' * bool(words)}{words}", caption, canvas


def _more(rows: pd.DataFrame, styles: Mapping[str, Look], records: pd.DataFrame) -> Iterator[Drawing]:
    """Draw label bytes against images per class, and accuracies per class where predictions were kept."""
    weights = rows[["method", "labels", "ipc"]].assign(bytes=rows["label_high"]).dropna()
    images = rows.groupby("ipc")["image_bytes"].mean().dropna().astype("float64")
    if rows["ipc"].nunique() > 1 and (weights["bytes"] > 0).any():
        canvas = _storage(weights, images)
        said = "Measured bytes of what a student needs beside images and hard labels. Dashed: the encoded images."
        yield "storage", "Label storage against images per class", said, canvas
    files = records.set_index("cell")["predictions"]
    for ipc, part in rows.groupby("ipc"):
        found: dict[str, np.ndarray[Any, Any]] = {}
        for row in part.sort_values("mean", ascending=False).itertuples():
            kept = [one for cell in row.cells if files.get(cell) for one in load(Path(files[cell]), [cell]).values()]
            if kept and row.method not in found:  # of class-incremental evaluations the last step counts
                right = [
                    np.bincount(true, np.atleast_2d(guess)[-1] == true) / np.bincount(true) for guess, true in kept
                ]
                found[row.method] = 100 * np.mean(right, axis=0)
        if found:
            canvas = charts.heat_map(pd.DataFrame.from_dict(found, orient="index"), styles, by_column=False)
            canvas.axes[0].set(title=_images(ipc), xlabel="class")
            said = "Percent of the test images of each class, under the best labels of a method."
            yield f"classes-ipc{ipc}", f"Accuracy per class, {_images(ipc)}", said, canvas


def _students(rows: pd.DataFrame, styles: Mapping[str, Look]) -> Iterator[Drawing]:
    """Students × methods under the protocol that has most students, a heat map per IPC."""
    students = rows.groupby("protocol")["student"].nunique()
    if not len(students) or students.max() < 2:
        return
    for ipc, part in rows[rows["protocol"] == students.idxmax()].groupby("ipc"):
        table = part.pivot_table(index="method", columns="student", values="mean", aggfunc="max")
        canvas = charts.heat_map(table, styles, by_column=True)
        canvas.axes[0].set(title=_images(ipc))
        said = "Means in percent under the best labels of a method; colours from a student's worst to its best."
        title = f"Students and methods, {_images(ipc)}"
        yield f"students-ipc{ipc}", title, f"{said} Protocol {students.idxmax()}.", canvas


def _storage(weights: pd.DataFrame, images: pd.Series) -> Canvas:
    """Draw label bytes (rows of method, labels, ipc, bytes) and the bytes of the images (by IPC) against IPC."""
    points = label_lines(weights)
    heaviest = points.groupby("line")["y"].max().nlargest(HEAVIEST).index
    styles = {name: Look(name, charts.PALETTE[turn % len(charts.PALETTE)], charts.MARKERS[turn % len(charts.MARKERS)])
              for turn, name in enumerate(heaviest)}  # fmt: skip
    points = points[points["line"].isin(heaviest)].assign(low=np.nan, high=np.nan, kind="")
    canvas = charts.lines(points, styles, ("ipc", "bytes"), images.rename("images"))
    canvas.subplots_adjust(left=0.2)
    canvas.axes[0].set(title="Label storage", xlabel="images per class", ylabel="label storage")
    return canvas
