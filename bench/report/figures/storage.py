"""Label bytes against images per class: a line per way to store labels (HeLlO, arXiv 2408.08201, Figure 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from bench.format import size
from bench.report.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MOST = 24  # lines, the heaviest
ALIKE = 1.1  # lines whose bytes differ by no more than this factor are drawn as one


def distinct(weights: pd.DataFrame) -> pd.DataFrame:
    """One line per label choice and different weight: rows of name, ipc and bytes from rows of method, labels, ipc and
    bytes. Methods whose labels weigh (nearly) the same share a line; others have their names in it.
    """
    weights = weights.assign(labels=weights["labels"].str.partition(" of ")[0])  # the labelled model adds no bytes
    table = weights.pivot_table(index=["labels", "method"], columns="ipc", values="bytes")
    kept: dict[str, list[tuple[str, pd.Series]]] = {}
    for (labels, method), line in table[table.max(axis=1) > 0].iterrows():
        near = kept.setdefault(labels, [])
        if not any(((line / other).dropna().between(1 / ALIKE, ALIKE)).all() for _, other in near):
            near.append((method, line))
    named = {
        labels if len(near) == 1 else f"{labels} ({method})": line
        for labels, near in kept.items()
        for method, line in near
    }
    return (
        pd.DataFrame(named)
        .rename_axis("ipc")
        .melt(var_name="name", value_name="bytes", ignore_index=False)
        .dropna()
        .reset_index()
    )


def draw(lines: pd.DataFrame, images: pd.Series) -> Canvas:
    """Draw lines of name, ipc and bytes; ``images``: IPC → bytes of the images, a dashed line."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas()
    canvas.subplots_adjust(left=0.2)
    axes = canvas.subplots()
    heaviest = lines.groupby("name")["bytes"].max().sort_values(ascending=False).head(MOST)
    style.bytes_axis(axes, [*lines["bytes"], *images], "y")
    axes.set_xscale("log")
    ends: list[tuple[float, str, style.Look]] = []
    for turn, name in enumerate(heaviest.index):
        look = style.Look(name, style.PALETTE[turn % len(style.PALETTE)], style.MARKERS[turn % len(style.MARKERS)])
        own = lines[lines["name"] == name].sort_values("ipc")
        axes.plot(own["ipc"], own["bytes"], color=look.colour, linestyle="-" if turn < len(style.PALETTE) else ":")
        for row in own.itertuples():
            style.mark(axes, (row.ipc, row.bytes), look, f"{name}, IPC {row.ipc:,}: {size(row.bytes)}")
        ends.append((own["bytes"].iloc[-1], f"{style.short(name)} {size(own['bytes'].iloc[-1])}", look))
    if len(images):
        axes.plot(images.index, images.to_numpy(), color=style.GREY, linestyle=style.DASHED, linewidth=1)
        ends.append((images.iloc[-1], f"images {size(images.iloc[-1])}", style.Look("images", style.GREY, "")))
    places = sorted(lines["ipc"].unique())
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.tick_params("x", which="minor", bottom=False)
    axes.set(xlabel="images per class", ylabel="label storage")
    style.name_lines(axes, ends)
    return canvas
