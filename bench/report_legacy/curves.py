"""Training curves as small inline SVG: a line a student, epochs to the right, 0 to 100 % upwards."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bench.report_legacy.entries import Entry

WIDTH, HEIGHT = 100, 30  # of the view box
MOST_POINTS = 40  # of a line; a page holds hundreds


def curve_lines(entries: Sequence[Entry]) -> Markup:
    """The polylines of the students that have a curve, in their order; empty where none has."""
    curves = [entry.curve for entry in entries if entry.curve]
    last = last_epoch(entries) or 1
    return Markup("").join(Markup('<polyline points="{}"/>').format(_points(curve, last)) for curve in curves)


def last_epoch(entries: Sequence[Entry]) -> int:
    """The last epoch of any of their curves; 0 where they have none."""
    return max((entry.curve[-1][0] for entry in entries if entry.curve), default=0)


def _points(curve: tuple[tuple[int, float], ...], last: int) -> str:
    step = -(-len(curve) // MOST_POINTS)
    kept = curve[::-1][::step][::-1]  # the last epoch, which is the headline, is always among them
    return " ".join(f"{WIDTH * epoch / last:.4g},{HEIGHT * (1 - top1):.4g}" for epoch, top1 in kept)
