"""Pareto fronts of accuracy against bytes: who is on them, who is beaten by whom, how much lies under them.

A point is (bytes, accuracy): fewer bytes are better, higher accuracy is better. Everything here is pure and
takes O(n log n) for n points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]  # bytes >= 0, accuracy as a fraction

FLOOR = 1  # byte: where the logarithmic axis starts; 0 bytes (hard labels) stand there too


def dominated_by(points: Sequence[Point]) -> list[int | None]:
    """For each point the index of the point that beats it most, None on the front.

    A point is beaten by one that is no worse in both and better in one, so equal points never beat each other.
    Named is the one of the highest accuracy at no more bytes: of several, that of the fewest bytes, then the
    first.

    Raises:
        ValueError: bytes below 0, or a number that is not finite.
    """
    _check(points)
    found: list[int | None] = [None] * len(points)
    best: int | None = None
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1], index)):
        if best is None or points[index][1] > points[best][1]:
            best = index
        elif points[index] != points[best]:
            found[index] = best
    return found


def pareto(points: Sequence[Point]) -> list[bool]:
    """For each point whether it is on the front: whether no other point beats it. Equal points share their fate.

    Raises:
        ValueError: bytes below 0, or a number that is not finite.
    """
    return [beaten is None for beaten in dominated_by(points)]


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points on the front, by bytes (equal points by index): the corners of its staircase.

    Raises:
        ValueError: bytes below 0, or a number that is not finite.
    """
    kept = [index for index, on_front in enumerate(pareto(points)) if on_front]
    return sorted(kept, key=lambda index: (points[index][0], index))


def reference_budget(points: Sequence[Point]) -> int:
    """The smallest power of two that is no less than any point's bytes, and at least 2: a budget for
    :func:`hypervolume` that small changes of size leave as it is. Fronts are comparable under one budget alone,
    so take it over all that are compared.

    Raises:
        ValueError: bytes below 0, or a number that is not finite.
    """
    _check(points)
    largest = math.ceil(max((size for size, _ in points), default=0))
    return max(2, 1 << max(largest - 1, 0).bit_length())


def hypervolume(points: Sequence[Point], budget: float) -> float:
    """The area under the front over log2(bytes) from :data:`FLOOR` to ``budget``, over the width of that axis.

    That is the mean of the best accuracy affordable, each doubling of the budget from one byte to ``budget``
    weighing the same: in [0, 1] for accuracies in [0, 1], and 0 where nothing is affordable. Below one byte the
    axis ends, so 0 bytes count as affordable everywhere; points beyond the budget don't count.

    Raises:
        ValueError: ``budget`` is no more than one byte; bytes below 0, or a number that is not finite.
    """
    if not FLOOR < budget < math.inf:
        raise ValueError(f"budget is {budget}; expected a finite number of more than {FLOOR} byte")
    corners = [points[index] for index in front(points) if points[index][0] <= budget]
    if not corners:
        return 0.0
    starts = [math.log2(max(size, FLOOR)) for size, _ in corners]
    width = math.log2(budget)
    ends = [*starts[1:], width]
    steps = zip(corners, starts, ends, strict=True)
    return math.fsum(accuracy * (end - start) for (_, accuracy), start, end in steps) / width


def _check(points: Sequence[Point]) -> None:
    for size, accuracy in points:
        if not (0 <= size < math.inf and math.isfinite(accuracy)):
            raise ValueError(f"({size}, {accuracy}) is no point; expected (bytes >= 0, accuracy), both finite")
