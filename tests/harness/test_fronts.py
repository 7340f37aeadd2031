"""Pareto fronts: who is on them, who beats whom, and the area under them by hand."""

from __future__ import annotations

import math
import random

import pytest

from bench.report_legacy.fronts import Point, dominated_by, front, hypervolume, pareto, reference_budget

#                  hard        small      worse        larger     best
POINTS: list[Point] = [(0, 0.5), (16, 0.8), (16, 0.7), (64, 0.75), (256, 0.9)]


def test_front_and_who_beats_the_rest() -> None:
    assert pareto(POINTS) == [True, True, False, False, True]
    assert dominated_by(POINTS) == [None, None, 1, 1, None]
    assert front(POINTS) == [0, 1, 4]


def test_equal_points_share_their_fate() -> None:
    assert pareto([(8, 0.5), (8, 0.5)]) == [True, True]
    assert dominated_by([(8, 0.5), (8, 0.5), (4, 0.6)]) == [2, 2, None]


def test_one_better_number_beats_the_other_being_equal() -> None:
    assert dominated_by([(8, 0.5), (9, 0.5)]) == [None, 0]
    assert dominated_by([(8, 0.5), (8, 0.6)]) == [1, None]


def test_no_bytes_beat_all_that_is_no_better() -> None:
    assert dominated_by([(0, 0.5), (1, 0.5), (1, 0.4)]) == [None, 0, 0]


def test_named_is_the_most_accurate_at_no_more_bytes() -> None:
    assert dominated_by([(1, 0.6), (2, 0.7), (4, 0.9), (3, 0.5)])[3] == 1


def test_nothing_and_one() -> None:
    assert (pareto([]), front([]), hypervolume([], 16), reference_budget([])) == ([], [], 0.0, 2)
    assert pareto([(3, 0.1)]) == [True]


def test_the_same_as_comparing_all_pairs() -> None:
    stream = random.Random(0)
    for _ in range(200):
        points = [(float(stream.randrange(8)), stream.randrange(8) / 8) for _ in range(stream.randrange(12))]
        for point, beaten in zip(points, dominated_by(points), strict=True):
            better = [p for p in points if p != point and p[0] <= point[0] and p[1] >= point[1]]
            assert (beaten is not None) == bool(better)
            if beaten is not None:
                assert points[beaten] in better
                assert points[beaten][1] == max(p[1] for p in better)


def test_area_by_hand() -> None:
    # From 1 B (the floor, where 0 bytes stand) to 2^10: 4 doublings at 0.5, 4 at 0.8, 2 at 0.9.
    assert hypervolume(POINTS, 1024) == pytest.approx((4 * 0.5 + 4 * 0.8 + 2 * 0.9) / 10)
    assert hypervolume([(16, 0.8)], 256) == pytest.approx(4 / 8 * 0.8)


def test_area_has_the_accuracy_as_its_bound() -> None:
    assert hypervolume([(0, 1.0)], 2**30) == 1.0
    assert hypervolume([(1, 0.3)], 1000) == pytest.approx(0.3)


def test_what_costs_more_than_the_budget_does_not_count() -> None:
    assert hypervolume([(0, 0.5), (65, 0.9)], 64) == pytest.approx(0.5)
    assert hypervolume([(65, 0.9)], 64) == 0.0


def test_beaten_points_add_no_area() -> None:
    assert hypervolume(POINTS, 1024) == hypervolume([POINTS[i] for i in front(POINTS)], 1024)


@pytest.mark.parametrize(("largest", "budget"), [(0, 2), (1, 2), (2, 2), (3, 4), (1024, 1024), (1025, 2048)])
def test_budget_is_a_power_of_two(largest: int, budget: int) -> None:
    assert reference_budget([(0, 0.1), (largest, 0.2)]) == budget


@pytest.mark.parametrize("point", [(-1, 0.5), (math.inf, 0.5), (math.nan, 0.5), (1, math.nan)])
def test_what_is_no_point_is_refused(point: Point) -> None:
    for verb in (pareto, dominated_by, front, reference_budget):
        with pytest.raises(ValueError, match="is no point"):
            verb([(1, 0.5), point])


@pytest.mark.parametrize("budget", [0, 1, math.inf, math.nan])
def test_what_is_no_budget_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        hypervolume([(1, 0.5)], budget)


def test_a_hundred_thousand_points_take_no_time() -> None:
    assert sum(pareto([(float(i), i / 1e5) for i in range(100_000)])) == 100_000
