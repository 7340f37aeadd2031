"""Rows of a board → the points of plots, and the CSV of what a plot shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.report_legacy.board import Row
from bench.report_legacy.csv_text import csv_text
from bench.report_legacy.fronts import pareto


@dataclass(frozen=True)
class Published:
    """A published number, drawn hollow beside the measured ones and never on a front.

    ``accuracy`` and ``std`` are fractions; bytes are None where nobody can say them. ``student`` and
    ``protocol`` are those of the figure it belongs to.
    """

    method: str
    labels: str
    ipc: int | None
    student: str
    protocol: str
    accuracy: float
    std: float | None = None
    label_bytes: int | None = None
    public_bytes: int | None = None
    image_bytes: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Point:
    """One mark of a plot: ``x`` in the unit of its axis (bytes, seconds, images per class), accuracies as
    fractions; ``ci95`` is half the width of the 95 % interval, None of fewer than two runs."""

    method: str
    labels: str
    ipc: int
    x: float
    top1: float
    std: float | None
    ci95: float | None
    n: int | None  # runs; None: published
    source: str = ""  # of a published number


Measure = Callable[[Row | Published], float | None]


def label_bytes(row: Row | Published) -> float | None:
    """Bytes of labels alone."""
    return row.label_bytes


def shipped_bytes(row: Row | Published) -> float | None:
    """Bytes of labels and of the public bases they need."""
    return None if row.label_bytes is None or row.public_bytes is None else row.label_bytes + row.public_bytes


def all_bytes(row: Row | Published) -> float | None:
    """Bytes of images, labels and public bases."""
    shipped = shipped_bytes(row)
    return None if shipped is None or row.image_bytes is None else shipped + row.image_bytes


def total_seconds(row: Row | Published) -> float | None:
    """Wall time of all cells behind a student; None of none, which a logarithmic axis can't show."""
    return (row.seconds_total or None) if isinstance(row, Row) else None


def images_per_class(row: Row | Published) -> float | None:
    """The IPC; None of the whole training set."""
    return row.ipc


def point(row: Row | Published, x: float | None) -> Point | None:
    """The mark of a row at ``x``; None where one of its numbers is not known, or for the whole training set."""
    if x is None or row.ipc is None:
        return None
    if isinstance(row, Published):
        return Point(row.method, row.labels, row.ipc, x, row.accuracy, row.std, None, None, row.source)
    if row.top1.mean is None:
        return None
    return Point(row.method, row.labels, row.ipc, x, row.top1.mean, row.top1.std, row.top1.ci95, row.top1.n)


def on_front(points: Sequence[Point]) -> list[bool]:
    """For each point whether it is on the front of the measured ones; published points never are."""
    measured = [index for index, one in enumerate(points) if one.n is not None]
    found = [False] * len(points)
    flags = pareto([(points[index].x, points[index].top1) for index in measured])
    for index, flag in zip(measured, flags, strict=True):
        found[index] = flag
    return found


def render_points(panels: Iterable[tuple[str, Sequence[Point]]], unit: str) -> str:
    """What a figure shows as CSV: a line a point of every panel, ``unit`` heading the column of its ``x``."""
    heads = ("panel", "method", "labels", "ipc", unit, "top1_mean", "top1_std", "top1_ci95", "n", "on_front", "source")
    lines = [
        (panel, one.method, one.labels, one.ipc, one.x, one.top1, one.std, one.ci95, one.n, int(front), one.source)
        for panel, points in panels
        for one, front in zip(points, on_front(points), strict=True)
    ]
    return csv_text(heads, lines)
