"""Which figures a board has, their names, titles and captions.

The protocol and student with the most rows have the plain names; the others add what differs, and have only the figures
of accuracy against label storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from bench.format import plural, round_size, size, slug
from bench.report.figures import frontier, heatmap, lines, storage, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

CHART = ["protocol", "protocol_version", "student"]
BUDGET = 100 * 2**10  # bytes of labels; the text of a figure names the best method within
KINDS = {"hard": "hard labels", "stored": "stored labels", "online": "labels from a model"}
FRONTIER = "Lines: the best mean within a budget. Pale: other label choices."


class Drawing(NamedTuple):
    """A figure before it is written; ``name`` without the folder."""

    name: str
    title: str
    caption: str
    canvas: Canvas
    alt: str


def drawings(rows: pd.DataFrame, records: pd.DataFrame | None) -> Iterator[Drawing]:
    """The figures of pooled rows of one data set, the ones of label storage first."""
    percents = {name: 100 * rows[f"top1_{name}"].astype("float64") for name in ("mean", "low", "high")}
    known = rows.assign(**percents, kind=rows["labels"].map(_kind)).loc[lambda table: table["mean"].notna()].reset_index(drop=True)
    looks = style.looks(known["method"])
    found = sorted((part for _, part in known[known["ipc"].notna()].groupby(CHART)), key=lambda part: -len(part))
    varying = [name for name in CHART if known[name].nunique() > 1]
    for place, part in enumerate(found):
        same = (known[CHART] == part[CHART].iloc[0]).all(axis=1)
        chart = Chart(part, known[same & known["ipc"].isna()], looks)
        tail = "-" + slug("-".join(str(part[name].iloc[0]) for name in varying)) if place else ""
        steps = [] if records is None else chart.steps(records)
        maps = [] if records is None or place else chart.classes(records)
        for one in [*steps, *chart.budgets(), *([] if place else chart.others()), *maps]:
            yield one._replace(name=one.name + tail)
    yield from _students(known, looks)


def _kind(labels: str) -> str:
    """``hard``, ``stored`` or ``online`` (a model labels any view)."""
    return labels if labels == "hard" else "stored" if labels.startswith(("stored:", "static:")) else "online"


def _images(ipc: int) -> str:
    return f"{plural(ipc, 'image')} per class"


@dataclass(frozen=True)
class Chart:
    """The rows of one student under one protocol; ``full``: of the whole training set there."""

    rows: pd.DataFrame
    full: pd.DataFrame
    looks: Mapping[str, style.Look]

    @property
    def top(self) -> float | None:
        """The accuracy of the whole training set in percent."""
        return float(self.full["mean"].max()) if len(self.full) else None

    @property
    def axis(self) -> str:
        """What stands beside an axis of accuracies."""
        metric = self.rows["metric"].iloc[0]
        return "top-1 accuracy (%)" if metric == "top-1" else f"{metric} (%)"

    def caption(self, said: str, bars: bool = True) -> str:
        """What marks and bars are, of which data set, student and protocol."""
        first, counts = self.rows.iloc[0], self.rows["n"]
        sets = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
        bars = ", bars 95 % intervals" if bars and counts.max() >= style.FEWEST else ""
        protocol = f"protocol {first['protocol']}, version {first['protocol_version']}"
        return f"{said} Marks: means of n = {sets} distilled sets{bars}. Student {first['student']}, {protocol}."

    def budgets(self) -> Iterator[Drawing]:
        """Accuracy against label bytes, a figure for each number of images per class."""
        for ipc, part in self.rows[self.rows["label_bytes"].notna()].groupby("ipc"):
            canvas = frontier.draw(part, "label_bytes", self.looks, style.bytes_axis, size, self.top)
            canvas.axes[0].set(title=_images(ipc), xlabel="label storage", ylabel=self.axis)
            title = f"Accuracy against label storage, {_images(ipc)}"
            within = part[part["label_bytes"] <= BUDGET].sort_values("mean")
            best = within.iloc[-1] if len(within) else None
            said = "" if best is None else (
                f" Within {round_size(BUDGET)} of labels {self.looks[best['method']].name} is best: {best['mean']:.1f} % with "
                f"{best['labels']} labels."
            )  # fmt: skip
            yield Drawing(f"labels-ipc{ipc}", title, self.caption(f"{said.strip()} {FRONTIER}".strip()), canvas, f"{title}.{said}")

    def others(self) -> Iterator[Drawing]:
        """Accuracy against images per class, all bytes and time; label bytes against images per class."""
        if self.rows["ipc"].nunique() > 1:
            for kind in [kind for kind in KINDS if kind in set(self.rows["kind"])]:
                part = self.rows[self.rows["kind"] == kind]
                title = f"Accuracy against images per class, {KINDS[kind]}"
                spots = sorted(self.rows["ipc"].unique())
                canvas = lines.draw(part, "ipc", self.looks, dict.fromkeys(spots, self.top) if self.top else {}, True)
                canvas.axes[0].set(title=KINDS[kind].capitalize(), xlabel="images per class", ylabel=self.axis)
                said = "Lines: the best label choice of each method."
                yield Drawing(f"ipc-{kind}", title, self.caption(said), canvas, title)
        every = self.rows.assign(all_bytes=self.rows[["image_bytes", "label_bytes", "public_bytes"]].sum(axis=1, skipna=False))
        for name, cost, title, label, scale, word in (
            ("bytes", "all_bytes", "Accuracy against all bytes", "images + labels + frozen backbones", style.bytes_axis, size),
            ("time", "seconds_total", "Accuracy against time", "wall time of all cells behind a student", style.seconds_axis, style.duration),
        ):  # fmt: skip
            part = every[every[cost].notna()]
            if len(part):
                canvas = frontier.draw(part, cost, self.looks, scale, word, self.top)
                canvas.axes[0].set(title=title, xlabel=label, ylabel=self.axis)
                yield Drawing(name, title, self.caption(f"All numbers of images per class. {FRONTIER}"), canvas, title)
        weights = self.rows.rename(columns={"label_bytes": "bytes"})[["method", "labels", "ipc", "bytes"]].dropna()
        if len(curves := storage.distinct(weights)) and self.rows["ipc"].nunique() > 1:
            images = self.rows.groupby("ipc")["image_bytes"].mean().dropna()
            canvas = storage.draw(curves, images if len(images) else None)
            title = "Label storage against images per class"
            said = "Measured bytes of what a student needs beside images and hard labels, a line per way to label."
            yield Drawing("storage", title, f"{said} Dashed: the encoded images.", canvas, title)

    def steps(self, records: pd.DataFrame) -> Iterator[Drawing]:
        """Accuracy against classes seen, where classes arrive in steps, for each number of images and kind of labels."""
        found = lines.by_step(self.rows, records)
        full = lines.by_step(self.full, records).set_index("classes_seen")["mean"].to_dict() if len(self.full) else {}
        for (ipc, kind), part in found.groupby(["ipc", "kind"]):
            title = f"Accuracy against classes seen, {_images(ipc)}, {KINDS[kind]}"
            canvas = lines.draw(part, "classes_seen", self.looks, full, False)
            canvas.axes[0].set(title=f"{_images(ipc)}, {KINDS[kind]}", xlabel="classes seen", ylabel="top-1 on the classes seen (%)")
            said = "After each step a new student learns from the images of all classes seen."
            yield Drawing(f"steps-ipc{ipc}-{kind}", title, self.caption(said), canvas, title)


    def classes(self, records: pd.DataFrame) -> Iterator[Drawing]:
        """Heat maps of methods × classes, where predictions were kept."""
        for ipc, part in self.rows.groupby("ipc"):
            table = heatmap.by_class(part, records)
            if len(table):
                title = f"Accuracy per class, {_images(ipc)}"
                table = table.loc[style.by_name(table.index, self.looks)[::-1]]
                canvas = heatmap.draw(table.rename(index=lambda method: style.short(self.looks[method].name)), False)
                canvas.axes[0].set(title=_images(ipc), xlabel="class")
                said = "Accuracy in percent under the best labels of each method."
                yield Drawing(f"classes-ipc{ipc}", title, self.caption(said), canvas, title)


def _students(known: pd.DataFrame, looks: Mapping[str, style.Look]) -> Iterator[Drawing]:
    """Heat maps of students × methods under the protocol that has most of them."""
    ours = known[known["ipc"].notna()]
    if not len(ours) or ours["student"].nunique() < 2:
        return
    protocol = ours.groupby("protocol")["student"].nunique().idxmax()
    for ipc, part in ours[ours["protocol"] == protocol].groupby("ipc"):
        table = part.pivot_table(index="method", columns="student", values="mean", aggfunc="max")
        if table.shape[1] > 1:
            table = table.loc[style.by_name(table.index, looks)[::-1]]
            title = f"Students and methods, {_images(ipc)}"
            canvas = heatmap.draw(table.rename(index=lambda method: style.short(looks[method].name), columns=style.short), True)
            canvas.axes[0].set(title=_images(ipc))
            said = f"Means in percent under the best labels of a method; colours from a student's worst to its best. Protocol {protocol}."
            yield Drawing(f"students-ipc{ipc}", title, said, canvas, title)
