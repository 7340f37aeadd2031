"""Coresets: each score by hand, and the selections."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.api import GridPoint, catalogue
from bench.errors import UserError
from methods.coreset import Coreset, budgets, cad, hardness, herding, k_center, of_probabilities, select, stratified
from methods.random_real import RandomReal

CHECKPOINTS, IMAGES = 9, 40
SCORES = ("el2n", "forgetting", "margin", "entropy", "kcenter", "herding", "ccs", "cad")


def drawn(seed: int = 0) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    p = torch.randn(CHECKPOINTS * IMAGES, 5, generator=stream).mul(2).softmax(1)
    scores = {
        name: values.view(CHECKPOINTS, IMAGES) for name, values in of_probabilities(p, torch.arange(360) % 5).items()
    }
    return {**scores, "entropy": scores["entropy"][-1], "features": torch.randn(IMAGES, 6, generator=stream)}


def config(score: str, **more: Any) -> Coreset.Config:
    return Coreset.Config.model_validate({"score": score, **more})


def test_scores_of_probabilities() -> None:
    p = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.25] * 4, [0.6, 0.3, 0.1, 0]])
    found = of_probabilities(p, torch.tensor([0, 0, 2, 1]))
    assert found["el2n"].tolist() == pytest.approx([0, math.sqrt(2), math.sqrt(0.75), math.sqrt(0.36 + 0.49 + 0.01)])
    assert found["margin"].tolist() == pytest.approx([1, -1, 0, -0.3])
    assert found["entropy"].tolist()[:3] == pytest.approx([0, 0, math.log(4)])
    assert found["right"].tolist() == [True, False, False, False]


def test_forgetting_counts_what_was_right_and_turned_wrong() -> None:
    right = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 1]]).bool().T
    own = {"right": right, "el2n": torch.zeros(5, 4)}
    assert hardness(config("forgetting"), own).tolist() == [2, 0, 5, 1]
    assert hardness(config("forgetting", never_learned="none"), own).tolist() == [2, 0, 0, 1]


def test_el2n_is_of_early_checkpoints_and_margins_of_all() -> None:
    own = drawn()
    torch.testing.assert_close(hardness(config("el2n"), own), own["el2n"][:3].mean(0))
    torch.testing.assert_close(hardness(config("margin"), own), -own["margin"].sum(0))
    assert torch.equal(hardness(config("entropy"), own), own["entropy"])


def test_cad_by_hand() -> None:
    """K = 6, J = 4, W = 2 leaves the windows 0-3 and 1-4."""
    assert cad(torch.full((6, 3), 0.7), 4, 2).tolist() == [0, 0, 0]
    row = [1.0, 2.0, 4.0, 3.0, 7.0, 100.0]

    def std(values: list[float]) -> float:
        mean = sum(values) / 4
        return math.sqrt(sum((value - mean) ** 2 for value in values) / 3)

    wanted = (std(row[:4]) + std(row[1:5])) / 2
    # of 6 scores and W = 2, the windows before the last one are those from 0 and from 1
    assert cad(torch.tensor(row)[:, None], 4, 2).tolist() == pytest.approx([wanted])
    nine = torch.rand(9, 4)
    torch.testing.assert_close(cad(nine, 6, 2), (nine[1:7].std(0) + nine[2:8].std(0)) / 2)


def test_k_center_takes_the_outlier_second() -> None:
    features = torch.cat([torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.full((1, 3), 50.0)])
    chosen = k_center(features, 5).tolist()
    medoid = int(torch.cdist(features, features).sum(1).argmin())
    assert chosen[:2] == [medoid, 20] and len(set(chosen)) == 5
    assert sorted(k_center(torch.zeros(4, 2), 4).tolist()) == [0, 1, 2, 3]


def test_herding_follows_the_mean() -> None:
    features = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    mean = features.mean(0)
    chosen = herding(features, 60)
    assert sorted(chosen.tolist()) == list(range(60))
    assert (60 * mean - features[chosen].sum(0)).norm() < 1e-4
    error = (features[herding(features, 6)].mean(0) - mean).norm()
    others = [(features[torch.randperm(60)[:6]].mean(0) - mean).norm() for _ in range(20)]
    assert error < sum(others) / 20 / 3


@pytest.mark.parametrize(("sizes", "count"), [([2, 2], 3), ([0, 1, 50, 3], 20), ([5] * 10, 50), ([1, 0, 0, 9], 10)])
def test_budgets_of_bins_add_up(sizes: list[int], count: int) -> None:
    found = budgets(sizes, count)
    assert sum(found) == count and all(budget <= size for budget, size in zip(found, sizes, strict=True))


def test_ccs_leaves_out_the_hardest_and_spreads() -> None:
    hard = torch.cat([torch.linspace(0, 0.1, 60), torch.linspace(0.1, 10, 40)])
    chosen = stratified(hard, 20, 0.3, 0)
    assert len(set(chosen.tolist())) == 20 and hard[chosen].max() <= hard.sort().values[69]
    assert (hard[chosen] > 0.1).sum() >= 9  # of 10 that are kept
    assert not torch.equal(chosen, stratified(hard, 20, 0.3, 1))
    assert len(stratified(torch.zeros(10), 7, 0.3, 0)) == 7


@pytest.mark.parametrize("score", SCORES)
def test_selections_are_of_images_whatever_their_order(score: str) -> None:
    own, order = drawn(), torch.randperm(IMAGES, generator=torch.Generator().manual_seed(4))
    mixed = {name: t[order] if name in ("entropy", "features") else t[:, order] for name, t in own.items()}
    first, again = select(config(score), own, 7, 3), select(config(score), mixed, 7, 3)
    assert len(set(first.tolist())) == 7
    assert set(order[again].tolist()) == set(first.tolist())
    assert torch.equal(select(config(score), own, 7, 3), first)


def test_the_easy_end_and_an_offset() -> None:
    own = drawn()
    ranked = own["entropy"].argsort(descending=True).tolist()
    assert select(config("entropy", offset=5), own, 4, 0).tolist() == ranked[5:9]
    assert select(config("entropy", easy=True), own, 4, 0).tolist() == ranked[::-1][:4]


@pytest.mark.parametrize(
    ("settings", "ipc", "says"),
    [
        ({"offset": 130}, 20, "has 9 images per class to choose from"),
        ({"score": "ccs"}, 120, "lower --ipc, or coreset.beta"),
        ({"score": "cad", "windows": 8}, 1, "needs 10 checkpoints and the teacher keeps"),
    ],
)
def test_what_can_not_be_chosen(settings: dict[str, Any], ipc: int, says: str) -> None:
    point = GridPoint(catalogue.dataset("digits"), ipc, 0)
    with pytest.raises(UserError, match=says):
        Coreset(Coreset.Config.model_validate(settings)).check(point)


def test_random_images_are_those_of_the_baseline() -> None:
    point, method = GridPoint(catalogue.dataset("digits"), 1, 0), Coreset(config("random"))
    assert isinstance(method.images_from(point), RandomReal) and not method.distills(point)
