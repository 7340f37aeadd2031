"""How students read labels: LPQLD's temperatures, HALD's order of soft and hard epochs, GIFT's cosine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.api import AugmentedBatch, EvaluationRequest, MethodInfo
from bench.api.stored.codec import LabelCodec
from bench.errors import UserError
from bench.kit.labels.codecs import codec_for
from bench.planning.protocols import all_protocols, changed
from evaluators import student_training
from evaluators.classification import Classification
from evaluators.label_reading import LabelReading, kl
from evaluators.student_protocol import ClassificationProtocol
from tests.evaluators.conftest import Judge, MakeTask, dataset, protocol


def batch(count: int = 4, weight: float = 1.0) -> AugmentedBatch:
    numbers = torch.arange(count)
    return AugmentedBatch(torch.zeros(count, 3, 4, 4), numbers, numbers, numbers.flip(0), numbers, weight, 0, 0)


def official(name: str) -> ClassificationProtocol:
    found = all_protocols()[f"official-{name}"]
    assert isinstance(found, ClassificationProtocol)
    return found


def logits(seed: int, rows: int = 4, classes: int = 6) -> Tensor:
    return 3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- LPQLD


def test_the_temperature_falls_in_steps_or_along_a_cosine() -> None:
    reading = LabelReading(official("lpqld"), 300)
    at = {1: 20, 29: 20, 30: 14, 179: 3.3614, 180: 2.35298, 209: 2.35298, 210: 2, 300: 2}
    assert {epoch: reading.temperature(epoch - 1) for epoch in at} == pytest.approx(at)
    assert LabelReading(official("lpqld"), 100).temperature(9) == pytest.approx(14)  # as many steps in fewer epochs
    cosine = LabelReading(protocol(temperature=20.0, temperature_min=2.0, temperature_schedule="cosine"), 300)
    assert [cosine.temperature(epoch - 1) for epoch in (150, 300)] == pytest.approx([11, 2])


@pytest.mark.parametrize("alpha", [0.005, 0.01, 0.03])
def test_calibration_finds_the_temperature_of_scaled_logits(alpha: float) -> None:
    reading, soft = LabelReading(official("lpqld"), 300), logits(0)
    assert reading.student_temperature(0) == 1.0  # the first
    reading.end_epoch(alpha * soft, soft, 0)
    assert reading.student_temperature(1) == reading.state()["calibrated"] == pytest.approx(20 * alpha)
    reading.end_epoch(soft, None, 1)  # an epoch of hard labels leaves it
    assert reading.calibrated == pytest.approx(20 * alpha)


def test_kept_logits_are_temperature_free() -> None:
    soft = logits(1).float()
    for keep in (2, 6):
        codec = codec_for(LabelCodec.parse(f"renorm{keep}+fp32"), 6)
        decoded = codec.decode(codec.encode(soft))
        for temperature in (2.0, 20.0):
            got, kept = (decoded / temperature).softmax(1), soft.topk(keep, 1)
            wanted = torch.zeros(4, 6).scatter(1, kept.indices, (kept.values / temperature).softmax(1))
            assert torch.allclose(got, wanted, atol=1e-6) and int((got > 0).sum()) == 4 * keep


# -- HALD


@pytest.mark.parametrize(
    ("epochs", "soft", "phases"), [(300, 150, (75, 150, 75)), (300, 151, (75, 149, 76)), (100, 300, (50, 0, 50))]
)
def test_soft_epochs_come_before_and_after_the_hard_ones(epochs: int, soft: int, phases: tuple[int, ...]) -> None:
    rules = protocol(epochs=epochs, soft_epochs=soft)
    views = Classification().schedule(rules, dataset().info, ipc=3, seed=0).epochs
    assert views == phases[0] + phases[2] and rules.hard_epochs(3) == phases[1]
    shown = rules.view_epochs(views, 3)
    assert sorted(shown) == list(range(epochs))
    assert [epoch < views for epoch in shown] == [True] * phases[0] + [False] * phases[1] + [True] * phases[2]
    assert Classification().samples_seen(rules, dataset().info, ipc=3) == 12 * epochs


def test_hard_epochs_ask_for_no_labels(make_task: MakeTask) -> None:
    judge = Judge()
    result = Classification().evaluate(make_task(protocol(epochs=5, soft_epochs=2, test_from=1), labels=judge))
    assert [views.epoch for _, views in judge.seen] == [0] * 3 + [1] * 3
    assert [step for step, _ in judge.seen] == [0, 1, 2, 12, 13, 14]
    assert result["epochs"] == 5 and len(result["curve"]) == 5


def test_without_hard_epochs_it_is_the_soft_training_to_the_bit(make_task: MakeTask, tmp_path: Path) -> None:
    found = [
        Classification().evaluate(make_task(protocol(test_from=1, **more), work=tmp_path / str(at)))
        for at, more in enumerate(({}, {"soft_epochs": 3}))
    ]
    assert found[0] == found[1]


def test_hard_labels_are_smoothed_and_mixed() -> None:
    output, views = logits(2), batch(weight=0.7)
    target = sum(
        share * (0.2 * F.one_hot(labels, 6) + 0.8 / 6)
        for share, labels in ((0.7, views.labels), (0.3, views.partner_labels))
    )
    assert isinstance(target, Tensor) and torch.allclose(target.sum(1), torch.ones(4))
    wanted = -(target * output.log_softmax(1)).sum(1).mean()
    assert float(LabelReading(official("hald"), 300)(output, None, views, 0)) == pytest.approx(float(wanted))


# -- GIFT


def test_the_cosine_is_of_directions_alone() -> None:
    plain, refined = (LabelReading(protocol(loss="cosine", refinement=weight), 3) for weight in (0.0, 0.1))
    output, soft, views = logits(3).requires_grad_(), logits(4), batch()
    assert plain(output, 7 * soft, views, 0).item() == pytest.approx(plain(output, soft, views, 0).item())
    assert float(plain(soft, soft, views, 0)) == pytest.approx(0, abs=1e-12)
    loss = refined(output, soft, views, 0)
    (gradient,) = torch.autograd.grad(loss, output)
    assert torch.allclose((gradient * output).sum(1), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    assert refined(output, 7 * soft, views, 0).item() == pytest.approx(loss.item())  # labels are of length 1 first
    assert refined(output, soft + 1, views, 0).item() != pytest.approx(loss.item())  # a shift is no scale


# -- what does not fit


@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_losses_of_all_logits_are_refused_with_labels_that_leave_classes_out(loss: str) -> None:
    def check(codec: str) -> None:
        codecs, info = (
            (LabelCodec.parse(codec),),
            MethodInfo(name="m", title="M", version=1, paper="", labels="teacher"),
        )
        rules = protocol(loss=loss)
        Classification().check(EvaluationRequest(rules, dataset().info, info, ("convnet3",), codecs))

    for codec in ("prune10+renorm2", "vq2", "lowrank2", "prune10+lowrank4+int8"):
        with pytest.raises(UserError, match="use topkK"):
            check(codec)
    for codec in ("topk2", "renorm4", "int8", "prune10+fp16"):
        check(codec)


def test_a_temperature_without_kl_is_refused() -> None:
    with pytest.raises(UserError, match="no temperature"):
        changed(official("gift"), {"student_temperature": "calibrated"})


# -- precision


def test_label_models_never_run_in_the_students_autocast(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[bool] = []
    outputs: list[torch.dtype] = []

    class Looks(Judge):
        def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
            inside.append(torch.is_autocast_enabled("cpu"))
            soft = super().soft_labels(views, step)
            assert soft.dtype == torch.float32
            return soft

    plain = LabelReading.__call__

    def spy(self: LabelReading, output: Tensor, *rest: Any) -> Tensor:
        outputs.append(output.dtype)
        return plain(self, output, *rest)

    monkeypatch.setattr(LabelReading, "__call__", spy)
    monkeypatch.setattr(student_training, "runs_in_bf16", lambda rules, device: rules.amp)
    result = Classification().evaluate(make_task(protocol(epochs=1), labels=Looks()))
    assert inside == [False] * 3 and set(outputs) == {torch.bfloat16}
    assert result["precision"] == "bf16 autocast"


def test_kl_of_equal_logits_is_zero() -> None:
    assert float(kl(logits(5), logits(5))) == pytest.approx(0, abs=1e-12)
