"""A tiny classification task: bars of four classes, a small student, a random network that labels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from bench.api import Dataset, DatasetInfo, EvaluationTask, Images, LabelSource, TeacherSpec
from bench.kit import models
from bench.kit.data.dataset import Resident
from bench.kit.views import AugmentedBatch
from evaluators import classification
from evaluators.classification import Classification
from evaluators.student_protocol import ClassificationProtocol

CLASSES, SIDE, TEST = 4, 16, 37
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
STUDENT = "resnet10-small-w8"  # its convolutions have no bias: under a batch norm, that would drift by rounding alone
CPU = torch.device("cpu")


def protocol(**changes: Any) -> ClassificationProtocol:
    plain = {
        "name": "test", "version": 1, "track": "common", "title": "test", "epochs": 3, "batch_size": 5, "test_from": 2,
        "test_every": 1, "full_data": {"epochs": 2, "batch_size": 16}, "min_scale": 0.5, "temperature": 4.0,
        "lr": 2e-3,
    }  # fmt: skip
    return ClassificationProtocol.model_validate(plain | changes)


def images(ipc: int = 3, seed: int = 0) -> Images:
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(ipc)
    pixels = torch.randint(0, 150, (len(labels), 3, SIDE, SIDE), generator=stream)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        image[label % 3, label * 4 : label * 4 + 4] += 100
    return Images(pixels.to(torch.uint8), labels)


def dataset() -> Dataset:
    info = DatasetInfo(
        name="bars", title="Bars", classes=CLASSES, image_size=SIDE, smallest_class=7, train_images=28,
        test_images=TEST, mean=MEAN, std=STD, teacher=TeacherSpec(), clip="icon-clip", student=STUDENT,
    )  # fmt: skip
    names = tuple(map(str, range(CLASSES)))
    train, test = images(7, 1), images(10, 2)
    odd = Resident(test.pixels[:TEST], test.labels[:TEST])
    return Dataset(info, names, names, Resident(train.pixels, train.labels), odd)


class Judge(LabelSource):
    """A random network that labels any view and remembers what it saw."""

    kind = "judge"

    def __init__(self, seed: int = 9) -> None:
        torch.manual_seed(seed)
        self.net = models.build("convnet2-w8", CLASSES, SIDE, MEAN, STD).eval().requires_grad_(False)
        self.seen: list[tuple[int, AugmentedBatch]] = []

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        self.seen.append((step, views))
        logits: Tensor = 5 * self.net(views.pixels)
        return logits

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError


MakeTask = Callable[..., EvaluationTask]


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    def make(rules: ClassificationProtocol, **changes: Any) -> EvaluationTask:
        data = dataset()
        facts: dict[str, Any] = {
            "dataset": data.info, "data": data, "images": images(), "labels": Judge(), "student": STUDENT,
            "protocol": rules, "seed": 0, "device": CPU, "work": tmp_path, "progress": lambda *_, **__: None,
        } | changes  # fmt: skip
        facts["work"].mkdir(exist_ok=True)
        facts.setdefault("ipc", None if facts["images"] is None else len(facts["images"]) // CLASSES)
        return EvaluationTask(**facts)

    return make


Outcome = tuple[dict[str, Any], nn.Module, dict[str, Tensor]]


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Callable[[EvaluationTask], Outcome]:
    """The result, the trained student and the weights it began with."""

    def run(task: EvaluationTask) -> Outcome:
        caught: dict[str, Any] = {}
        plain = classification.train_classifier

        def train(student: nn.Module, *rest: Any) -> Any:
            caught["student"], caught["start"] = student, copy.deepcopy(student.state_dict())
            return plain(student, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(classification, "train_classifier", train)
            result = Classification().evaluate(task)
        return result, caught["student"], caught["start"]

    return run
