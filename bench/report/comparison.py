"""Statistics over a few seeds: spread and interval of a mean, paired differences, and what may be claimed from them.

The unit that repeats is the distilled set; a set's value is the mean over its students. With predictions, a standard
error comes from a hierarchical bootstrap that resamples sets and test images at once (Owen, "The pigeonhole bootstrap",
Annals of Applied Statistics 1, 2007; for a difference both rows take the same resample, so it is paired by both), with
n - 1 draws of n sets so that it is unbiased for small n (Rao and Wu, JASA 83, 1988). Without predictions it is that of
Student's t over the sets, never below what the size of the test set allows. Degrees of freedom after Satterthwaite
(Biometrics Bulletin 2, 1946), and no interval is narrower than that of the sets alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
CLAIM_SEEDS = 5  # fewer pairs of distilled sets claim nothing
RESAMPLES = 1000
STREAM = 20070801  # seeds the bootstrap, so that a report is the same on every run
NO_SPREAD = 1e-12  # below this, differences of accuracies are rounding: one image in a million is 1e-6
MANY = 1e9  # degrees of freedom of a variance that is known
CHUNK = 64  # resamples of a large test set at a time

Array = NDArray[np.float64]
Runs = Mapping[int, Mapping[int, str]]  # distillation seed -> student seed -> cell


@dataclass(frozen=True)
class Estimate:
    """Mean over ``n`` distilled sets in the unit of the values; NaN where n does not give it.

    ``low`` and ``high`` bound the 95 % interval, ``p`` is two-sided against 0; ``best``: this is the row that others
    are compared with.
    """

    n: int = 0
    mean: float = math.nan
    std: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    best: bool = False


def estimate(sets: Array, resampled: Array | None = None, floor: float = 0.0) -> Estimate:
    """Estimate a mean from the values of distilled sets.

    Args:
        sets: (n,) one value per set.
        resampled: (n, RESAMPLES) the same under each resample of the test images; None: no predictions.
        floor: variance that the sampling of test images causes at least, where there are no predictions.
    """
    n = len(sets)
    if n < 2:
        return Estimate(n, float(sets.mean())) if n else Estimate()
    mean, std = float(sets.mean()), float(sets.std(ddof=1))
    between = 0.0 if std < NO_SPREAD else std * std / n
    parts = [(between, n - 1.0)]  # variances of the mean with their degrees of freedom; the widest interval holds
    if resampled is not None and (both := float((_set_weights(n) * resampled.T).sum(axis=1).var(ddof=1))) > NO_SPREAD:
        parts.append((both, (n - 1) * max(1.0, both / between) ** 2 if between else n - 1.0))
    else:
        parts.append((floor, MANY if between else n - 1.0))
    parts = [(variance, min(freedom, MANY)) for variance, freedom in parts if variance > NO_SPREAD**2]
    if not parts:  # a variance that was not seen tests nothing
        return Estimate(n, mean, std)
    half = max(float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(variance) for variance, freedom in parts)
    p = max(2 * float(stdtr(freedom, -abs(mean) / math.sqrt(variance))) for variance, freedom in parts)
    unseen = resampled is None and not between
    return Estimate(n, mean, std, mean - half, mean + half, math.nan if unseen else p)


@cache
def _set_weights(n: int) -> Array:
    """(RESAMPLES, n) weights of the sets in each resample: n - 1 draws, each row sums to 1."""
    rng = np.random.default_rng([STREAM, n])
    return rng.multinomial(n - 1, np.full(n, 1 / n), RESAMPLES) / (n - 1)


def resample_images(scores: Array) -> Array:
    """(cells, RESAMPLES) mean scores under resamples of the test images, the same resamples for all.

    Args:
        scores: (cells, images) what each image adds to the accuracy: 1 for a correct prediction, 0 for a wrong one.
    """
    images = scores.shape[1]
    rng = np.random.default_rng([STREAM, images])
    found = np.empty((len(scores), RESAMPLES))
    for start in range(0, RESAMPLES, CHUNK):
        size = min(CHUNK, RESAMPLES - start)
        drawn = rng.integers(0, images, (size, images)) + np.arange(size)[:, None] * images
        counts = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)
        found[:, start : start + size] = scores @ counts.T / images  # whole numbers below 2^53: exact in any order
    return found


@dataclass(frozen=True)
class Accuracies:
    """Accuracies of the cells of a table."""

    top1: Mapping[str, float]  # by cell
    resampled: Mapping[str, Array]  # by cell, of those with predictions of the same test set
    images: int | None = None  # size of the test set; None: not known
    unlike: Collection[str] = ()  # cells whose predictions give another accuracy than their records, and are not used

    def mean(self, runs: Runs) -> Estimate:
        """Accuracy of a row, its interval within [0, 1]."""
        found = self._estimate([[(cell,) for cell in students.values()] for students in runs.values()], False)
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))

    def difference(self, one: Runs, other: Runs) -> Estimate:
        """``one`` less ``other``, paired by seed, by student seed within a set, and by test image.

        Students of the same seed start from the same weights and see the same augmentation in the same order.
        """
        pairs = [[(one[seed][k], other[seed][k]) for k in sorted(one[seed].keys() & other[seed].keys())]
                 for seed in sorted(one.keys() & other.keys())]  # fmt: skip
        return self._estimate([own for own in pairs if own], True)

    def _estimate(self, sets: Sequence[Sequence[tuple[str, ...]]], paired: bool) -> Estimate:
        """Estimate the mean over sets of the mean over their students: of a cell, or of a cell less another."""

        def means(of: Mapping[str, Any]) -> Array:
            return np.array([np.mean([of[a] - sum(of[b] for b in rest) for a, *rest in own], axis=0) for own in sets])

        values, floor = means(self.top1), 0.0
        if self.images and len(values):
            share, images = min(1.0, abs(float(values.mean()))), self.images
            if not paired:  # Agresti and Coull's proportion, so that a perfect score has an interval, too
                share, images = (share * images + 2) / (images + 4), images + 4
            floor = share * (1 - share) / images or 1 / images**2  # at least |Δ| of the images tell two rows apart
        known = bool(sets) and all(cell in self.resampled for own in sets for cells in own for cell in cells)
        return estimate(values, means(self.resampled) if known else None, floor)


def against_best(rows: Sequence[Runs], known: Accuracies) -> list[Estimate]:
    """Difference of each row of a table to the best mean in it, with ``p`` :func:`corrected` for the table.

    The best row itself has a difference of 0; of equal means the first is the best.
    """
    means = [known.mean(runs).mean for runs in rows]
    if not rows or all(map(math.isnan, means)):
        return [Estimate() for _ in rows]
    best = int(np.nanargmax(means))
    found = [known.difference(runs, rows[best]) for runs in rows]
    found[best] = Estimate(found[best].n, 0.0, best=True)
    return [replace(one, p=p) for one, p in zip(found, corrected(found), strict=True)]


def corrected(differences: Sequence[Estimate]) -> list[float]:
    """Correct the p-values of all differences that are shown together after Holm.

    NaN where nothing may be claimed: fewer than :data:`CLAIM_SEEDS` pairs, or a variance that was not seen.
    """
    found = np.array([one.p if one.n >= CLAIM_SEEDS else math.nan for one in differences])
    tested = ~np.isnan(found)
    found[tested] = _holm(found[tested])
    return [float(p) for p in found]


def _holm(p: Array) -> Array:
    """Return p-values corrected after Holm ("A simple sequentially rejective multiple test procedure", 1979)."""
    corrected, order = np.empty_like(p), p.argsort()
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def is_claimed(one: Estimate) -> bool:
    """Tell if a difference may be called one: enough pairs, significant after correction, an interval without 0."""
    return one.n >= CLAIM_SEEDS and one.p < 1 - CONFIDENCE and (one.low > 0 or one.high < 0)


def components(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Estimate the standard deviations from set to set and from student to student of one set; NaN: too few to tell.

    One-way analysis of variance with random effects for groups of unequal size (Searle, Casella and McCulloch,
    "Variance Components", 1992, section 3.6).
    """
    sizes, means = np.array([len(group) for group in groups]), np.array([np.mean(group) for group in groups])
    total = int(sizes.sum())
    if total == len(groups):  # one student per set: the two can't be told apart
        return math.nan, math.nan
    within = sum(float(np.var(group)) * len(group) for group in groups) / (total - len(groups))
    if len(groups) == 1:
        return math.nan, math.sqrt(within)
    between = float((sizes * (means - (means * sizes).sum() / total) ** 2).sum()) / (len(groups) - 1)
    size = (total - (sizes**2).sum() / total) / (len(groups) - 1)
    return math.sqrt(max(0.0, (between - within) / size)), math.sqrt(within)
