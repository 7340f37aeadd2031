"""The projector: zero-shot start, folding and merging, loss, training that resumes, and what is stored."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import Dataset, DatasetInfo, FrozenBackbone, GridPoint, Images, Progress, TeacherSpec
from bench.errors import UserError
from bench.kit import running
from bench.kit.checkpoint import Checkpoint
from bench.kit.clip import loading
from bench.kit.data.dataset import Resident
from bench.kit.running import RunningTask
from bench.kit.views import AugmentedBatch
from bench.planning.cells import Cells
from bench.store.cell import Cell
from methods.hello import HeLlO, image_update, lora, projector, train
from methods.hello.config import STAGES, TEMPLATES, Config
from methods.hello.projector import Projector, ProjectorLabels, build, stored_tensors
from methods.rded import RDED
from tests.stopping import stopped_every

NAMES = ("cat", "dog", "ice cream")
CPU = torch.device("cpu")
BASE = FrozenBackbone("tiny", "ab" * 32, 1234)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
TOKENIZER = open_clip.SimpleTokenizer(context_length=16)


def tiny_clip() -> open_clip.CLIP:
    """A CLIP of 32-px images with random weights and batch norms that do something; always the same."""
    torch.manual_seed(0)
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(16, {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}, text)
    for module in clip.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    nn.init.constant_(clip.logit_scale, math.log(100))
    clip.visual.image_mean, clip.visual.image_std = MEAN, STD
    return clip.eval()


def fake_load_clip(name: str, device: torch.device, cache: Path | None = None) -> tuple[Any, Any, FrozenBackbone]:
    assert name == BASE.name
    return tiny_clip(), TOKENIZER, BASE


def embedded(*given: Any) -> Tensor:
    """Text embeddings in the precision of the test."""
    return loading.text_embeddings(*given).to(torch.get_default_dtype())


def use_tiny_clip(patch: pytest.MonkeyPatch) -> None:
    for module in (loading, train):
        patch.setattr(module, "load_clip", fake_load_clip)
    patch.setattr(projector, "text_embeddings", embedded)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_clip(monkeypatch)


def pixels(count: int = 4, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def normalised(x: Tensor) -> Tensor:
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def disturb(model: Projector, seed: int = 5) -> Projector:
    """As if trained: factors far from their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora.adapters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


INFO = DatasetInfo(
    name="toy", title="Toy", classes=3, image_size=16, smallest_class=8, train_images=24, test_images=3,
    mean=MEAN, std=STD, teacher=TeacherSpec(image_size=16, min_scale=0.5), clip="tiny", student="convnet3",
)  # fmt: skip


class Linear(nn.Linear):
    """A layer that takes views as they are, in whatever precision it computes."""

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels.to(self.weight.dtype))


class FakeTrajectory:
    """Nine linear teachers."""

    epochs = tuple(range(10, 100, 10))
    network = SimpleNamespace(image_size=16)

    def model(self, epoch: int | None = None) -> nn.Module:
        torch.manual_seed(epoch or 90)
        return nn.Sequential(nn.Flatten(), Linear(3 * 16 * 16, 3)).requires_grad_(False)


def silent(done: int, total: int, **_: float) -> None:
    """Tells nobody."""


def task(work: Path, progress: Progress = silent, ipc: int = 1) -> RunningTask:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 20, 20), generator=generator, dtype=torch.uint8)
    split = Resident(images, torch.arange(24) // 8)
    data = Dataset(INFO, NAMES, NAMES, split, split)
    return RunningTask(
        dataset=INFO, ipc=ipc, seed=0, data=data, teachers=(FakeTrajectory(),), device=CPU, work=work,  # type: ignore[arg-type]
        on_progress=progress,
    )  # fmt: skip


SHORT = {"epochs": 3, "batch_size": 8, "conv_rank": 2, "head_rank": 2, "lr": 5e-3}


# -- the start


@pytest.mark.usefixtures("in_double")
def test_starts_as_the_zero_shot_classifier() -> None:
    """Proposition 1: before training, the predictions are the public CLIP's."""
    clip, x = tiny_clip(), pixels(8)
    with torch.no_grad():
        weights = []
        for name in NAMES:
            one_class = torch.stack([clip.encode_text(TOKENIZER([t.format(name)]))[0] for t in TEMPLATES])
            mean = torch.stack([v / v.norm() for v in one_class]).mean(0)
            weights.append(mean / mean.norm())
        images = clip.encode_image(normalised(x))
        expected = 100 * (images / images.norm(dim=1, keepdim=True)) @ torch.stack(weights).T
        found = build(tiny_clip(), TOKENIZER, NAMES, Config())(x)
        plain = build(tiny_clip(), TOKENIZER, NAMES, Config(centre=False))(x)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(plain, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.softmax(1), expected.softmax(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.mean(1), torch.zeros(8), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("in_double")
def test_folding_and_resizing_change_nothing() -> None:
    clip, x = tiny_clip(), pixels(4, size=20)
    model = build(tiny_clip(), TOKENIZER, NAMES, Config(features="raw"))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.tower.modules())
    with torch.no_grad():
        up = F.interpolate(x, (32, 32), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model.features(x), clip.visual(normalised(up)), rtol=1e-5, atol=1e-5)
        large = pixels(2, size=48)
        down = F.interpolate(large, (32, 32), mode="bilinear", align_corners=False, antialias=True)
        torch.testing.assert_close(model.features(large), clip.visual(normalised(down)), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("in_double")
def test_adapters_are_updates_of_the_plain_weights() -> None:
    """The update is of the weight before the norm is folded in: W + B A, then the norm."""
    x = pixels()
    model = disturb(build(tiny_clip(), TOKENIZER, NAMES, Config(features="raw", layers="all", conv_rank=2)))
    plain = tiny_clip().visual
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if parameter.ndim == 4:
                a, b = (lora.adapters(model)[f"tower.{name}.{factor}"] for factor in "AB")
                parameter.add_((b @ a).view(parameter.shape))
        torch.testing.assert_close(model.features(x), plain(normalised(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "stored"),
    [
        ({}, None),
        ({"adapt": "head"}, {"head.weight.A", "head.weight.B"}),
        ({"adapt": "head", "head": "full", "init": "random"}, {"head.weight"}),
        ({"adapt": "head", "learn_scale": True}, {"head.weight.A", "head.weight.B", "log_scale"}),
        ({"features": "raw", "init": "random", "convention": "peft"}, None),
    ],
)
def test_what_is_trained(settings: dict[str, Any], stored: set[str] | None) -> None:
    model = build(tiny_clip(), TOKENIZER, NAMES, Config(**settings))
    trained = lora.adapters(model)
    if stored is not None:
        assert set(trained) == stored
    elif settings.get("convention", "loralib") == "loralib":
        assert {"tower.conv1.weight.A", "tower.layer4.0.conv2.weight.B", "head.weight.A"} <= set(trained)
        assert len(trained) == 2 * (3 + 4 + 1)
    model(pixels()).square().mean().backward()
    assert all(p.grad is not None for p in trained.values())
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert trained.get("head.weight.A", torch.zeros(3)).shape[0] == 3  # the rank is never above the classes


# -- training


def test_loss_written_plainly() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, target = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    labels = torch.tensor([0, 2, 1, 1, 0])
    squares = entropy = 0.0
    for b in range(5):
        for c in range(3):
            squares += float(logits[b, c] - target[b, c]) ** 2
        entropy -= math.log(math.exp(logits[b, labels[b]]) / sum(math.exp(v) for v in logits[b]))
    found = train.projector_loss(logits, target, labels, 0.1)
    assert float(found) == pytest.approx(squares / 15 + 0.1 * entropy / 5, rel=1e-5)
    teachers = [FakeTrajectory().model(epoch) for epoch in (10, 20, 30)]
    x = pixels(size=16)
    expected = (teachers[0](x) + teachers[1](x) + teachers[2](x)) / 3
    torch.testing.assert_close(train.mean_logits(teachers, x), expected)


def test_training_lowers_the_loss_and_leaves_the_clip_alone(tmp_path: Path) -> None:
    config = Config(**{**SHORT, "epochs": 8})
    job = task(tmp_path)
    model, base = train.train_projector(job, config, "tiny")
    fresh = build(tiny_clip(), TOKENIZER, NAMES, config)
    x = pixels(16, size=16)
    teachers = [FakeTrajectory().model(epoch) for epoch in (10, 20, 30, 40, 50)]
    target = train.mean_logits(teachers, x)
    with torch.no_grad():
        assert F.mse_loss(model(x), target) < 0.5 * F.mse_loss(fresh(x), target)
    assert base == BASE
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    for name, parameter in fresh.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]), name


def test_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "due", lambda _: True)
    config = Config(**SHORT)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, _ = train.train_projector(task(tmp_path / "whole"), config, "tiny")

    def kill(done: int, total: int, **metrics: float) -> None:
        assert total == 9
        if done == 5:  # in the middle of the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train_projector(task(tmp_path / "killed", kill), config, "tiny")
    seen: list[int] = []
    job = task(tmp_path / "killed", lambda done, total, **metrics: seen.append(done))
    again, _ = train.train_projector(job, config, "tiny")
    assert seen[0] == 5  # killed before it was saved
    for name, parameter in lora.adapters(whole).items():
        assert torch.equal(parameter, lora.adapters(again)[name]), name


@pytest.mark.parametrize("every", [1, 2, 3])
def test_stopped_again_and_again_it_ends_with_the_same_bits(tmp_path: Path, every: int) -> None:
    config = Config(**SHORT)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole, _ = train.train_projector(task(tmp_path / "whole"), config, "tiny")

    def run(progress: Progress) -> Projector:
        return train.train_projector(task(tmp_path / "stopped", progress), config, "tiny")[0]

    again, told = stopped_every(every, run)
    assert told == list(range(1, 10))
    for name, parameter in lora.adapters(whole).items():
        assert torch.equal(parameter, lora.adapters(again)[name]), name


# -- what is stored and served


def labels_of(config: Config) -> tuple[Projector, ProjectorLabels]:
    model = disturb(build(tiny_clip(), TOKENIZER, NAMES, config))
    return model, ProjectorLabels("tiny", BASE, config, stored_tensors(model, config), CPU, NAMES)


def views(x: Tensor) -> AugmentedBatch:
    zeros = torch.zeros(len(x), dtype=torch.int64)
    return AugmentedBatch(x, zeros, zeros, zeros, zeros, 1.0, 0, 0)


@pytest.mark.parametrize("settings", [{}, {"layers": "all", "attention_pool": True, "learn_scale": True, "alpha": 2.0}])
def test_serves_merged_what_was_trained(settings: dict[str, Any], tmp_path: Path) -> None:
    model, source = labels_of(Config(conv_rank=2, **settings))
    x = pixels(size=16)
    served = source.soft_labels(views(x), 0)
    torch.testing.assert_close(served, model(x).detach(), rtol=1e-5, atol=1e-5)
    assert not lora.adapters(source.projector)
    assert not any(hasattr(m, "parametrizations") for m in source.projector.modules())
    assert not served.requires_grad
    # a student's loss may keep them for its backward pass
    F.mse_loss(torch.zeros_like(served, requires_grad=True), served).backward()  # type: ignore[no-untyped-call]
    source.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapters.safetensors", "source.json"]
    loaded = ProjectorLabels.load(tmp_path, CPU)
    assert torch.equal(loaded.soft_labels(views(x), 0), served)
    assert loaded.public() == (BASE,)
    assert loaded.parameters() == sum(p.numel() for p in lora.adapters(model).values())
    stored = load_file(tmp_path / "adapters.safetensors")
    assert set(stored) == set(lora.adapters(model))


def test_half_precision_is_served_as_stored(tmp_path: Path) -> None:
    model, source = labels_of(Config(conv_rank=2, store_dtype="float16"))
    source.save(tmp_path)
    stored = load_file(tmp_path / "adapters.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    with torch.no_grad():
        for name, parameter in lora.adapters(model).items():
            parameter.copy_(stored[name])
    x = pixels()
    served = source.soft_labels(views(x), 0)
    torch.testing.assert_close(served, model(x).detach(), rtol=1e-5, atol=1e-5)
    assert torch.equal(ProjectorLabels.load(tmp_path, CPU).soft_labels(views(x), 0), served)


def test_refuses_another_clip_and_other_adapters(tmp_path: Path) -> None:
    _, source = labels_of(Config(conv_rank=2))
    source.base = replace(BASE, sha256="cd" * 32)
    source.save(tmp_path)
    with pytest.raises(UserError, match="SHA-256 abab"):
        ProjectorLabels.load(tmp_path, CPU)
    with pytest.raises(UserError, match="names and shapes"):
        ProjectorLabels("tiny", BASE, Config(conv_rank=3), source.tensors, CPU, NAMES)


# -- the method


def test_stages() -> None:
    kept = TeacherSpec().kept_epochs()
    taught = {name: Config(teachers=name).checkpoints(1, kept) for name in STAGES}
    assert taught == {
        "early": tuple(range(5, 50, 5)), "all": tuple(range(10, 100, 10)),
        "late": (63, 67, 70, 73, 77, 80, 83, 87, 90),
    }  # fmt: skip
    stages = [Config().stage(ipc) for ipc in (1, 5, 6, 20, 21, 200)]
    assert stages == ["early", "early", "all", "all", "late", "late"]
    with pytest.raises(ValueError, match="another name"):
        Config(stages={"last": {"up_to_ipc": None, "share": (0, 1)}})
    with pytest.raises(ValueError, match="no up_to_ipc"):
        Config(stages={"few": {"up_to_ipc": 5, "share": (0, 1)}})


def projector_cell(ipc: int, **settings: Any) -> Cell:
    return Cells(INFO).label_model(HeLlO.for_dataset(INFO, **settings), GridPoint(INFO, ipc, 0), None)


def image_cell(**settings: Any) -> Cell:
    return Cells(INFO).images(HeLlO.for_dataset(INFO, **settings), GridPoint(INFO, 1, 0))


def test_projectors_are_shared_by_the_ipc_of_a_stage() -> None:
    one, ten, twenty = (projector_cell(ipc) for ipc in (1, 10, 20))
    assert one.id != ten.id == twenty.id and "images" not in ten.parents
    assert ten.fields == {"dataset": "toy", "stage": "all", "clip": "tiny", "seed": 0}
    other = projector_cell(1, conv_rank=4, stages={"all": {"up_to_ipc": None, "share": (0.5, 1)}})
    assert other.fields["config"] == {"conv_rank": 4} and other.fields["share"] == [0.5, 1.0]


def test_images_are_rdeds_unless_they_are_updated() -> None:
    def of_rded(**settings: Any) -> Cell:
        return Cells(INFO).images(RDED.for_dataset(INFO, **settings), GridPoint(INFO, 1, 0))

    assert image_cell().id == image_cell(lr=0.1).id == of_rded().id
    assert image_cell(images={"pool": 5}).id == of_rded(pool=5).id != of_rded().id
    updated = image_cell(image_update=True)
    assert updated.by == "hello" and updated.fields["ipc"] == 1
    assert updated.parents["labels"] == projector_cell(1, image_update=True).id == projector_cell(1).id  # trained once
    assert updated.id == image_cell(image_update=True, update_batch=3).id
    assert updated.id != image_cell(image_update=True, images={"pool": 5}).id


def test_who_teaches() -> None:
    """A stage of one's choice whatever the IPC, or the last checkpoint alone; equal labels are equal cells."""
    kept = TeacherSpec().kept_epochs()
    assert {len(Config().checkpoints(ipc, kept)) for ipc in (1, 10, 50)} == {9}
    assert (
        Config(teachers="late").checkpoints(1, kept) == Config().checkpoints(50, kept) != Config().checkpoints(1, kept)
    )
    assert Config(teachers="last").checkpoints(1, kept) == (90,)
    assert Config(weak_teachers=3).checkpoints(10, kept) == (30, 60, 90)
    assert Config(teachers="none").checkpoints(1, kept) == ()
    assert Config(teachers="last").checkpoints(1, (4,)) == (4,)

    def cell(ipc: int, **settings: Any) -> str:
        return projector_cell(ipc, **settings).id

    assert cell(1, teachers="last") == cell(50, teachers="last") != cell(1)
    assert projector_cell(1, teachers="last").fields["stage"] == "last"
    assert cell(1, teachers="early") == cell(50, teachers="early") == cell(1)
    assert cell(1, teachers="late") == cell(50)
    own = {"few": {"up_to_ipc": None, "share": (0, 0.25)}}
    assert cell(1, teachers="few", stages=own) == cell(1, stages=own) != cell(1)
    assert image_cell(image_update=True, teachers="last").id != image_cell(image_update=True).id
    with pytest.raises(ValueError, match="expected by-ipc, last, none, early, all, late, not first"):
        Config(teachers="first")


def test_fewer_than_nine_weak_teachers_are_never_silent() -> None:
    short = INFO.model_copy(update={"teacher": INFO.teacher.model_copy(update={"epochs": 4})})
    one = INFO.teacher.model_copy(update={"files": ("r18.pth",), "file_sha256": "ab"})
    files = INFO.model_copy(update={"foreign": (one,)})
    for info, count in ((INFO, 9), (short, 4), (files, 1)):
        made = HeLlO.for_dataset(info)
        made.check(GridPoint(info, 1, 0))
        assert (
            made.config.weak_teachers
            == count
            == len(made.config.checkpoints(1, info.given(info.teacher).kept_epochs()))
        )
        assert HeLlO.for_dataset(info, teachers="last").config.weak_teachers == 9  # has no say
    with pytest.raises(
        UserError, match=r"hello.weak_teachers 9: the teacher of toy has 4 checkpoints; give --teacher-tr"
    ):
        HeLlO.for_dataset(short, weak_teachers=9).check(GridPoint(short, 1, 0))


def test_who_teaches_a_projector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Tensor]] = []
    true = train.mean_logits

    def spy(teachers: Any, x: Tensor) -> Tensor:
        asked.append([teacher[1].weight for teacher in teachers])
        return true(teachers, x)

    monkeypatch.setattr(train, "mean_logits", spy)
    for name in ("last", "by-ipc", "none"):
        (tmp_path / name).mkdir()
        config = Config(**{**SHORT, "epochs": 1}, adapt="head", head="full", init="random", teachers=name)
        model, _ = train.train_projector(task(tmp_path / name), config, "tiny")
        assert {key: p.shape for key, p in lora.adapters(model).items()} == {"head.weight": (3, 16)}
    assert [len(one) for one in asked] == [1] * 3 + [9] * 3  # three batches each
    assert torch.equal(asked[0][0], FakeTrajectory().model(90)[1].weight)  # type: ignore[index]


def test_a_probe_on_hard_labels_needs_no_teacher(tmp_path: Path) -> None:
    config = Config(**SHORT, adapt="head", head="full", init="random", teachers="none")
    assert HeLlO(config).teachers(GridPoint(INFO, 1, 0)) == ()
    before = projector.build(
        *loading.load_same_clip("tiny", BASE, CPU), NAMES, config, task(tmp_path).seed_for("hello-init")
    )
    model, _ = train.train_projector(replace(task(tmp_path), teachers=()), config, "tiny")
    data = task(tmp_path).data.train
    shown = torch.stack([data.image(index) for index in range(24)]).float() / 255
    losses = [F.cross_entropy(net(shown), data.labels) for net in (before, model)]
    assert losses[1] < losses[0]


def test_labels_through_the_method(tmp_path: Path) -> None:
    source = HeLlO(Config(**SHORT)).label_model(task(tmp_path))
    assert HeLlO.label_kinds[source.kind] == f"{ProjectorLabels.__module__}:{ProjectorLabels.__name__}"
    assert source.soft_labels(views(pixels(5, size=16)), 0).shape == (5, 3)


def test_planning_needs_no_torch() -> None:
    code = "import sys, methods.hello; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def updated(source: ProjectorLabels, start: Images, job: RunningTask, **settings: Any) -> Images:
    given = dataclasses.replace(job, images=start, labels=source)
    return running.distill(HeLlO(Config(image_update=True, **settings)), given)


def test_image_update(tmp_path: Path) -> None:
    _, source = labels_of(Config(conv_rank=2))
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randint(0, 256, (3, 3, 16, 16), generator=generator, dtype=torch.uint8)
    start = Images(drawn, torch.arange(3))
    calls: list[tuple[int, int]] = []

    def run(batch: int) -> Images:
        (work := tmp_path / str(batch)).mkdir()
        job = task(work, lambda *told, **_: calls.append(told))
        return updated(source, start, job, update_steps=8, update_batch=batch)

    made = run(3)
    assert calls == [(step, 8) for step in range(1, 9)]
    assert float((run(2).pixels.float() - made.pixels.float()).abs().max()) <= 1  # every image for itself
    before, after = (
        image_update.detail_loss(source.projector, images.pixels.float() / 255, 2) for images in (start, made)
    )
    assert float(after) < float(before)


@pytest.mark.parametrize("every", [1, 3, 5])
def test_image_update_stopped_again_and_again_ends_with_the_same_bits(tmp_path: Path, every: int) -> None:
    _, source = labels_of(Config(conv_rank=2))
    start = Images((255 * pixels(6, size=16)).to(torch.uint8), torch.arange(6) // 2)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()

    def run(name: str, progress: Progress = silent) -> Images:
        return updated(source, start, task(tmp_path / name, progress, ipc=2), update_steps=5, update_batch=2)

    whole = run("whole")
    again, told = stopped_every(every, lambda progress: run("stopped", progress))
    assert told == list(range(1, 16))
    assert torch.equal(again.pixels, whole.pixels) and not torch.equal(whole.pixels, start.pixels)
