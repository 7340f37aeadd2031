"""Intervals and claims: against closed forms, and honest where little was seen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.report.comparison import (
    RESAMPLES,
    Accuracies,
    against_best,
    components,
    corrected,
    estimate,
    resample_images,
)
from bench.report.papers.dd_ranking import score
from bench.report.rows import pareto

Runs = dict[int, dict[int, str]]  # distillation seed → student seed → cell


class Table:
    """Rows of one student per set, with or without predictions."""

    def __init__(self, images: int | None = None, top1: dict[str, float] | None = None) -> None:
        self.images = images
        self.top1: dict[str, float] = dict(top1 or {})
        self.scores: dict[str, np.ndarray] = {}

    def row(self, *values: float, name: str = "") -> Runs:
        name = name or f"row{len(self.top1)}"
        self.top1 |= {f"{name}-{seed}": value for seed, value in enumerate(values)}
        return {seed: {seed: f"{name}-{seed}"} for seed in range(len(values))}

    def predicted(self, *scores: np.ndarray) -> Runs:
        runs = self.row(*(float(one.mean()) for one in scores))
        self.scores |= {cell: one for (cell,), one in zip((run.values() for run in runs.values()), scores, strict=True)}
        return runs

    @property
    def known(self) -> Accuracies:
        resampled = resample_images(np.stack(list(self.scores.values()))) if self.scores else []
        return Accuracies(pd.Series(self.top1, dtype=float), pd.DataFrame(resampled, index=list(self.scores)))

    def means(self, *rows: Runs) -> pd.DataFrame:
        return estimate(listed(*rows), self.known, self.sizes(len(rows)))

    def against_best(self, *rows: Runs) -> list[Any]:
        means, tables = self.means(*rows)["mean"], pd.Series(0, range(len(rows)))
        found = against_best(listed(*rows), self.known, self.sizes(len(rows)), means, tables)
        return list(found.itertuples())

    def mean(self, row: Runs) -> Any:
        return next(self.means(row).itertuples())

    def difference(self, one: Runs, other: Runs) -> Any:
        """Less the other, which is made the best."""
        both = listed(one).merge(listed(other), on=["seed", "student_seed"], suffixes=("", "_"))
        return next(estimate(both.rename(columns={"cell_": "other"}), self.known, self.sizes(1)).itertuples())

    def sizes(self, rows: int) -> pd.Series:
        return pd.Series(math.nan if self.images is None else self.images, range(rows), dtype=float)


def listed(*rows: Runs) -> pd.DataFrame:
    found = [(at, seed, student, cell) for at, row in enumerate(rows) for seed, run in row.items()
             for student, cell in run.items()]  # fmt: skip
    return pd.DataFrame(found, columns=["row", "seed", "student_seed", "cell"]).astype({"row": int, "seed": int})


def drawn(rng: np.random.Generator, share: float, images: int) -> np.ndarray:
    return (rng.random(images) < share).astype(float)


# -- means and their intervals


def test_three_sets_by_hand() -> None:
    table = Table()
    found = table.mean(table.row(0.88, 0.90, 0.92))  # s = .02, t(.975, 2) = 4.302653
    assert (found.n, found.mean, found.std) == (3, pytest.approx(0.9), pytest.approx(0.02))
    assert found.high - found.mean == pytest.approx(4.302653 * 0.02 / 3**0.5, rel=1e-6)


def test_none_and_one_set_have_no_interval() -> None:
    none = Table().mean({})
    assert (none.n, math.isnan(none.mean)) == (0, True)
    one = Table(images=360)
    found = one.mean(one.row(0.7))
    assert (found.n, found.mean) == (1, 0.7) and all(map(math.isnan, (found.std, found.low, found.high, found.p)))


def test_students_of_one_set_are_no_more_sets() -> None:
    table = Table(top1={"a": 0.86, "b": 0.88, "c": 0.90, "d": 0.90, "e": 0.92})
    found = table.mean({0: {0: "a", 1: "b", 2: "c"}, 1: {0: "d", 1: "e"}})  # means .88 and .91
    assert (found.n, found.mean) == (2, pytest.approx(0.895))


def test_a_perfect_score_has_an_interval_that_the_test_set_gives() -> None:
    table = Table(images=360)
    found = table.mean(table.row(1.0, 1.0, 1.0))
    assert (found.mean, found.std, found.high) == (1.0, 0.0, 1.0)
    assert 0.96 < found.low < 1.0
    unknown = Table()
    assert math.isnan(unknown.mean(unknown.row(1.0, 1.0, 1.0)).low)
    sure = Table(images=100)
    ones = sure.predicted(*[np.ones(100)] * 5)
    assert sure.mean(ones).low < 1.0  # predictions that are all right show no variance either


def test_an_interval_stays_within_0_and_1_and_is_never_narrower_than_the_test_set_allows() -> None:
    table = Table(images=100)
    found = table.mean(table.row(0.9, 0.9, 0.901))
    assert found.high - found.low > 2 * 1.96 * 0.02
    wide = table.mean(table.row(0.1, 0.99))
    assert (wide.low, wide.high) == (0.0, 1.0)


# -- differences


def test_a_paired_difference_without_predictions_is_students_t() -> None:
    table = Table()
    found = table.difference(table.row(0.2, 0.4, 0.6), table.row(0.1, 0.2, 0.3))  # .1 .2 .3
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert found.high - found.mean == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)


@pytest.mark.parametrize("images", [None, 20, 360, 10_000])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_a_constant_difference_is_no_evidence(images: int | None, seeds: int) -> None:
    """Its variance over seeds was not seen."""
    table = Table(images)
    values = [0.60 + 0.05 * (seed % 3) for seed in range(seeds)]
    rows = [table.row(*values), table.row(*(value - 0.05 for value in values))]
    best, behind = table.against_best(*rows)
    assert best.best and not behind.best and behind.mean == pytest.approx(-0.05)
    assert math.isnan(behind.p) and not behind.claimed
    if images is None:
        assert math.isnan(behind.low)
    else:
        assert behind.high - behind.low > 1 / images


def test_one_test_image_is_never_told_from_none() -> None:
    table = Table(images=20)
    found = table.difference(table.row(0.60, 0.70), table.row(0.55, 0.65))
    assert found.low < 0 < found.high


def test_only_what_both_have_is_paired() -> None:
    table = Table()
    one, other = table.row(0.9, 0.8, 0.7), table.row(0.5, 0.6)
    assert table.difference(one, other).n == 2
    assert table.difference({0: {0: "row0-0"}}, {0: {1: "row3-0"}}).n == 0
    assert table.difference({}, one).n == 0


def test_students_are_paired_by_seed_within_a_set() -> None:
    top1 = {f"{who}{seed}{k}": {"a": 0.5, "b": 0.4}[who] + 0.1 * k + (0.02 * seed if who == "a" else 0)
            for who in "ab" for seed in range(3) for k in range(3)}  # fmt: skip
    runs = {who: {seed: {k: f"{who}{seed}{k}" for k in range(3)} for seed in range(3)} for who in "ab"}
    runs["a"][0].pop(2)  # an odd student of one side pairs with nobody
    found = Table(top1=top1).difference(runs["a"], runs["b"])
    assert (found.mean, found.std) == (pytest.approx(0.12), pytest.approx(0.02))


# -- the bootstrap


def closed_form(differences: np.ndarray) -> float:
    """The variance of the resampled mean: sets drawn n - 1 times, images as often as there are, both with replacement.
    Var(wᵀDv) = wᵀ-mean · D Σv Dᵀ + tr(Σw D (Σv + v̄v̄ᵀ) Dᵀ), with Σ of multinomial weights."""
    n, images = differences.shape
    mean_w, mean_v = np.full(n, 1 / n), np.full(images, 1 / images)
    cov_w = (np.eye(n) / n - 1 / n**2) / (n - 1)
    cov_v = (np.eye(images) / images - 1 / images**2) / images
    return float(
        mean_w @ differences @ cov_v @ differences.T @ mean_w
        + np.trace(cov_w @ differences @ (cov_v + np.outer(mean_v, mean_v)) @ differences.T)
    )


def test_the_bootstrap_has_the_variance_of_its_closed_form() -> None:
    rng = np.random.default_rng(1)
    table = Table()
    hard = rng.random(400)  # how hard an image is
    one = [(rng.random(400) < 0.9 - 0.5 * hard + 0.02 * seed).astype(float) for seed in range(6)]
    other = [(rng.random(400) < 0.7 - 0.5 * hard).astype(float) for _ in range(6)]
    rows = table.predicted(*one), table.predicted(*other)
    found = table.difference(*rows)
    wanted = closed_form(np.stack(one) - np.stack(other))
    between = found.std**2 / 6
    freedom = 5 * max(1.0, wanted / between) ** 2
    from scipy.stats import t

    assert (found.high - found.mean) / t.ppf(0.975, freedom) == pytest.approx(wanted**0.5, rel=0.08)


def test_without_image_noise_the_bootstrap_is_students_variance() -> None:
    """Rao and Wu's n - 1 draws give s² / n."""
    sets = np.array([0.1, 0.3, 0.2, 0.5, 0.4])
    table = Table()
    cells = pd.Index([f"{seed}" for seed in range(5)])
    known = Accuracies(pd.Series(sets, cells), pd.DataFrame(np.repeat(sets[:, None], RESAMPLES, axis=1), cells))
    rows = listed({seed: {seed: cell} for seed, cell in enumerate(cells)})
    found = next(estimate(rows, known, table.sizes(1)).itertuples())
    assert found.high - found.mean == pytest.approx(2.776445 * sets.std(ddof=1) / 5**0.5, rel=0.08)


def test_the_bootstrap_is_the_same_every_time_and_in_any_order() -> None:
    rng = np.random.default_rng(0)
    scores = np.stack([drawn(rng, 0.5, 1000) for _ in range(4)])
    assert (resample_images(scores) == resample_images(scores)).all()
    assert (resample_images(scores[::-1])[::-1] == resample_images(scores)).all()


def test_pairing_by_image_tells_what_unpaired_intervals_do_not() -> None:
    rng = np.random.default_rng(2)
    table = Table()
    common = [drawn(rng, 0.8, 2000) for _ in range(5)]
    worse = [one * (rng.random(2000) > 0.03) for one in common]  # a few of the same images are lost
    rows = [table.predicted(*common), table.predicted(*worse)]
    behind = table.against_best(*rows)[1]
    assert behind.claimed and behind.high < 0
    means = [table.mean(row) for row in rows]
    assert means[0].low < means[1].high


def test_no_more_false_alarms_than_promised() -> None:
    """Tables whose six rows are alike, over five sets and the same test images."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(60):
        table = Table()
        hard = rng.random(200)
        rows = [table.predicted(*[(rng.random(200) < hard).astype(float) for _ in range(5)]) for _ in range(6)]
        alarms += any(one.claimed for one in table.against_best(*rows))
    assert alarms <= 6


# -- claims


def test_below_five_sets_nothing_is_claimed() -> None:
    for n, claimed in ((4, False), (5, True)):
        table = Table()
        rows = [table.row(*(0.90 + 0.01 * seed for seed in range(n)))]
        rows.append(table.row(*(0.50 + 0.011 * seed for seed in range(n))))
        assert table.against_best(*rows)[1].claimed is claimed


def test_holm_over_the_comparisons_of_a_table() -> None:
    made = pd.DataFrame({"n": [5] * 4 + [3], "p": [0.01, 0.04, 0.03, 0.005, 0.001], "low": -0.2, "high": -0.1})
    found = corrected(made, pd.Series(0, made.index))
    assert found["p"].tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02, math.nan], nan_ok=True)
    assert found["claimed"].tolist() == [True, False, False, True, False]
    assert corrected(made[:0], pd.Series(dtype=int)).empty


def test_the_first_of_equal_means_is_the_best_and_rows_without_a_number_stay_empty() -> None:
    table = Table()
    found = table.against_best(table.row(0.9), table.row(0.9), {})
    assert [one.best for one in found] == [True, False, False]
    assert found[1].mean == 0.0 and math.isnan(found[2].mean)
    assert [one.n for one in table.against_best({}, {})] == [0, 0]
    assert table.against_best() == []


# -- components of variance, the Pareto front, DD-Ranking


def test_variance_between_sets_and_between_students() -> None:
    def both(*sets: list[float]) -> tuple[float, float]:
        lines = [(0, seed, top1) for seed, own in enumerate(sets) for top1 in own]
        found = components(pd.DataFrame(lines, columns=["row", "seed", "top1"]))
        return found.at[0, "sets"], found.at[0, "students"]

    # Means 1.5, 3.5 and 9 about 14/3. MSW = (0.5 + 0.5 + 2) / 3 = 1; MSB = 2 · (361 + 49 + 676) / 36 / 2 = 181 / 6.
    assert both([1.0, 2.0], [3.0, 4.0], [8.0, 10.0]) == pytest.approx((math.sqrt((181 / 6 - 1) / 2), 1.0))
    # Means 2 and 5 about 3: MSW = 2 / 1, MSB = 2 · 1 + 1 · 4 = 6, k = 3 - (4 + 1) / 3 = 4 / 3; (6 - 2) / (4 / 3) = 3.
    assert both([1.0, 3.0], [5.0]) == pytest.approx((math.sqrt(3), math.sqrt(2)))
    assert both([0.0, 2.0], [0.0, 2.0]) == pytest.approx((0.0, math.sqrt(2)))
    assert both([1.0], [2.0]) == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert both([1.0, 3.0]) == pytest.approx((math.nan, math.sqrt(2)), nan_ok=True)


def test_the_front_is_what_comparing_all_pairs_gives() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        sizes = rng.integers(0, 6, 9).tolist()
        means = (rng.integers(0, 6, 9) / 6).tolist()
        one_table = pd.Series(0, range(9))
        for at, on_front in enumerate(pareto(pd.Series(sizes), pd.Series(means), one_table)):
            beaten = any(
                size <= sizes[at] and mean >= means[at] and (size, mean) != (sizes[at], means[at])
                for size, mean in zip(sizes, means, strict=True)
            )
            assert on_front is not beaten
    assert pareto(pd.Series([None, 1]), pd.Series([0.5, math.nan]), one_table).isna().all()


def test_scores_by_hand() -> None:
    # Real images 0.9 and distilled ones 0.5 under hard labels, distilled 0.8 and random 0.7 under soft ones:
    # 0.5 · 0.1 - 0.5 · 0.4 = -0.15; (e^-0.15 - e^-1) / (e - e^-1) = (0.860708 - 0.367879) / 2.350402.
    assert score(0.1, 0.4) == pytest.approx(0.209679, abs=1e-6)
    assert score(0.1, -0.3) == pytest.approx(0.363140, abs=1e-6)
    assert [score(value, -value) for value in (-1.0, 1.0)] == [pytest.approx(0.0), pytest.approx(1.0)]
