"""Statistics of a few runs: spread and interval of a mean, where variance comes from, what can be told apart.

What repeats is the distilled set: each has one student or several. So a mean is that of the sets' means, and its
interval has as many degrees of freedom as there are sets, less one, however many students each set has. The standard
library sums exactly before it rounds, so the order of the runs does not show in the last digit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
# Differences of accuracies that vary by less vary by rounding alone: a single test image in a million is 1e-6.
NO_SPREAD = 1e-12

Runs = Mapping[int, Mapping[int, float]]  # distillation seed -> student seed -> accuracy


@dataclass(frozen=True)
class Summary:
    """``n`` runs in the unit of the runs: ``mean`` (None of none), ``std`` with n - 1 in the denominator and
    ``ci95``, half the width of the 95 % interval (both None of fewer than two)."""

    n: int
    mean: float | None = None
    std: float | None = None
    ci95: float | None = None


def summarize(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and 95 % interval of independent runs.

    The interval is Student's: mean ± t(0.975, n - 1) · s / √n ("The probable error of a mean", Biometrika 6, 1908).
    """
    n = len(values)
    if n == 0:
        return Summary(0)
    mean = statistics.fmean(values)
    if n == 1:
        return Summary(1, mean)
    std = statistics.stdev(values)
    quantile = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return Summary(n, mean, std, quantile * std / math.sqrt(n))


def summarize_sets(runs: Runs) -> Summary:
    """:func:`summarize` of the means of the sets, each over its students."""
    return summarize([statistics.fmean(students.values()) for students in runs.values() if students])


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return statistics.fmean(values) if values else None


@dataclass(frozen=True)
class Components:
    """Standard deviations in the unit of the runs: ``sets``, from distilled set to distilled set, and ``students``,
    from student to student of one set. None: too few to tell."""

    sets: float | None = None
    students: float | None = None


def components(groups: Sequence[Sequence[float]]) -> Components:
    """The variance between groups and within them, by the analysis of variance with random effects, one way.

    With a groups of n_i runs, N in all: within is MSW, between is (MSB - MSW) / k, at least 0, where k is
    (N - Σ n_i² / N) / (a - 1), the size of the groups where it is one (Searle, Casella and McCulloch, "Variance
    Components", 1992, section 3.6).
    """
    groups = [group for group in groups if group]
    count = sum(map(len, groups))
    spare = count - len(groups)
    if not spare:  # a student each: the two can't be told apart
        return Components()
    means = [statistics.fmean(group) for group in groups]
    within = math.fsum((x - m) ** 2 for group, m in zip(groups, means, strict=True) for x in group) / spare
    if len(groups) == 1:
        return Components(students=math.sqrt(within))
    middle = math.fsum(x for group in groups for x in group) / count
    between = math.fsum(len(g) * (m - middle) ** 2 for g, m in zip(groups, means, strict=True)) / (len(groups) - 1)
    size = (count - sum(len(group) ** 2 for group in groups) / count) / (len(groups) - 1)
    return Components(math.sqrt(max(0.0, (between - within) / size)), math.sqrt(within))


def paired_differences(one: Runs, other: Runs) -> list[float]:
    """``one`` less ``other``, a difference a pair of distilled sets.

    Students of the same seed start from the same weights and see the same views in the same order, so within a
    distillation seed the students are paired by theirs, over the seeds both have; the difference of a pair of sets is
    the mean over its pairs of students.
    """
    differences = []
    for seed in sorted(one.keys() & other.keys()):
        if shared := sorted(one[seed].keys() & other[seed].keys()):
            differences.append(statistics.fmean(one[seed][k] - other[seed][k] for k in shared))
    return differences


def paired_p(one: Runs, other: Runs) -> float | None:
    """The two-sided p-value of Student's paired t-test; None of fewer than two pairs. Differences that don't vary at
    all give 0, or 1 where there are none."""
    differences = paired_differences(one, other)
    n = len(differences)
    if n < 2:
        return None
    middle, std = statistics.fmean(differences), statistics.stdev(differences)
    if std < NO_SPREAD:
        return 1.0 if abs(middle) < NO_SPREAD else 0.0
    return 2 * float(stdtr(n - 1, -abs(middle) / (std / math.sqrt(n))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for having made all these tests (Holm, Scandinavian Journal of Statistics 6, 1979):
    the i-th smallest of m times m - i + 1, at most 1 and never below the one before."""
    corrected = [0.0] * len(p_values)
    floor = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: (p_values[index], index))):
        floor = max(floor, min(1.0, p_values[index] * (len(p_values) - place)))
        corrected[index] = floor
    return corrected


def against_best(runs: Sequence[Runs]) -> list[float | None]:
    """Of each of several rows the corrected p-value of its difference to the best mean among them.

    None: nothing was measured, or there are fewer than two pairs to tell from. The best itself has 1, and so has
    a row of exactly its mean. Of several best the first is compared with.
    """
    means = [summarize_sets(one).mean for one in runs]
    best = max((m for m in means if m is not None), default=None)
    found: list[float | None] = [1.0 if m is not None and m == best else None for m in means]
    if best is None:
        return found
    leader = runs[means.index(best)]
    p_values = {
        index: p
        for index, m in enumerate(means)
        if m is not None and m != best and (p := paired_p(leader, runs[index])) is not None
    }
    for index, corrected in zip(p_values, holm(list(p_values.values())), strict=True):
        found[index] = corrected
    return found


def tied(p_value: float | None) -> bool:
    """Can a row not be told from the best? Where nothing was tested it counts as told."""
    return p_value is not None and p_value > 1 - CONFIDENCE
