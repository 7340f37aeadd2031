"""The student loop against a slow one in plain torch, and what its metrics mean."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from bench import stopping
from bench.api import Dataset, EvaluationTask, Progress
from bench.api.seeds import seed_for
from bench.kit import accuracy, models
from bench.kit.checkpoint import Checkpoint
from bench.kit.data.dataset import Files, Resident
from bench.kit.validation import Diverged
from bench.kit.views import AugmentationConfig, AugmentationStream, AugmentedBatch
from evaluators.classification import Classification
from evaluators.label_reading import LabelReading
from evaluators.student_protocol import ClassificationProtocol, by_ipc
from tests.evaluators.conftest import (
    CLASSES,
    CPU,
    MEAN,
    SIDE,
    STD,
    STUDENT,
    TEST,
    Judge,
    MakeTask,
    Outcome,
    protocol,
)
from tests.stopping import stopped_every

# -- the reference


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in double precision: differences that are no rounding show, and rounding does not grow."""
    plain = models.build
    monkeypatch.setattr(models, "build", lambda *names, **more: plain(*names, **more).double())


def reference_loss(logits: Tensor, views: AugmentedBatch, rules: ClassificationProtocol, judge: Judge | None) -> Tensor:
    if judge is None:
        total = torch.zeros(())
        for row, label, partner in zip(logits, views.labels.tolist(), views.partner_labels.tolist(), strict=True):
            log = row - row.exp().sum().log()
            total = total - views.weight * log[label] - (1 - views.weight) * log[partner]
        return total / len(logits)
    soft = judge.soft_labels(views, 0)
    if rules.loss == "mse":
        hard = -torch.stack([row.log_softmax(0)[label] for row, label in zip(logits, views.labels, strict=True)]).mean()
        return ((logits - soft) ** 2).mean() + rules.ce_weight * hard
    if rules.loss == "cosine":
        total = torch.zeros(())
        for row, label, wanted in zip(logits, views.labels.tolist(), soft, strict=True):
            smooth = torch.full_like(wanted, 0.1 / (CLASSES - 1))
            smooth[label] = 0.9
            target = wanted / wanted.norm() + rules.refinement * smooth / smooth.norm()
            total = total + 1 - (row @ target) / (row.norm() * target.norm())
        return total / len(logits)
    wanted, got = (soft / rules.temperature).softmax(1), (logits / rules.temperature).softmax(1)
    scale = rules.temperature**2 if rules.squared_temperature else 1
    return scale * (wanted * (wanted.log() - got.log())).sum() / len(logits)


def factor(schedule: str, epoch: int, epochs: int) -> float:
    found: dict[str, float] = {
        "cosine": (1 + math.cos(math.pi * epoch / epochs)) / 2,
        "half_cosine": (1 + math.cos(math.pi * epoch / (2 * epochs))) / 2,
        "half_linear": 1 - epoch / (2 * epochs),
        "constant": 1.0,
    }
    return found[schedule]


def accuracy_of(model: nn.Module, test: Resident) -> float:
    """One image at a time."""
    model.eval()
    with torch.no_grad():
        found = [int(model(image[None] / 255).argmax()) for image in test.pixels]
    right: int = sum(a == b for a, b in zip(found, test.labels.tolist(), strict=True))
    return right / len(found)


def reference(task: EvaluationTask, twice: bool = False) -> tuple[nn.Module, list[float]]:
    """Plain layout, plain optimizer, one loop; ``twice``: RDED's second forward in training mode."""
    rules = task.protocol
    assert isinstance(rules, ClassificationProtocol) and isinstance(task.data.test, Resident)
    assert task.images is not None and isinstance(rules.epochs, int) and isinstance(rules.batch_size, int)
    torch.manual_seed(seed_for("student-init", task.seed))
    model = models.build(STUDENT, CLASSES, SIDE, MEAN, STD)
    average = copy.deepcopy(model)
    groups = [
        {
            "params": [p],
            "weight_decay": rules.weight_decay if rules.decay_all or ("weight" in name and p.ndim > 1) else 0.0,
        }
        for name, p in model.named_parameters()
    ]
    lr = rules.lr
    assert isinstance(lr, float) and isinstance(rules.schedule, str)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=lr, foreach=False)
    if rules.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=rules.momentum, foreach=False)
    plan = AugmentationConfig(
        size=SIDE, crop=rules.crop, min_scale=rules.min_scale, flip=rules.flip, shuffle=rules.shuffle, mix=rules.mix,
        alpha=rules.alpha, seed=seed_for("student-views", task.seed),
    )  # fmt: skip
    stream = AugmentationStream(plan, len(task.images))
    judge = Judge() if task.labels is not None else None
    found = []
    for epoch in range(rules.epochs):
        model.train()
        for group in optimizer.param_groups:
            rest = factor(rules.schedule, epoch - rules.warmup, rules.epochs - rules.warmup)
            group["lr"] = lr * (0.01 + 0.99 * epoch / rules.warmup if epoch < rules.warmup else rest)
        batches = stream.order(epoch).split(rules.batch_size)
        for batch, indices in enumerate(batches):
            views = stream.make(task.images.pixels, task.images.labels, indices, epoch, batch)
            if twice:
                with torch.no_grad():
                    model(views.pixels)
            for rows in torch.arange(len(views)).split(-(-rules.batch_size // rules.micro_batches)):
                tensors = {key: one[rows] for key, one in vars(views).items() if isinstance(one, Tensor)}
                part = replace(views, **tensors)  # type: ignore[arg-type]
                (reference_loss(model(part.pixels), part, rules, judge) / rules.micro_batches).backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for mine, theirs in zip(average.parameters(), model.parameters(), strict=True):
                    mine.copy_((rules.ema or 0) * mine + (1 - (rules.ema or 0)) * theirs)
        for old, new in zip(average.buffers(), model.buffers(), strict=True):
            old.copy_(new)
        found.append(accuracy_of(average, task.data.test))
    return model, found


CASES: dict[str, dict[str, Any]] = {
    "kl": {},
    "kl by rded": {"schedule": "half_cosine", "temperature": 20.0, "bn_momentum": 0.19, "crop": "none", "lr": 1e-3},
    "kl with decay": {"weight_decay": 0.3},
    "kl with decay of all": {"weight_decay": 0.3, "decay_all": True},
    "cosine by gift": {"loss": "cosine", "refinement": 0.1, "mix": "none"},
    "mse by edc": {
        "loss": "mse", "ce_weight": 0.025, "schedule": "half_linear", "ema": 0.9, "shuffle": 2, "epochs": 5,
    },
    "mse": {"loss": "mse", "optimizer": "sgd", "lr": 1e-2, "mix": "mixup", "alpha": 0.8},
    "kl by sre2l on tiny": {
        "optimizer": "sgd", "warmup": 2, "epochs": 5, "squared_temperature": True, "mix": "none", "weight_decay": 1e-4,
    },
    "mse by g_vbsm on tiny": {"loss": "mse", "ce_weight": 0.1, "optimizer": "sgd", "lr": 1e-2, "micro_batches": 2},
    "hard": {"optimizer": "sgd", "lr": 2e-2, "schedule": "constant"},
    "hard without mix": {"mix": "none", "flip": False, "crop": "shift"},
}  # fmt: skip


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("case", CASES)
def test_equals_a_plain_loop(make_task: MakeTask, evaluate: Callable[[EvaluationTask], Outcome], case: str) -> None:
    rules = protocol(**{"test_from": 1, **CASES[case]})
    task = make_task(rules, **({"labels": None} if case.startswith("hard") else {}))
    result, student, _ = evaluate(task)
    wanted, accuracies = reference(task, twice=case == "kl by rded")
    got = student.state_dict()
    for name, tensor in wanted.state_dict().items():
        if "num_batches" not in name:
            assert tensor.dtype == torch.float64
            assert torch.allclose(got[name], tensor, atol=1e-7, rtol=1e-5), name
    assert result["curve"] == [(epoch + 1, top1) for epoch, top1 in enumerate(accuracies)]
    assert result["top1"] == accuracies[-1]


@pytest.mark.usefixtures("double")
def test_kl_is_the_divergence_of_teacher_from_student_without_t_squared(make_task: MakeTask) -> None:
    rules = protocol(temperature=20.0)
    logits, judge = torch.randn(5, CLASSES), Judge()
    numbers = torch.arange(5) % CLASSES
    views = AugmentedBatch(torch.rand(5, 3, SIDE, SIDE), numbers, numbers, numbers, numbers, 0.7, 0, 0)
    loss = LabelReading(rules, 3)(logits, judge.soft_labels(views, 0), views, 0)
    assert float(loss) == pytest.approx(float(reference_loss(logits, views, rules, judge)), rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_student_is_a_failure_and_no_number(make_task: MakeTask, value: float) -> None:
    class Breaks(Judge):
        def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
            return super().soft_labels(views, step) * (value if views.epoch == 1 else 1)

    with pytest.raises(Diverged, match="diverged at epoch 2"):
        Classification().evaluate(make_task(protocol(loss="mse"), labels=Breaks()))


# -- killed and gone on


@pytest.mark.parametrize("rules", [protocol(ema=0.9, epochs=5), protocol(optimizer="sgd", epochs=5)])
def test_killed_in_an_epoch_it_goes_on_to_the_same_bits(
    make_task: MakeTask,
    evaluate: Callable[[EvaluationTask], Outcome],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rules: ClassificationProtocol,
) -> None:
    whole, student, _ = evaluate(make_task(rules, work=tmp_path / "whole"))
    monkeypatch.setattr(Checkpoint, "due", lambda _: True)

    def killed_at(step: int) -> Callable[..., None]:
        def progress(done: int, total: int, **_: float) -> None:
            if done == step:
                raise KeyboardInterrupt

        return progress

    for step in (8, 14):  # of three an epoch: in the third, then in the fifth
        with pytest.raises(KeyboardInterrupt):
            evaluate(make_task(rules, progress=killed_at(step)))
    steps: list[int] = []
    resumed, again, _ = evaluate(make_task(rules, progress=lambda done, total, **_: steps.append(done)))
    assert steps == [14, 15]  # killed before it was saved
    assert resumed == whole
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in student.state_dict().items())


STOPPED: dict[str, dict[str, Any]] = {
    "with an average": {"ema": 0.9},
    "with two parts a batch": {"micro_batches": 2, "optimizer": "sgd"},
    "mse with an average and two parts a batch": {"loss": "mse", "ema": 0.9, "micro_batches": 2, "mix": "mixup"},
    "calibrated, with hard epochs": {
        "student_temperature": "calibrated",
        "temperature_schedule": "step",
        "temperature_steps": 3,
        "soft_epochs": 2,
    },
}


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("student", [STUDENT, "swin-small"])  # the second drops blocks at random
@pytest.mark.parametrize("case", STOPPED)
def test_stopped_again_and_again_it_ends_with_the_same_bits(
    make_task: MakeTask,
    evaluate: Callable[[EvaluationTask], Outcome],
    tmp_path: Path,
    case: str,
    student: str,
    every: int,
) -> None:
    rules = protocol(**STOPPED[case])
    whole, trained, _ = evaluate(make_task(rules, student=student, work=tmp_path / "whole"))

    def run(progress: Progress) -> Outcome:
        return evaluate(make_task(rules, student=student, work=tmp_path / "stopped", progress=progress))

    (resumed, again, _), told = stopped_every(every, run)
    assert told == list(range(1, 10))
    assert resumed == whole
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


@pytest.mark.parametrize("every", [1, 3])
def test_full_data_from_files_stopped_again_and_again_ends_with_the_same_bits(
    make_task: MakeTask, evaluate: Callable[[EvaluationTask], Outcome], tmp_path: Path, every: int
) -> None:
    data = make_task(protocol()).data
    assert isinstance(data.train, Resident)
    paths = [tmp_path / f"{index}.png" for index in range(len(data.train))]
    for path, pixels in zip(paths, data.train.pixels, strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    lazily = Dataset(data.info, data.names, data.ids, Files(paths, data.train.labels, workers=2), data.test)

    def run(progress: Progress, work: str = "stopped") -> Outcome:
        facts: dict[str, Any] = {"images": None, "labels": None, "data": lazily, "work": tmp_path / work}
        rules = protocol(full_data={"epochs": 2, "batch_size": 6})
        return evaluate(make_task(rules, progress=progress, **facts))

    whole, trained, _ = run(lambda *_, **__: None, "whole")
    (resumed, again, _), told = stopped_every(every, run)
    assert told == list(range(1, 11))
    assert resumed == whole
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


def test_a_stop_in_a_test_is_heard_at_the_next_step_and_the_test_is_not_lost(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Iterator[float] = iter([0.2, 0.9, 0.5])

    def tested(*_: object) -> float:
        stopping.ask()
        return next(answers)

    monkeypatch.setattr(accuracy.TestImages, "top1", tested)
    try:
        for _ in range(2):
            with pytest.raises(stopping.Stopped):
                Classification().evaluate(make_task(protocol(test_from=1)))
            stopping.forget()
        assert Classification().evaluate(make_task(protocol(test_from=1)))["curve"] == [(1, 0.2), (2, 0.9), (3, 0.5)]
    finally:
        stopping.forget()


# -- what is the same for all methods


def test_a_student_seed_means_the_same_start_and_views_for_every_method(
    make_task: MakeTask, evaluate: Callable[[EvaluationTask], Outcome], tmp_path: Path
) -> None:
    rules, judges, starts = protocol(), [Judge(1), Judge(2), Judge(1)], []
    for index, (judge, seed) in enumerate(zip(judges, (7, 7, 8), strict=True)):
        torch.manual_seed(index)  # whatever was drawn before
        starts.append(evaluate(make_task(rules, labels=judge, seed=seed, work=tmp_path / str(index)))[2])
    pairs = list(zip(judges[0].seen, judges[1].seen, strict=True))
    assert all(torch.equal(one.pixels, other.pixels) for (_, one), (_, other) in pairs)
    assert [step for step, _ in judges[0].seen] == list(range(9))
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not torch.equal(starts[0]["net.fc.weight"], starts[2]["net.fc.weight"])
    assert not torch.equal(judges[0].seen[0][1].pixels, judges[2].seen[0][1].pixels)


def test_the_last_epoch_headlines_and_the_best_is_the_oracle(
    make_task: MakeTask, evaluate: Callable[[EvaluationTask], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Iterator[float] = iter([0.2, 0.9, 0.5])
    monkeypatch.setattr(accuracy.TestImages, "top1", lambda *_: next(answers))
    result, student, _ = evaluate(make_task(protocol(epochs=7, test_every=3)))
    assert result["curve"] == [(2, 0.2), (5, 0.9), (7, 0.5)]
    assert (result["top1"], result["oracle_top1"]) == (0.5, 0.9)
    assert result["parameters"] == sum(p.numel() for p in student.parameters())
    assert (result["test_images"], result["images"], result["epochs"]) == (TEST, 12, 7)


@pytest.mark.parametrize(
    ("rules", "epochs", "images", "tested", "at"),
    [
        ({"tests": 1}, 10, 100, 10, [10]),
        ({"tests": 10}, 2, 100, 10, [1, 2]),
        ({"tests": 3}, 7, 100, 10, [3, 5, 7]),
        ({}, 30, 50, 100, [8, 15, 23, 30]),  # 30 * 50 samples cost 4,500 passes: four tests of 100 are below a tenth
        ({}, 30, 50, 10_000, [30]),
        ({"test_every": 10}, 30, 1, 10_000, [1, 11, 21, 30]),
        ({"test_every": 10, "test_from": 25}, 40, 1, 1, [25, 35, 40]),
        ({"test_every": 10, "test_from": 250}, 30, 1, 1, [30]),
    ],
)
def test_tests_cost_a_tenth_of_training_or_are_at_the_protocols_epochs(
    rules: dict[str, Any], epochs: int, images: int, tested: int, at: list[int]
) -> None:
    found = protocol(**{"test_every": None, "test_from": 1, **rules}).test_epochs(epochs, images, tested)
    assert sorted(found) == at


def test_full_data_has_epochs_and_batches_of_its_own_and_no_mosaics(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[AugmentationConfig] = []
    plain = AugmentationStream.__init__

    def spy(self: AugmentationStream, plan: AugmentationConfig, count: int) -> None:
        plans.append(plan)
        plain(self, plan, count)

    monkeypatch.setattr(AugmentationStream, "__init__", spy)
    steps: list[tuple[int, int]] = []
    result = Classification().evaluate(
        make_task(
            protocol(shuffle=2), images=None, labels=None, progress=lambda done, total, **_: steps.append((done, total))
        )
    )
    assert result["images"] == 28 and result["epochs"] == 2
    assert steps[-1] == (4, 4)  # two epochs of two batches
    assert plans[0].shuffle == 1


def test_batches_are_never_larger_than_the_set(make_task: MakeTask) -> None:
    steps: list[int] = []
    Classification().evaluate(
        make_task(protocol(batch_size=500), progress=lambda done, total, **_: steps.append(total))
    )
    assert steps == [3, 3, 3]


def test_a_data_set_can_forbid_the_flip(make_task: MakeTask) -> None:
    info = make_task(protocol()).dataset
    assert Classification().schedule(protocol(), info, ipc=1, seed=0).plan.flip
    assert not Classification().schedule(protocol(), info.model_copy(update={"flip": False}), ipc=1, seed=0).plan.flip


def test_numbers_by_ipc() -> None:
    table: dict[int, int] = {1: 10, 10: 50, 50: 100}
    assert [by_ipc(table, ipc) for ipc in (1, 2, 9, 10, 49, 50, 200)] == [10, 10, 10, 50, 50, 100, 100]
    assert by_ipc(100, 7) == 100
    assert by_ipc({10: 50}, 1) == 50  # below the first: the first


# -- exact accuracy


class Stripes(nn.Module):
    """Answers with the brightest quarter of the first channel."""

    def forward(self, pixels: Tensor) -> Tensor:
        assert not self.training
        return pixels[:, 0].reshape(len(pixels), CLASSES, -1).mean(2)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 515])
@pytest.mark.parametrize("resident", [True, False])
def test_accuracy_counts_every_image_once(monkeypatch: pytest.MonkeyPatch, count: int, resident: bool) -> None:
    if not resident:
        monkeypatch.setattr(accuracy.TestImages, "RESIDENT_BYTES", 0)
    stream = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=stream, dtype=torch.uint8)
    split = Resident(pixels, torch.randint(0, CLASSES, (count,), generator=stream))
    model = Stripes()
    tests = accuracy.TestImages(split, SIDE, CPU)
    assert tests.count == count and (tests.resident is not None) == resident
    right = sum(
        int(F.adaptive_avg_pool2d(image[0].float()[None, None] / 255, (CLASSES, 1)).argmax()) == label
        for image, label in zip(pixels, split.labels.tolist(), strict=True)
    )
    assert tests.top1(model) == right / count
    assert model.training  # as it was


def test_a_limit_spreads_the_images_evenly() -> None:
    split = Resident(torch.zeros(10, 3, 4, 4, dtype=torch.uint8), torch.arange(10))
    tests = accuracy.TestImages(split, 4, CPU, limit=4)
    assert tests.resident is not None
    assert torch.cat([labels for _, labels in tests.resident]).tolist() == [0, 2, 5, 7]
    assert accuracy.TestImages(split, 4, CPU, limit=99).count == 10
