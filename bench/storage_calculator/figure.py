"""The figure: label bytes against images per class, a line a way to label (HeLlO, arXiv 2408.08201, Figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report_legacy import wording
from bench.report_legacy.csv_text import csv_text
from bench.report_legacy.plots.canvas import SMALL, TOP, WIDTH, Sheet, drawable, dress, sheet
from bench.report_legacy.plots.draw import Plot
from bench.report_legacy.plots.scales import byte_scale, count_scale
from bench.report_legacy.plots.style import INK, MARKERS, PALETTE, short
from bench.storage_calculator.asked import Asked
from bench.storage_calculator.tables import Kept, kept
from bench.storage_calculator.weigh import Line, weigh

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEFT, RIGHT, HEIGHT = 0.72, 2.55, 4.4  # inches: before and after the axes, and of them
APART = 0.125  # inches between the middles of two names
NAMES = 40  # characters beside a line
HIDDEN = 0.1  # lines of the same labels that differ by no more are drawn as one


@dataclass(frozen=True)
class Curve:
    """A line: its name, colour, marker, dashes, and (IPC, bytes) from left to right."""

    name: str
    colour: str
    marker: str
    dashed: bool
    points: tuple[tuple[int, int], ...]


def figure(asked: Asked, stem: str) -> Plot:
    """The figure of an answer, to be drawn or held against one that was.

    Raises:
        UserError: as :func:`bench.storage_calculator.weigh.weigh`.
    """
    lines = weigh(asked)
    drawn = curves(lines)
    info = asked.info()
    subtitle = (
        f"{info.title}: {info.classes:,} classes at {info.image_size} px; by arithmetic, nothing was run",
        "what a student needs beside images and hard labels (0 bytes, not shown); public bases are counted apart",
    )
    title = "Label bytes against images per class"
    code = Path(__file__).read_text(encoding="utf-8")
    return Plot(stem, title, subtitle, _table(drawn), (code,), partial(_draw, title, subtitle, drawn))


def curves(lines: Sequence[Line]) -> list[Curve]:
    """The ways to label that weigh something, the heaviest first, and the images."""
    together: dict[str, list[tuple[Kept, tuple[tuple[int, int], ...]]]] = {}
    for one in kept(lines):
        points = tuple(sorted((line.ipc, line.label_bytes) for line in one.lines if line.label_bytes))
        near = together.setdefault(one.labels, [])
        if points and not any(_close(points, other) for _, other in near):
            near.append((one, points))
    found = [
        Curve(
            name=one.labels if len(near) == 1 else f"{one.labels} ({one.methods})", colour=PALETTE[turn % len(PALETTE)],
            marker=MARKERS[turn % len(MARKERS)], dashed=turn >= len(PALETTE), points=points,
        )
        for turn, (one, points, near) in enumerate((*each, near) for near in together.values() for each in near)
    ]  # fmt: skip
    images = tuple(sorted({(line.ipc, line.image_bytes) for line in lines}))
    return [*found, Curve("the images (estimate)", INK, "", True, images)]


def _close(some: tuple[tuple[int, int], ...], others: tuple[tuple[int, int], ...]) -> bool:
    """Would two lines hide each other?"""
    pairs = list(zip(some, others, strict=False))
    return len(some) == len(others) and all(a == b and abs(x - y) <= HIDDEN * max(x, y) for (a, x), (b, y) in pairs)


def _table(drawn: Sequence[Curve]) -> str:
    looks = {one.name: f"{one.colour} {one.marker} {'dashed' if one.dashed else 'solid'}" for one in drawn}
    return csv_text(
        ("labels", "ipc", "bytes", "look"),
        [(one.name, *point, looks[one.name]) for one in drawn for point in one.points],
    )


def _draw(title: str, subtitle: tuple[str, str], drawn: Sequence[Curve]) -> Sheet:
    made = sheet(TOP + HEIGHT + 0.6, title, subtitle)
    axes = made.axes(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT)
    across = count_scale([ipc for one in drawn for ipc, _ in one.points])
    up = byte_scale([size for one in drawn for _, size in one.points], 10)
    dress(axes, across, up, "images per class (log scale)", "label bytes (log scale)")
    for one in drawn:
        xs = [across.place(ipc) for ipc, _ in one.points]
        ys = [up.place(size) for _, size in one.points]
        axes.plot(xs, ys, color=one.colour, linewidth=1.3, linestyle="--" if one.dashed else "-", zorder=2)
        if one.marker:
            for (ipc, size), x, y in zip(one.points, xs, ys, strict=True):
                look: dict[str, Any] = {"markerfacecolor": one.colour, "markeredgecolor": INK, "markeredgewidth": 0.4}
                (mark,) = axes.plot(x, y, marker=one.marker, markersize=5, linestyle="none", zorder=3, **look)
                mark.set_gid(made.tip(f"{one.name}, IPC {ipc:,}: {wording.size(size)}"))
        made.notes.append(f"{one.name}: {', '.join(f'IPC {ipc:,} {wording.size(size)}' for ipc, size in one.points)}.")
    _name_lines(axes, drawn, [up.place(one.points[-1][1]) for one in drawn], up.limits)
    return made


def _name_lines(axes: Axes, drawn: Sequence[Curve], ends: Sequence[float], limits: tuple[float, float]) -> None:
    """The name of each line beside its end, with what it weighs there, moved apart where two would touch."""
    step = 2 * APART * (limits[1] - limits[0]) / HEIGHT
    order = sorted(range(len(drawn)), key=lambda index: -ends[index])
    places: list[float] = []
    for index in order:
        places.append(min(ends[index], places[-1] - step) if places else ends[index])
    for at in range(len(places) - 1, -1, -1):  # the lowest ones may have come too low
        floor = limits[0] + step / 2 if at == len(places) - 1 else places[at + 1] + step
        places[at] = max(places[at], floor)
    edge = axes.get_yaxis_transform()  # across in shares of the axes, up in their units
    for index, place in zip(order, places, strict=True):
        one = drawn[index]
        leader: dict[str, Any] = {"color": one.colour, "linewidth": 0.8, "clip_on": False, "transform": edge}
        axes.plot((1.0, 1.05), (ends[index], place), zorder=1, **leader)
        text = f"{drawable(short(one.name, NAMES))}\n{wording.size(one.points[-1][1])}"
        axes.text(1.06, place, text, va="center", size=SMALL, linespacing=1.05, transform=edge)
