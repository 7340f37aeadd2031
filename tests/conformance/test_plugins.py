"""The suites of evaluators and students, on those of this package and on some that fail."""

from __future__ import annotations

from typing import Any

import pytest

from bench.api import EvaluationTask, Student, architectures
from bench.conformance import EvaluatorConformance, StudentConformance, run
from evaluators.classification import Classification

RECIPE = {"epochs": 3, "batch_size": 3, "full_data": {"epochs": 1, "batch_size": 9}, "test_from": 2, "test_every": 1}


class TestClassification(EvaluatorConformance):
    evaluator = "classification"
    settings = RECIPE


class TestContinual(EvaluatorConformance):
    evaluator = "continual"
    settings = RECIPE | {"steps": 2}


class TestEfficiency(EvaluatorConformance):
    evaluator = "efficiency"
    settings = RECIPE | {"untimed": 1, "steps": 1, "blocks": 2}


class TestVit(StudentConformance):
    student = "vit-small"


def test_an_evaluator_that_keeps_something_for_itself() -> None:
    calls: list[EvaluationTask] = []

    class Counting(Classification):
        def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
            calls.append(task)
            return {**super().evaluate(task), "top1": float(len(calls))}

    suite = type("Suite", (EvaluatorConformance,), {"evaluator": Counting, "settings": RECIPE, "ipc": 1})
    failed = {outcome.title: outcome.reason for outcome in run(suite) if outcome.passed is False}
    assert failed["metrics are plain and repeatable"] == "the same seed gave other metrics"


def test_a_student_with_a_part_that_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(classes: int, image_size: int) -> Any:
        from torch import nn

        class Odd(nn.Sequential):
            def __init__(self) -> None:
                super().__init__(nn.AvgPool2d(image_size), nn.Flatten(), nn.Linear(3, classes + 1))
                self.idle = nn.Parameter(self[2].bias.clone())

        return Odd()

    monkeypatch.setattr(architectures, "check", lambda name: None)
    monkeypatch.setattr(architectures, "plugin", lambda name: Student(title="Odd", build=build))
    suite = type("Suite", (StudentConformance,), {"student": "odd"})
    failed = {outcome.title: outcome.reason for outcome in run(suite) if outcome.passed is False}
    assert "(3, 8), expected float32 (3, 7)" in failed["logits have a column per class"]
    assert failed["gradients reach every parameter"] == "no gradient reaches net.idle"
