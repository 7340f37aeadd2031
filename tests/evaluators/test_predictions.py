"""Evaluations hand over the predicted class of every test image, and these are the headline's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.kit.accuracy import TestImages
from bench.store import predictions
from evaluators.classification import Classification
from evaluators.continual import Continual
from tests.evaluators.conftest import CLASSES, CPU, MakeTask, dataset, protocol
from tests.evaluators.test_continual import rules as continual_rules


class Kept:
    """What was handed over."""

    def __call__(self, predicted: Tensor, labels: Tensor) -> None:
        assert not hasattr(self, "predicted"), "once"
        self.predicted, self.labels = predicted, labels

    def share(self, folder: Path) -> float:
        """The headline that the kept file gives."""
        predictions.save(self.predicted.numpy(), self.labels.numpy(), folder / predictions.FILE)
        (scores,) = predictions.load_scores(str(folder / predictions.FILE), ["x"]).values()
        return float(scores.mean())


@pytest.mark.parametrize("ema", [None, 0.5])
def test_classification(make_task: MakeTask, tmp_path: Path, ema: float | None) -> None:
    kept, usual = Kept(), protocol(epochs=2, ema=ema)
    result = Classification().evaluate(make_task(usual, keep_predictions=kept))
    assert kept.labels.equal(dataset().test.labels) and kept.predicted.shape == kept.labels.shape
    assert kept.share(tmp_path) == pytest.approx(result["top1"], abs=1e-12)
    again = Classification().evaluate(make_task(usual, work=tmp_path / "again"))
    assert again["curve"] == result["curve"]  # with and without they are the same numbers


def test_continual_in_the_order_of_the_test_set(make_task: MakeTask, tmp_path: Path) -> None:
    kept, other = Kept(), Kept()
    result = Continual().evaluate(make_task(continual_rules(steps=CLASSES), keep_predictions=kept))
    assert kept.predicted.shape == (CLASSES, len(dataset().test.labels))
    seen = [(row >= 0).nonzero().flatten() for row in kept.predicted]
    for (classes, top1), own, predicted in zip(result["steps"], seen, kept.predicted, strict=True):
        arrived = set(result["order"][:classes])
        assert {int(label) for label in kept.labels[own]} == arrived >= {int(one) for one in predicted[own]}
        assert (predicted[own] == kept.labels[own]).float().mean().item() == pytest.approx(top1)
    assert kept.share(tmp_path) == pytest.approx(result["top1"], abs=1e-12)

    class Stop(Exception):
        pass

    def die(done: int, total: int, **_: float) -> None:
        if done > total / 2:
            raise Stop

    with pytest.raises(Stop):
        Continual().evaluate(make_task(continual_rules(steps=CLASSES), progress=die, work=tmp_path / "torn"))
    Continual().evaluate(make_task(continual_rules(steps=CLASSES), keep_predictions=other, work=tmp_path / "torn"))
    assert other.predicted.equal(kept.predicted)


def test_a_part_of_the_images_has_its_own_answers() -> None:
    tests = TestImages(dataset().test, 16, CPU)
    few = tests.first(3)
    few.share_right(lambda pixels: torch.nn.functional.one_hot(torch.arange(len(pixels)) % CLASSES, CLASSES))
    assert few.predicted().tolist() == [0, 1, 2] and tests.answers == []
