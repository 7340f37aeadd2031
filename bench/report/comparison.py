"""Statistics over a few seeds: spread and interval of a mean, paired differences, and what may be claimed from them.

The unit that repeats is the distilled set; a set's value is the mean over its students. With predictions, a standard
error comes from a hierarchical bootstrap that resamples sets and test images at once (Owen, "The pigeonhole bootstrap",
Annals of Applied Statistics 1, 2007; for a difference both rows take the same resample, so it is paired by both), with
n - 1 draws of n sets so that it is unbiased for small n (Rao and Wu, JASA 83, 1988). Without predictions it is that of
Student's t over the sets, never below what the size of the test set allows. Degrees of freedom after Satterthwaite
(Biometrics Bulletin 2, 1946), and no interval is narrower than that of the sets alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from bench.store.predictions import load_scores

CONFIDENCE = 0.95
FEWEST = 3  # fewer distilled sets, or pairs of them, show no interval of a difference
CLAIM_SEEDS = 5  # fewer pairs of distilled sets claim nothing
RESAMPLES = 1000
STREAM = 20070801  # seeds the bootstrap, so that a report is the same on every run
NO_SPREAD = 1e-12  # below this, differences of accuracies are rounding: one image in a million is 1e-6
MANY = 1e9  # degrees of freedom of a variance that is known
CHUNK = 64  # resamples of a large test set at a time
PAIR = ["seed", "student_seed"]  # students of the same seed start from the same weights and see the same augmentation

Array = NDArray[np.float64]


class Accuracies(NamedTuple):
    """Accuracies by cell; ``resampled``: (cells, RESAMPLES), of those with predictions, under each resample of images.

    ``unlike``: cells whose predictions give another accuracy than their records, and are not used.
    """

    top1: pd.Series
    resampled: pd.DataFrame
    unlike: frozenset[str] = frozenset()


def accuracies(frame: pd.DataFrame) -> Accuracies:
    """Accuracies of the records that are done."""
    done = frame[frame["top1"].notna()].drop_duplicates("cell")
    top1 = done.set_index("cell")["top1"]
    files = done[done["predictions"] != ""].groupby("predictions")["cell"]  # of a board: many cells
    loaded = {cell: one for file, cells in files for cell, one in load_scores(str(file), cells).items()}
    scores = pd.Series({cell: one for cell, one in loaded.items() if abs(one.mean() - top1[cell]) < 1e-6}, dtype=object)
    resampled = [pd.DataFrame(resample_images(np.stack(own.tolist())), own.index)
                 for _, own in scores.groupby(scores.map(len))]  # fmt: skip
    return Accuracies(top1, pd.concat(resampled) if resampled else pd.DataFrame(), frozenset(loaded) - {*scores.index})


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


@cache
def _set_weights(n: int) -> Array:
    """(n, RESAMPLES) weights of the sets in each resample: n - 1 draws, each column sums to 1; zeros for n = 1."""
    draws = np.random.default_rng([STREAM, n]).multinomial(n - 1, np.full(n, 1 / n), RESAMPLES)
    return (draws / max(1, n - 1)).T


def estimate(students: pd.DataFrame, known: Accuracies, images: pd.Series) -> pd.DataFrame:
    """Estimate the mean over distilled sets of each row, or of its difference to another row.

    Args:
        students: a line per student: ``row``, ``seed`` (of the set), ``cell``; for a difference ``other``, the cell
            whose accuracy is taken away.
        images: row → size of the test set; NaN: not known.

    Returns:
        In the order of ``images``: ``n`` (sets), ``mean``, ``std``, ``low`` and ``high`` (95 % interval; of a mean
        within [0, 1]), ``p`` (two-sided against 0); NaN where n does not give it.
    """
    columns, paired = ["n", "mean", "std", "low", "high", "p"], "other" in students
    if students.empty:
        return pd.DataFrame(np.nan, images.index, columns).assign(n=0)
    students = students.sort_values(["row", "seed", "cell"])
    sides = [students["cell"], students["other"]] if paired else [students["cell"]]
    place = [students["row"], students["seed"]]

    def sets_of(values: Any) -> Any:
        one, *rest = (values.reindex(cells).set_axis(students.index) for cells in sides)
        return (one - rest[0] if paired else one).groupby(place)

    by_row = sets_of(known.top1).mean().groupby(level="row")
    found = by_row.agg(n="size", mean="mean", std="std")
    n, mean, std = (found[name].to_numpy("float64") for name in ("n", "mean", "std"))
    between = np.where(std < NO_SPREAD, 0.0, std**2 / n)
    both = np.full(len(found), np.nan)
    if len(known.resampled):
        resampled = sets_of(known.resampled).mean(skipna=False).to_numpy()
        weighted = np.concatenate([_set_weights(int(count)) for count in n]) * resampled
        both = np.add.reduceat(weighted, np.cumsum(n).astype(int) - n.astype(int)).var(axis=1, ddof=1)
    share, size = np.minimum(1.0, np.abs(mean)), images.reindex(found.index).to_numpy("float64")
    if not paired:  # Agresti and Coull's proportion, so that a perfect score has an interval, too
        share, size = (share * size + 2) / (size + 4), size + 4
    floor = np.where(share * (1 - share) > 0, share * (1 - share), 1 / size) / size
    seen = both > NO_SPREAD
    with np.errstate(all="ignore"):
        freedom = np.where(seen, (n - 1) * np.fmax(1.0, both / between) ** 2, MANY)
        freedom = np.stack([n - 1, np.where(between > 0, np.minimum(freedom, MANY), n - 1)])
        # variances of the mean; the widest interval holds, and a variance that was not seen tests nothing
        error = np.sqrt(np.stack([between, np.where(seen, both, floor)]))
        error[~(error > NO_SPREAD) | (n < 2)] = np.nan
        half = np.fmax.reduce(stdtrit(freedom, (1 + CONFIDENCE) / 2) * error)
        p = np.fmax.reduce(2 * stdtr(freedom, -np.abs(mean) / error))
    low, high = (mean - half, mean + half) if paired else (np.maximum(mean - half, 0.0), np.minimum(mean + half, 1.0))
    found = found.assign(low=low, high=high, p=np.where(np.isnan(both) & (between == 0), np.nan, p))
    return found.reindex(images.index).fillna({"n": 0}).astype({"n": int})


def against_best(
    students: pd.DataFrame, known: Accuracies, images: pd.Series, means: pd.Series, tables: pd.Series
) -> pd.DataFrame:
    """Compare each row with the best mean of its table; of equal means the first is the best, with a difference of 0.

    Pairs are of the same seed, the same student seed within a set, and the same test image.

    Args:
        students, images: as in :func:`estimate`, with ``student_seed``; means, tables: by row.

    Returns:
        As :func:`estimate`, with ``p`` :func:`corrected` for the table, and ``best`` and ``claimed``.
    """
    best = means.dropna().groupby(tables).idxmax()
    against = students.assign(best=students["row"].map(tables).map(best))
    others = students.rename(columns={"row": "best", "cell": "other"})
    found = estimate(against.merge(others, on=["best", *PAIR]), known, images)
    found["best"] = found.index.isin(best)
    found.loc[found["best"], ["mean", "std", "low", "high", "p"]] = [0.0, *[np.nan] * 4]
    return corrected(found, tables)


def corrected(found: pd.DataFrame, tables: pd.Series) -> pd.DataFrame:
    """Correct ``p`` for all differences that are shown together in a table, and say what is ``claimed``.

    After Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian Journal of Statistics 6, 1979).
    NaN where nothing may be claimed: fewer than :data:`CLAIM_SEEDS` pairs, or a variance that was not seen. A claim
    takes an interval without 0, too.
    """
    tested = found["p"][(found["n"] >= CLAIM_SEEDS) & found["p"].notna()].sort_values().groupby(tables)
    p = tested.transform(lambda own: (own * np.arange(len(own), 0, -1)).cummax().clip(upper=1)).reindex(found.index)
    return found.assign(p=p, claimed=(p < 1 - CONFIDENCE) & ((found["low"] > 0) | (found["high"] < 0)))


def components(students: pd.DataFrame) -> pd.DataFrame:
    """Estimate by row the standard deviations of ``top1`` from set to set and from student to student of one set.

    One-way analysis of variance with random effects for groups of unequal size (Searle, Casella and McCulloch,
    "Variance Components", 1992, section 3.6). NaN: too few to tell.
    """
    sets = students.groupby(["row", "seed"])["top1"].agg(["size", "mean", "var"])
    size, rows = sets["size"], sets["size"].groupby(level="row")
    total, groups = rows.sum(), rows.size()
    grand = students.groupby("row")["top1"].mean().reindex(sets.index, level="row")
    within = (sets["var"].fillna(0) * (size - 1)).groupby(level="row").sum() / (total - groups)
    between = (size * (sets["mean"] - grand) ** 2).groupby(level="row").sum() / (groups - 1)
    usual = (total - (size**2).groupby(level="row").sum() / total) / (groups - 1)
    return pd.DataFrame({"sets": ((between - within) / usual).clip(lower=0) ** 0.5, "students": within**0.5})
