"""Students that learn from stored labels: as from who gave them, and from no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.api import EvaluationTask, Progress
from bench.api.seeds import seed_for
from bench.api.stored.codec import LabelCodec
from bench.errors import UserError
from bench.kit.labels.stored import StoredLabels
from bench.kit.labels.storing import store
from bench.kit.views import AugmentationConfig, AugmentedBatch
from evaluators.classification import Classification, ClassificationProtocol
from tests.evaluators.conftest import (
    CLASSES,
    CPU,
    SIDE,
    Judge,
    MakeTask,
    Outcome,
    images,
    protocol,
)
from tests.stopping import stopped_every


def stored(task: EvaluationTask, work: Path, codec: str, **schedule: Any) -> StoredLabels:
    """A judge's answers to the views of a task, or of a schedule that differs from it."""
    assert isinstance(task.protocol, ClassificationProtocol) and task.images is not None
    views = Classification().schedule(task.protocol, task.dataset, ipc=len(task.images) // CLASSES, seed=task.seed)
    work.mkdir()
    views = views.model_copy(update=schedule)
    order_hash, silent = task.data.order_hash, lambda *_, **__: None
    return store(Judge(), task.images, views, LabelCodec.parse(codec), order_hash, work, CPU, silent)


@pytest.mark.parametrize("rules", [protocol(), protocol(loss="mse", ce_weight=0.1, mix="mixup", micro_batches=2)])
def test_stored_answers_teach_as_the_model_that_gave_them(
    make_task: MakeTask, evaluate: Callable[[EvaluationTask], Outcome], tmp_path: Path, rules: ClassificationProtocol
) -> None:
    online = make_task(rules)
    kept = make_task(rules, labels=stored(online, tmp_path / "labels", "fp32"))
    (one, first, _), (other, second, _) = evaluate(online), evaluate(kept)
    assert one == other
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_pruned_labels_show_only_the_views_that_are_kept(make_task: MakeTask, tmp_path: Path) -> None:
    rules = protocol(epochs=6)
    labels = stored(make_task(rules), tmp_path / "labels", "prune3+fp32")
    seen: list[tuple[int, int]] = []
    plain = StoredLabels.soft_labels

    def spy(self: StoredLabels, views: AugmentedBatch, step: int) -> Tensor:
        seen.append((views.epoch, views.batch))
        answers = plain(self, views, step)
        assert torch.equal(answers, Judge().soft_labels(views, step))  # the views are those that were labelled
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredLabels, "soft_labels", spy)
        Classification().evaluate(make_task(rules, labels=labels))
    assert len(seen) == 6 * 3 and len(set(seen)) <= 6  # 18 batches, a third of them kept


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("codec", ["fp16", "prune3+fp32"])
def test_stopped_again_and_again_they_teach_to_the_same_bits(
    make_task: MakeTask, evaluate: Callable[[EvaluationTask], Outcome], tmp_path: Path, codec: str, every: int
) -> None:
    rules = protocol(epochs=6)
    labels = stored(make_task(rules), tmp_path / "labels", codec)

    def run(progress: Progress, work: str = "stopped") -> Outcome:
        return evaluate(make_task(rules, labels=labels, work=tmp_path / work, progress=progress))

    whole, trained, _ = run(lambda *_, **__: None, "whole")
    (resumed, again, _), told = stopped_every(every, run)
    assert told == list(range(1, 19))
    assert resumed == whole
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"epochs": 2}, "epochs 2, expected 3"),
        ({"batch_size": 4}, "batch_size 4, expected 5"),
        ({"plan": AugmentationConfig(size=SIDE, mix="cutmix", min_scale=0.5, flip=True)}, "seed 0, expected"),
        (
            {"plan": AugmentationConfig(size=SIDE, seed=seed_for("student-views", 0), flip=True)},
            "min_scale 0.08, expected 0.5",
        ),
    ],
)
def test_labels_of_other_views_are_refused_by_name(
    make_task: MakeTask, tmp_path: Path, schedule: dict[str, Any], words: str
) -> None:
    task = make_task(protocol())
    labels = stored(task, tmp_path / "labels", "fp16", **schedule)
    with pytest.raises(UserError, match=f"other views than those of test: {words}"):
        Classification().evaluate(make_task(protocol(), labels=labels))


def test_labels_of_other_images_or_another_class_order_are_refused(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(protocol())
    labels = stored(task, tmp_path / "labels", "fp16")
    with pytest.raises(UserError, match="another image set"):
        Classification().evaluate(make_task(protocol(), labels=labels, images=images(seed=5)))
    reordered = dataclasses.replace(task.data, ids=tuple(reversed(task.data.ids)))
    with pytest.raises(UserError, match="another class order"):
        Classification().evaluate(make_task(protocol(), labels=labels, data=reordered))


@pytest.mark.parametrize("loss", ["mse", "cosine"])
@pytest.mark.parametrize("codec", ["renorm2", "lowrank2", "vq1"])
def test_incomplete_labels_go_with_kl_alone(make_task: MakeTask, tmp_path: Path, codec: str, loss: str) -> None:
    rules = protocol(loss=loss)
    labels = stored(make_task(rules), tmp_path / "labels", codec)
    with pytest.raises(UserError, match="use topkK"):
        Classification().evaluate(make_task(rules, labels=labels))
