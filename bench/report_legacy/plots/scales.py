"""Axes for bytes, seconds, images per class and accuracy: where a value stands and which ticks it is read by.

Positions are logarithms, so the axes themselves stay linear and 0 bytes, which have no logarithm, can have a
place of their own to the left of a break.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
STEPS = (1, 2, 3, 5, 10, 20)  # between ticks, in doublings: 5 gives 1 KiB, 32 KiB, 1 MiB
# fmt: off
TIMES = ((0.01, "10 ms"), (0.1, "0.1 s"), (1, "1 s"), (2, "2 s"), (5, "5 s"), (10, "10 s"), (20, "20 s"),
         (60, "1 min"), (120, "2 min"), (300, "5 min"), (600, "10 min"), (1200, "20 min"),
         (3600, "1 h"), (7200, "2 h"), (18_000, "5 h"), (36_000, "10 h"),
         (86_400, "1 d"), (172_800, "2 d"), (432_000, "5 d"), (864_000, "10 d"), (8_640_000, "100 d"))
# fmt: on
PERCENTS = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9)
CROWDED = 0.9  # accuracy from which on differences show better as ratios of errors
LEAST_ERROR = 0.0005  # the end of such an axis: 99.95 %


@dataclass(frozen=True)
class Scale:
    """An axis: ``place`` gives the position of a value, ``ticks`` are positions with their labels, ``limits``
    the ends, and ``gap`` the two ends of the break between 0 and the rest, where there is one."""

    place: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]
    limits: tuple[float, float]
    gap: tuple[float, float] | None = None


def byte_scale(values: Collection[float], most: int = 8) -> Scale:
    """log2 of bytes with at most ``most`` ticks; 0 bytes, where there are any, stand left of a break."""
    logs = [math.log2(max(value, 1)) for value in values if value > 0]
    low, high = _around(logs, whole=1)
    step = next((step for step in STEPS if (high - low) / step <= most - 1), STEPS[-1])
    exponents = range(math.ceil(low / step) * step, math.floor(high) + 1, step)
    ticks = tuple((float(exponent), size_tick(exponent)) for exponent in exponents)
    margin = 0.03 * (high - low)
    if all(value > 0 for value in values):
        return Scale(partial(_byte_place, zero=low), ticks, (low - margin, high + margin))
    beside = 0.9 * (high - low) / most  # room for one more tick
    zero = low - beside
    gap = (zero + 0.4 * beside, zero + 0.65 * beside)
    return Scale(partial(_byte_place, zero=zero), ((zero, "0"), *ticks), (zero - 2 * margin, high + margin), gap)


def _byte_place(value: float, zero: float) -> float:
    return math.log2(max(value, 1)) if value > 0 else zero


def size_tick(exponent: int) -> str:
    """2 ** exponent bytes: ``32 KiB``."""
    unit = min(exponent // 10, len(UNITS) - 1)
    return f"{2 ** (exponent - 10 * unit):,} {UNITS[unit]}"


def time_scale(values: Collection[float], most: int = 8) -> Scale:
    """log10 of seconds; ticks at round seconds, minutes, hours and days."""
    low, high = _around([math.log10(value) for value in values], whole=None)
    within = [(math.log10(value), label) for value, label in TIMES if low <= math.log10(value) <= high]
    if len(round_ones := [tick for tick in within if tick[1].startswith(("1", "0.1"))]) >= 3:
        within = round_ones
    margin = 0.04 * (high - low)
    return Scale(math.log10, tuple(_thinned(within, most)), (low - margin, high + margin))


def count_scale(values: Collection[float]) -> Scale:
    """log2 of images per class, a tick at every value that was measured."""
    ticks = [(math.log2(value), f"{value:g}") for value in sorted(set(values))]
    low, high = _around([place for place, _ in ticks], whole=None)
    margin = 0.08 * (high - low)
    return Scale(math.log2, tuple(ticks), (low - margin, high + margin))


def accuracy_scale(values: Collection[float], most: int = 8) -> Scale:
    """Accuracies, fractions, on a linear axis; where the best are beyond :data:`CROWDED`, on one that is linear in
    the logarithm of the error, so that halving the error is the same step everywhere."""
    top, bottom = max(values, default=1.0), min(values, default=0.0)
    place = _error_place if top > CROWDED else _percent_place
    low, high = place(bottom), place(top)
    margin = max(0.06 * (high - low), 0.01)
    low, high = max(place(0.0), low - margin), min(place(1.0), high + margin)
    ticks = [(place(percent / 100), f"{percent:g}") for percent in PERCENTS]
    if place is _percent_place and top - bottom < 0.15:
        ticks = [(percent / 100, str(percent)) for percent in range(0, 101, 2)]
    within = [tick for tick in ticks if low <= tick[0] <= high]
    return Scale(place, _apart(within, (high - low) / most), (low, high))


def _percent_place(value: float) -> float:
    return value


def _error_place(value: float) -> float:
    return -math.log2(max(1 - max(value, 0.0), LEAST_ERROR))


def _apart(ticks: list[tuple[float, str]], least: float) -> tuple[tuple[float, str], ...]:
    """From the top down those ticks that are so far from the one before."""
    kept: list[tuple[float, str]] = []
    for tick in reversed(ticks):
        if not kept or kept[-1][0] - tick[0] >= least:
            kept.append(tick)
    return tuple(reversed(kept))


def _around(logs: Sequence[float], whole: float | None) -> tuple[float, float]:
    """The ends of an axis for these positions, one unit apart at least; at multiples of ``whole``."""
    low, high = (min(logs), max(logs)) if logs else (0.0, 1.0)
    if whole is not None:
        low, high = math.floor(low / whole) * whole, math.ceil(high / whole) * whole
    if high - low < 1:
        low, high = (low - 1, high + 1) if whole is not None else (low - 0.5, high + 0.5)
    return float(low), float(high)


def _thinned(ticks: list[tuple[float, str]], most: int) -> list[tuple[float, str]]:
    every = math.ceil(len(ticks) / most) if ticks else 1
    return ticks[::every]
