"""Statistics and scores against numbers worked out by hand."""

from __future__ import annotations

import math
import random

import pytest

from bench.report_legacy.scores import augmentation_robust, label_robust, normalized
from bench.report_legacy.statistics import (
    Components,
    against_best,
    components,
    holm,
    paired_p,
    summarize,
    summarize_sets,
    tied,
)


def alone(*values: float) -> dict[int, dict[int, float]]:
    """Sets of one student each, of the same seed."""
    return {seed: {seed: value} for seed, value in enumerate(values)}


# -- mean, deviation, interval


def test_three_seeds_by_hand() -> None:
    # Deviations -0.02, 0, 0.02: s = sqrt(0.0008 / 2) = 0.02; t(0.975, 2) = 4.30265.
    summary = summarize([0.88, 0.90, 0.92])
    assert summary.mean == pytest.approx(0.90)
    assert summary.std == pytest.approx(0.02)
    assert summary.ci95 == pytest.approx(4.302653 * 0.02 / 3**0.5, rel=1e-6)


def test_two_and_five_seeds_use_their_own_quantile() -> None:
    assert summarize([0.0, 1.0]).ci95 == pytest.approx(12.706205 * 0.5**0.5 / 2**0.5, rel=1e-6)
    five = summarize([1.0, 2.0, 3.0, 4.0, 5.0])
    assert five.ci95 == pytest.approx(2.776445 * 2.5**0.5 / 5**0.5, rel=1e-6)


def test_one_or_no_seed_has_no_spread() -> None:
    assert (summarize([0.7]).mean, summarize([0.7]).std, summarize([0.7]).ci95) == (0.7, None, None)
    assert (summarize([]).n, summarize([]).mean) == (0, None)


def test_more_students_of_the_same_sets_are_no_more_sets() -> None:
    runs = {0: {0: 0.86, 1: 0.88, 2: 0.90}, 1: {0: 0.90, 1: 0.92}}  # means 0.88 and 0.91
    assert summarize_sets(runs) == summarize([0.88, 0.91])
    assert summarize_sets({0: {0: 0.5, 1: 0.9}}).ci95 is None
    assert summarize_sets({}).mean is None


# -- where variance comes from


def test_variance_between_sets_and_between_students() -> None:
    # Means 1.5, 3.5 and 9 about 14/3. MSW = (0.5 + 0.5 + 2) / 3 = 1; MSB = 2 · (361 + 49 + 676) / 36 / 2 = 181 / 6.
    found = components([[1.0, 2.0], [3.0, 4.0], [8.0, 10.0]])
    assert found.students == pytest.approx(1.0)
    assert found.sets == pytest.approx(math.sqrt((181 / 6 - 1) / 2))


def test_sets_of_unequal_numbers_of_students() -> None:
    # Means 2 and 5 about 3: MSW = 2 / 1, MSB = 2 · 1 + 1 · 4 = 6, k = 3 - (4 + 1) / 3 = 4 / 3; (6 - 2) / (4 / 3) = 3.
    found = components([[1.0, 3.0], [5.0]])
    assert (found.sets, found.students) == (pytest.approx(math.sqrt(3)), pytest.approx(math.sqrt(2)))


def test_sets_that_differ_less_than_chance_have_no_variance_of_their_own() -> None:
    assert components([[0.0, 2.0], [0.0, 2.0]]) == Components(0.0, math.sqrt(2))


def test_what_too_few_runs_cannot_tell() -> None:
    assert components([[1.0], [2.0]]) == Components()  # a student each
    assert components([[1.0, 3.0]]) == Components(None, math.sqrt(2))
    assert components([[], [1.0, 3.0]]) == Components(None, math.sqrt(2))
    assert components([]) == Components()


# -- what can be told apart


def test_paired_t_by_hand() -> None:
    # Differences 1, 2, 3: t = 2 · √3; with two degrees of freedom p = 1 - t / √(t² + 2) = 1 - √(12 / 14).
    assert paired_p(alone(2.0, 4.0, 6.0), alone(1.0, 2.0, 3.0)) == pytest.approx(1 - math.sqrt(12 / 14))
    assert paired_p(alone(1.0, 2.0, 3.0), alone(2.0, 4.0, 6.0)) == pytest.approx(1 - math.sqrt(12 / 14))


def test_only_seeds_that_both_have_are_paired() -> None:
    one = {0: {0: 2.0}, 1: {1: 4.0}, 2: {2: 6.0}, 7: {7: 100.0}}
    other = {0: {0: 1.0}, 1: {1: 2.0}, 2: {2: 3.0, 5: 100.0}, 8: {8: 0.0}}
    assert paired_p(one, other) == pytest.approx(1 - math.sqrt(12 / 14))
    assert paired_p({0: {0: 1.0}, 1: {1: 1.0}}, {0: {0: 1.0}, 1: {2: 1.0}}) is None  # one pair
    assert paired_p(alone(1.0), alone(2.0)) is None
    assert paired_p({}, alone(1.0, 2.0)) is None


def test_students_are_paired_by_seed_within_a_set() -> None:
    # Students differ by much, and from pair to pair by less (k - 1.5); the sets' means differ by 1, 2 and 3.
    one = {seed: {k: 11.0 * k - 1.5 + 2 * (seed + 1) for k in range(4)} for seed in range(3)}
    other = {seed: {k: 10.0 * k + 1 * (seed + 1) for k in range(4)} for seed in range(3)}
    one[1] = {k: 9.0 * k + 1.5 + 4 for k in range(4)}
    assert paired_p(one, other) == pytest.approx(1 - math.sqrt(12 / 14))


def test_differences_that_do_not_vary() -> None:
    row = (0.1, 0.2, 0.3)
    assert paired_p(alone(*row), alone(*row)) == 1.0
    assert paired_p(alone(*row), alone(*(value + 0.1 for value in row))) == 0.0  # but for the last bit


def test_holm_by_hand() -> None:
    # 0.005 · 4, 0.01 · 3, 0.03 · 2, and 0.04 · 1, which may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_rows_are_compared_with_the_best_and_corrected_together() -> None:
    best, close, far = alone(0.90, 0.91, 0.92), alone(0.90, 0.91, 0.90), alone(0.50, 0.52, 0.51)
    p_values = against_best([far, best, close])
    one, other = paired_p(best, far), paired_p(best, close)
    assert one is not None and other is not None and one < other
    assert p_values == [pytest.approx(2 * one), 1.0, pytest.approx(other)]
    assert [tied(p) for p in p_values] == [False, True, True]
    # alone with the best it takes no correction
    assert against_best([best, far])[1] == pytest.approx(one)


def test_with_one_set_only_equal_means_tie() -> None:
    p_values = against_best([alone(0.9), alone(0.9), alone(0.899), {}])
    assert p_values == [1.0, 1.0, None, None]
    assert [tied(p) for p in p_values] == [True, True, False, False]
    assert against_best([{}, {}]) == [None, None]
    assert against_best([]) == []


def test_no_more_false_alarms_than_promised() -> None:
    """Of tables whose ten rows are all alike, about one in twenty tells a row from the best; choosing the best among
    them raises that, so this bounds what the correction must achieve."""
    draw = random.Random(0)
    alarms = 0
    for _ in range(400):
        rows = [alone(*(draw.gauss(0.9, 0.01) for _ in range(5))) for _ in range(10)]
        alarms += not all(tied(p) for p in against_best(rows))
    assert alarms / 400 < 0.2


# -- DD-Ranking


def test_label_robust_score_by_hand() -> None:
    # Real images 0.9 and distilled ones 0.5 under hard labels, distilled 0.8 and random 0.7 under soft ones:
    # 0.5 · 0.1 - 0.5 · 0.4 = -0.15; (e^-0.15 - e^-1) / (e - e^-1) = (0.860708 - 0.367879) / 2.350402.
    assert label_robust(hlr=0.4, ior=0.1) == pytest.approx(0.209679, abs=1e-6)


def test_augmentation_robust_score_by_hand() -> None:
    # 0.5 · 0.1 + 0.5 · 0.3 = 0.2; (1.221403 - 0.367879) / 2.350402.
    assert augmentation_robust(with_views=0.1, without=0.3) == pytest.approx(0.363140, abs=1e-6)


def test_scores_run_from_0_to_1() -> None:
    assert [normalized(value) for value in (-1.0, 1.0)] == [pytest.approx(0.0), pytest.approx(1.0)]
    assert normalized(0.0) == pytest.approx(1 / (1 + math.e))
