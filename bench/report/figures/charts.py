"""Rows of a board → the data of its figures: accuracy against what labels weigh, IPC, time and steps; heat maps.

The protocol and student with the most rows have all of them under plain names; the others add what differs to their
names, and have only the figures of steps and of accuracy against label storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from bench.format import plural, round_size, slug
from bench.report.comparison import FEWEST
from bench.report.figures.looks import MARKERS, PALETTE, Look, looks
from bench.report.papers import published
from bench.report.winners import with_baseline
from bench.store.predictions import load

PLACE = ["protocol", "protocol_version", "student"]
BUDGET = 100 * 2**10  # bytes of labels; a caption names the best mean within
HEAVIEST = 24  # lines of label storage at most
NO_LINE = pd.Series(dtype="float64")
KINDS = {"hard": "hard labels", "stored": "stored labels", "online": "labels from a model"}


class Chart(NamedTuple):
    """A figure before it is drawn.

    Its ``form`` is *line* or *step* (a line keeps its height up to the next mark), with ``data`` of ``line``, ``x``,
    ``y``, ``low`` and ``high`` (of an interval, or NaN) and ``kind`` (empty: on the line; *pale* and *hollow*: apart);
    or it is *students* or *classes*, heat maps with a row of percentages per method.
    """

    name: str  # of its file
    title: str
    caption: str
    head: str  # above the axes
    form: str
    data: pd.DataFrame
    looks: Mapping[str, Look]  # by line or row
    x: tuple[str, str] = ("", "")  # kind of the axis, see bench.report.figures.drawing.set_scale, and its name
    y: tuple[str, str] = ("percent", "")
    reference: pd.Series = NO_LINE  # x → y, dashed; a single value goes all the way

    @property
    def digest(self) -> str:
        """Digest of all that is drawn, and of what draws it."""
        used = {*self.data.get("line", self.data.index)}
        looks = sorted(look for name, look in self.looks.items() if name in used)
        tables = [one.to_csv(float_format="%.6g") for one in (self.data, self.reference.to_frame("y"))]
        text = repr((self.form, self.head, self.x, self.y, self.reference.name, looks, tables))
        drawn_by = [Path(__file__).with_name(name).read_bytes() for name in ("drawing.py", "bench.mplstyle")]
        return sha256(b"\0".join([text.encode(), *drawn_by])).hexdigest()[:16]


class Panel(NamedTuple):
    """Accuracy against a column of rows, a chart for each value of ``by``."""

    across: str
    kind: str  # of the x-axis
    label: str
    by: str | None
    said: str
    everywhere: bool = False  # for other protocols and students as well


FRONTIER = "Lines: the best mean within a budget. Pale: other label choices."
PANELS = {
    "steps": Panel("classes_seen", "classes", "classes seen", "kind",
                   "After each step a new student learns from the images of all classes seen.", True),
    "labels": Panel("label_high", "bytes", "label storage", "ipc", FRONTIER, True),
    "ipc": Panel("ipc", "ipc", "images per class", "kind", "Lines: the best label choice of each method."),
    "bytes": Panel("bytes", "bytes", "images + labels + frozen backbones", None, f"All images per class. {FRONTIER}"),
    "time": Panel("seconds_total", "seconds", "wall time of all cells behind a student", None,
                  f"All images per class. {FRONTIER}"),
}  # fmt: skip


def of_board(rows: pd.DataFrame, records: pd.DataFrame) -> Iterator[Chart]:
    """Return the charts of one data set; rows without an accuracy are in none."""
    known = rows[rows["top1_mean"].notna()]
    known = known.assign(
        **{name: 100 * known[f"top1_{name}"] for name in ("mean", "low", "high")},
        bytes=known[["image_bytes", "label_high", "public_bytes"]].sum(axis=1, skipna=False),
        kind=pd.Categorical(known["labels"].map(_kind), list(KINDS)),
    )
    distilled = known[known["ipc"].notna()]
    printed = published.load()
    printed = printed[(printed["dataset"] == rows["dataset"].iloc[0]) & (printed["variant"] == "")]
    printed = printed.assign(label_high=printed["label_bytes"].fillna(printed["printed_bytes"]), mean=printed["value"])
    styles = looks([*known["method"], *printed["method"]])
    yield from _students(distilled, styles)
    in_steps = records["steps"].astype(bool).any()
    varying = [name for name in PLACE if known[name].nunique() > 1]
    parts = sorted((part for _, part in distilled.groupby(PLACE)), key=len, reverse=True)
    for turn, part in enumerate(parts):
        first = part.iloc[0]
        full = known[known["ipc"].isna() & (known[PLACE] == first[PLACE]).all(axis=1)]
        fits = printed["runs_as"].map(first["protocol"].startswith).astype(bool) & printed["label_high"].notna()
        theirs = printed[fits & (printed["student"] == first["student"])].drop_duplicates(["method", "ipc", "mean"])
        tail = "-" + slug("-".join(str(first[name]) for name in varying)) if turn else ""
        for name, panel in PANELS.items():
            if (panel.everywhere or not turn) and (name != "steps" or in_steps):
                for one in _panels(name, panel, part, full, theirs, styles, records):
                    yield one._replace(name=f"{one.name}{tail}")
    if parts:
        weights = parts[0][["method", "labels", "ipc"]].assign(bytes=parts[0]["label_high"]).dropna()
        if weights["ipc"].nunique() > 1 and (weights["bytes"] > 0).any():
            yield storage(weights, parts[0].groupby("ipc")["image_bytes"].mean().dropna())
        yield from _classes(parts[0], styles, records)


def _kind(labels: str) -> str:
    """``hard``, ``stored`` or ``online`` (a model labels any view)."""
    return labels if labels == "hard" else "stored" if labels.startswith(("stored:", "static:")) else "online"


def _panels(
    name: str, panel: Panel, rows: pd.DataFrame, full: pd.DataFrame, printed: pd.DataFrame,
    styles: Mapping[str, Look], records: pd.DataFrame,
) -> Iterator[Chart]:  # fmt: skip
    """Accuracy against a column.

    Args:
        rows: of one student under one protocol; full: of the whole training set; printed: by papers.
    """
    first, reference, by = rows.iloc[0], full["mean"].nlargest(1), [panel.by] if panel.by else []
    up = "top-1 accuracy" if first["metric"] == "top-1" else first["metric"]
    fewest, most = rows["n"].min(), rows["n"].max()
    sets = str(most) if most == fewest else f"{fewest}–{most}"
    bars = f", bars 95 % intervals where n ≥ {FEWEST}" if most >= FEWEST else ""
    foot = (f"Marks: means of n = {sets} distilled sets{bars}. Student {first['student']}, protocol "
            f"{first['protocol']}, version {first['protocol_version']}.")  # fmt: skip
    if name == "steps":
        by, up = ["ipc", *by], "top-1 on the classes seen"
        rows, reference = by_step(rows, records), by_step(full, records).set_index(panel.across)["mean"]
    rows = rows[rows[panel.across].notna()]
    if rows[panel.across].nunique() < (2 if name == "ipc" else 1):
        return
    for key, part in rows.groupby(by, observed=True) if by else iter([((), rows)]):
        words = ", ".join(KINDS.get(value) or f"{plural(value, 'image')} per class" for value in key)
        stem = [f"ipc{value}" if column == "ipc" else value for column, value in zip(by, key, strict=True)]
        caption = f"{panel.said} {foot}"
        points = on_lines(part, panel.across)
        # more bars would hide the lines of steps
        drawn = (points["n"] >= FEWEST) & ((name != "steps") | (points[panel.across] == points[panel.across].max()))
        points[["low", "high"]] = points[["low", "high"]].where(drawn)
        if name == "labels":
            theirs = printed[printed["ipc"] == key[0]].assign(kind="hollow")
            points = pd.concat([points, theirs]) if len(theirs) else points
            caption = caption.replace(FRONTIER, f"{FRONTIER} Hollow: † published.") if len(theirs) else caption
            for one in part[(part["label_high"] <= BUDGET) & with_baseline(part)].nlargest(1, "mean").itertuples():
                best = f"{styles[one.method].name}, {one.labels}, {one.mean:.1f} %"
                said = f"Best mean within {round_size(BUDGET)}, of labels with a measured baseline: {best}."
                caption = f"{said} {caption}"
        points = points.rename(columns={"method": "line", panel.across: "x", "mean": "y"})
        yield Chart(
            "-".join([name, *stem]), f"Accuracy against {panel.label}{', ' * bool(words)}{words}", caption,
            (words or f"against {panel.label}").capitalize(), "line" if name in ("steps", "ipc") else "step",
            points[["line", "x", "y", "low", "high", "kind"]].astype({"x": "float64"}), styles,
            (panel.kind, panel.label), ("percent", f"{up} (%)"), reference.rename("Full data"),
        )  # fmt: skip


def on_lines(rows: pd.DataFrame, across: str) -> pd.DataFrame:
    """Sort rows; a line joins the best label choices of a method, or those no cheaper one reaches (else pale)."""
    if across in ("classes_seen", "ipc"):
        return rows.sort_values("mean").groupby(["method", across]).tail(1).sort_values(across).assign(kind="")
    ordered = rows.sort_values([across, "mean"], ascending=[True, False])
    best = ordered.groupby("method")["mean"].cummax().groupby(ordered["method"]).shift(fill_value=-1.0)
    return ordered.assign(kind=(ordered["mean"] > best).map({True: "", False: "pale"}))


def by_step(rows: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Average after each step (``classes_seen``) over students, then over distilled sets, with intervals from these."""
    steps = records[["cell", "seed", "steps"]].explode("steps").dropna(subset=["steps"])
    steps = steps.assign(classes_seen=steps["steps"].str[0], value=100 * steps["steps"].str[1].astype("float64"))
    place = ["method", "labels", "ipc", "kind", "classes_seen"]
    own = rows[[*place[:-1], "cells"]].explode("cells").merge(steps, left_on="cells", right_on="cell")
    sets = own.groupby([*place, "seed"], dropna=False, observed=True)["value"].mean()
    means = sets.groupby(level=place, dropna=False, observed=True).agg(mean="mean", n="size", std="std").reset_index()
    half = stdtrit(means["n"] - 1, 0.975) * means["std"] / means["n"] ** 0.5
    return means.assign(low=means["mean"] - half, high=means["mean"] + half)


def _classes(rows: pd.DataFrame, styles: Mapping[str, Look], records: pd.DataFrame) -> Iterator[Chart]:
    """Accuracies per class where predictions were kept, a heat map per IPC."""
    own = rows.sort_values("mean", ascending=False).reset_index(names="row")[["row", "ipc", "method", "cells"]]
    own = own.explode("cells").merge(
        records[records["predictions"] != ""], left_on="cells", right_on="cell", suffixes=("", "_")
    )
    own = own[own["row"] == own.groupby(["ipc", "method"])["row"].transform("first")]  # the best labels of a method
    kept = {
        cell: one for file, cells in own.groupby("predictions")["cell"] for cell, one in load(Path(file), cells).items()
    }
    right = {  # of class-incremental evaluations the last step counts
        cell: 100 * np.bincount(true, np.atleast_2d(guess)[-1] == true) / np.bincount(true)
        for cell, (guess, true) in kept.items()
    }
    for ipc, part in own[own["cell"].isin(right)].groupby("ipc"):
        table = pd.DataFrame([right[cell] for cell in part["cell"]]).groupby(part["method"].tolist()).mean()
        head, said = (
            f"{plural(ipc, 'image')} per class",
            "Percent of the test images of each class, under the best labels of a method.",
        )
        yield Chart(
            f"classes-ipc{ipc}", f"Accuracy per class, {head}", said, head, "classes", table, styles, ("", "class")
        )


def _students(rows: pd.DataFrame, styles: Mapping[str, Look]) -> Iterator[Chart]:
    """Students × methods under the protocol that has most students, a heat map per IPC."""
    students = rows.groupby("protocol")["student"].nunique()
    if not len(students) or students.max() < 2:
        return
    said = "Means in percent under the best labels of a method; colours from a student's worst to its best."
    for ipc, part in rows[rows["protocol"] == students.idxmax()].groupby("ipc"):
        table = part.pivot_table(index="method", columns="student", values="mean", aggfunc="max")
        head, caption = f"{plural(ipc, 'image')} per class", f"{said} Protocol {students.idxmax()}."
        yield Chart(f"students-ipc{ipc}", f"Students and methods, {head}", caption, head, "students", table, styles)


def storage(weights: pd.DataFrame, images: pd.Series) -> Chart:
    """Label bytes (rows of method, labels, ipc, bytes) and, dashed, the bytes of the images (by IPC) against IPC.

    Methods whose labels weigh (nearly) the same share the line of a label choice; hard labels of no bytes have none.
    """
    table = weights.assign(labels=weights["labels"].str.partition(" of ")[0], bytes=weights["bytes"].astype(float))
    table = table.pivot_table(index=["labels", "method"], columns="ipc", values="bytes")
    table = table[table.max(axis=1) > 0]
    table = table[~np.log2(table).mul(4).round().reset_index("labels").duplicated().to_numpy()]  # within a fifth
    choices = table.index.get_level_values("labels")
    table.index = pd.Index([f"{labels} ({method})" if (choices == labels).sum() > 1 else labels
                            for labels, method in table.index], name="line")  # fmt: skip
    table = table.loc[table.max(axis=1).nlargest(HEAVIEST).index]
    styles = {name: Look(name, PALETTE[turn % len(PALETTE)], MARKERS[turn % len(MARKERS)])
              for turn, name in enumerate(table.index)}  # fmt: skip
    points = table.rename_axis(columns="x").stack().dropna().rename("y").reset_index()
    points = points.assign(low=np.nan, high=np.nan, kind="")
    said = "Measured bytes of what a student needs beside images and hard labels. Dashed: the encoded images."
    return Chart(
        "storage", "Label storage against images per class", said, "Label storage", "line", points, styles,
        ("ipc", "images per class"), ("bytes", "label storage"), images.astype("float64").rename("images"),
    )  # fmt: skip
