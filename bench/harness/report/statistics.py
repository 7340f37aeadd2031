"""Mean, sample standard deviation and t-interval of a few runs.

The interval is Student's: mean ± t(0.975, n - 1) · s / √n (Student, "The probable error of a mean",
Biometrika 6, 1908). The standard library sums exactly before it rounds, so the order of the runs does not
show in the last digit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """``n`` runs in the unit of the runs: ``mean`` (None of none), ``std`` with n - 1 in the denominator and
    ``ci95``, half the width of the 95 % interval (both None of fewer than two)."""

    n: int
    mean: float | None = None
    std: float | None = None
    ci95: float | None = None


def summarize(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and 95 % interval of independent runs."""
    n = len(values)
    if n == 0:
        return Summary(0)
    mean = statistics.fmean(values)
    if n == 1:
        return Summary(1, mean)
    std = statistics.stdev(values)
    quantile = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return Summary(n, mean, std, quantile * std / math.sqrt(n))


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return statistics.fmean(values) if values else None
