"""SRe2L against a slow reference: its authors' description, with a forward hook on each batch norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from bench.api import Dataset, DatasetInfo, GridPoint, Progress, TeacherSpec, catalogue
from bench.api.seeds import seed_for
from bench.errors import UserError
from bench.kit import running
from bench.kit.checkpoint import Checkpoint
from bench.kit.data.dataset import Resident
from bench.kit.models import build
from bench.kit.recovery.augment import Draws, GroupViews
from bench.kit.recovery.bn_statistics import BatchNormInputs
from bench.kit.recovery.loop import noise, recover
from bench.kit.recovery.memory import rounds
from bench.kit.running import RunningTask
from bench.kit.teachers import trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from methods.sre2l import SRe2L, SRe2LLoss, official_batches, total_variation
from tests.stopping import stopped_every

CLASSES, SIDE = 5, 16
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CPU = torch.device("cpu")
Config = SRe2L.Config


def network(arch: str) -> nn.Module:
    """With random statistics and affine parameters, as they are after training."""
    torch.manual_seed(0)
    net = build(arch, CLASSES, SIDE, MEAN, STD).net
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5)
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


# -- the reference: one group


def reference_loss(net: nn.Module, views: Tensor, labels: Tensor, config: SRe2L.Config) -> Tensor:
    distances: list[Tensor] = []

    def hook(module: nn.BatchNorm2d, given: tuple[Tensor], _: Tensor) -> None:
        channels = given[0].shape[1]
        mean = given[0].mean([0, 2, 3])
        variance = given[0].permute(1, 0, 2, 3).contiguous().view(channels, -1).var(1, unbiased=False)
        assert module.running_mean is not None and module.running_var is not None
        distances.append((module.running_var - variance).norm(2) + (module.running_mean - mean).norm(2))

    handles = [m.register_forward_hook(hook) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    logits = net(views)
    for handle in handles:
        handle.remove()
    # both networks here run their batch norms in module order
    matched = sum(distance * (10 if layer == 0 else 1) for layer, distance in enumerate(distances))
    one, other = views[:, :, :, :-1] - views[:, :, :, 1:], views[:, :, :-1, :] - views[:, :, 1:, :]
    third, fourth = views[:, :, 1:, :-1] - views[:, :, :-1, 1:], views[:, :, :-1, :-1] - views[:, :, 1:, 1:]
    variation = one.norm() + other.norm() + third.norm() + fourth.norm()
    size = views.reshape(len(views), -1).norm(dim=1).mean()
    return F.cross_entropy(logits, labels) + config.r_bn * matched + config.tv * variation + config.l2 * size


def reference_views(config: SRe2L.Config, seed: int, iteration: int, images: Tensor) -> Tensor:
    draws = Draws(config, seed, SIDE, config.iterations, range(config.iterations))
    if config.crop == "rrc":
        box = draws.boxes[iteration].tolist()
        images = transforms.resized_crop(images, *box, [SIDE, SIDE], antialias=False)
    if draws.flips[iteration]:
        images = transforms.horizontal_flip(images)
    return torch.roll(images, draws.rolls[iteration].tolist(), (2, 3))


CONFIGS = {
    "imagenet": Config(iterations=9),
    "tiny": Config(iterations=9, lr=0.1, r_bn=1.0, roll=(-4, 4)),
    "cifar": Config(iterations=9, crop="none", flip=False, roll=(0, 4)),
    "all terms": Config(iterations=9, tv=1e-2, l2=1e-3),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("arch", ["convnet3-w16", "resnet10-small-w16"])
@pytest.mark.usefixtures("in_double")
def test_loss_and_gradient_are_the_reference_s_over_the_first_steps(arch: str, config: SRe2L.Config) -> None:
    """Three groups against the plain code on each of them, with the images in the same place before each step."""
    net, seeds = network(arch), (1, 2, 3)
    labels = torch.arange(4).expand(3, -1)
    images = noise(seeds, 4, SIDE, CPU).requires_grad_()
    views = GroupViews(config, seeds, SIDE, config.iterations, CPU)
    optimizer = torch.optim.Adam([images], config.lr, betas=(0.5, 0.9))
    for iteration in range(3):
        optimizer.zero_grad()
        with BatchNormInputs(net, 3) as inputs:
            losses = SRe2LLoss(net, inputs, labels, config)(views(images, iteration), iteration)
        losses.sum().backward()
        assert images.grad is not None
        for group, seed in enumerate(seeds):
            alone = images.detach()[group].clone().requires_grad_()
            expected = reference_loss(net, reference_views(config, seed, iteration, alone), labels[group], config)
            expected.backward()
            assert alone.grad is not None
            torch.testing.assert_close(losses[group], expected)
            torch.testing.assert_close(images.grad[group], alone.grad)
        optimizer.step()


def run(config: SRe2L.Config, net: nn.Module, seeds: tuple[int, ...]) -> Tensor:
    labels = torch.arange(4).expand(len(seeds), -1)
    views = GroupViews(config, seeds, SIDE, config.iterations, CPU)
    with BatchNormInputs(net, len(seeds)) as inputs:
        loss = SRe2LLoss(net, inputs, labels, config)
        return recover(noise(seeds, 4, SIDE, CPU), loss, views, lr=config.lr, mean=MEAN, std=STD)


@pytest.mark.parametrize("arch", ["convnet3-w16", "resnet10-small-w16"])
@pytest.mark.usefixtures("in_double")
def test_three_groups_at_once_are_three_runs(arch: str) -> None:
    net, config = network(arch), CONFIGS["imagenet"]
    at_once = run(config, net, (1, 2, 3))
    alone = torch.cat([run(config, net, (seed,)) for seed in (1, 2, 3)])
    torch.testing.assert_close(at_once, alone)
    assert (at_once[0] - at_once[1]).abs().mean() > 0.05


def test_the_matching_term_by_hand() -> None:
    """Two pixels 1 and 3 in channel 0, 0 and 0 in the others: mean 2, biased variance 1."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.BatchNorm2d(3, eps=0), nn.BatchNorm2d(3, eps=0)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)).mean((2, 3)) * 0  # type: ignore[no-any-return]

    net = Net().eval().requires_grad_(False)
    views = torch.zeros(1, 2, 3, 1, 1)
    views[0, 0, 0], views[0, 1, 0] = 1, 3
    with BatchNormInputs(net, 1) as inputs:
        loss = SRe2LLoss(net, inputs, torch.tensor([[0, 1]]), Config(r_bn=0.5))(views, 0)
    # each batch norm: means (2, 0, 0) from (0, 0, 0); variances (1, 0, 0) from (1, 1, 1); the first counts ten times
    assert math.isclose(float(loss), math.log(3) + 0.5 * 11 * (2 + math.sqrt(2)), rel_tol=1e-6)


def test_total_variation_by_hand() -> None:
    views = torch.zeros(1, 1, 1, 2, 2)
    views[0, 0, 0, 0] = torch.tensor([1.0, 3.0])  # above zeros
    expected = 2 + math.sqrt(1 + 9) + 3 + 1  # beside, below, both diagonals
    assert math.isclose(float(total_variation(views)), expected, rel_tol=1e-6)


# -- the method


def info(**changes: Any) -> DatasetInfo:
    facts: dict[str, Any] = {
        "name": "noise", "title": "Noise", "classes": CLASSES, "image_size": SIDE, "smallest_class": 9,
        "train_images": 45, "test_images": 5, "mean": MEAN, "std": STD, "clip": "icon-clip",
        "teacher": TeacherSpec(arch="convnet2-w8", image_size=SIDE), "student": "convnet2-w8", **changes,
    }  # fmt: skip
    return DatasetInfo(**facts)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    return made_teacher(tmp_path_factory.mktemp("teacher"), "convnet2-w8")


def made_teacher(folder: Path, arch: str) -> Trajectory:
    made = Network(arch=arch, classes=CLASSES, image_size=SIDE, mean=MEAN, std=STD)
    trajectory.save(folder, made, "none", {1: network(arch).state_dict()}, {1: 0.5}, 0.5)
    return Trajectory.load(folder, CPU)


MakeTask = Callable[..., RunningTask]


def silent(done: int, total: int, **_: float) -> None:
    """Tells nobody."""


@pytest.fixture
def make_task(tmp_path: Path, teacher: Trajectory) -> MakeTask:
    def make(ipc: int, place: str = "work", progress: Progress = silent, seed: int = 0) -> RunningTask:
        work = tmp_path / place
        work.mkdir(exist_ok=True)
        nothing = Resident(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
        names = tuple(map(str, range(CLASSES)))
        data = Dataset(info(), names, names, nothing, nothing)
        return RunningTask(
            dataset=info(), ipc=ipc, seed=seed, data=data, teachers=(teacher,), device=CPU, work=work,
            on_progress=progress,
        )  # fmt: skip

    return make


distill = running.distill
SHORT = {"iterations": 8, "group_classes": 2}


@pytest.mark.usefixtures("in_double")
def test_images_are_class_major_and_made_in_the_official_batches(make_task: MakeTask, teacher: Trajectory) -> None:
    """Batch k holds one image of each of two consecutive classes; the last block of five classes has one."""
    config = Config(**SHORT)
    made = distill(SRe2L(config), make_task(ipc=2))
    assert made.labels.tolist() == [label for label in range(CLASSES) for _ in range(2)]
    assert made.pixels.dtype == torch.uint8 and made.pixels.shape == (10, 3, SIDE, SIDE)
    net = teacher.model().net
    number = 0
    for image in range(2):
        for block in ([0, 1], [2, 3], [4]):
            seed = seed_for("sre2l", 0, number)
            views = GroupViews(config, (seed,), SIDE, config.iterations, CPU)
            with BatchNormInputs(net, 1) as inputs:
                loss = SRe2LLoss(net, inputs, torch.tensor([block]), config)
                start = noise((seed,), len(block), SIDE, CPU)
                recovered = recover(start, loss, views, lr=config.lr, mean=MEAN, std=STD)[0]
            for place, label in enumerate(block):
                truncated = (recovered[place] * 255).to(torch.uint8)
                assert torch.equal(made.pixels[label * 2 + image], truncated)
            number += 1


def test_batches_are_in_the_official_order() -> None:
    batches = official_batches(ipc=2, classes=1000, size=100)
    assert batches == [range(first, first + 100) for _ in range(2) for first in range(0, 1000, 100)]
    uneven = official_batches(ipc=3, classes=5, size=2)
    assert rounds(list(map(len, uneven)), 4) == [[0, 1, 3, 4], [6, 7], [2, 5, 8]]


@pytest.mark.parametrize("groups", [1, 3, "auto"])
@pytest.mark.usefixtures("in_double")
def test_the_number_of_groups_does_not_matter(make_task: MakeTask, groups: int | str) -> None:
    one = distill(SRe2L(Config(**SHORT, groups=2)), make_task(3, "two")).pixels
    other = distill(SRe2L(Config(**SHORT, groups=groups)), make_task(3, str(groups))).pixels
    assert torch.equal(one, other)


def test_more_images_are_the_same_ones_and_others(make_task: MakeTask) -> None:
    few, many = (distill(SRe2L(Config(**SHORT, groups=1)), make_task(ipc, str(ipc))).pixels for ipc in (1, 2))
    assert torch.equal(few, many[::2])
    assert not torch.equal(many[1::2], many[::2])
    other = distill(SRe2L(Config(**SHORT, groups=1)), make_task(1, "other", seed=1)).pixels
    assert not torch.equal(few, other)


@pytest.mark.parametrize("stop", [3, 11, 17])
def test_killed_anywhere_it_goes_on_to_the_same_bits(
    make_task: MakeTask, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = SRe2L(Config(**SHORT, groups=2))
    whole = distill(method, make_task(2, "whole")).pixels
    monkeypatch.setattr(Checkpoint, "due", lambda _: True)

    def killed(done: int, total: int, **_: float) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(method, make_task(2, progress=killed))
    made: list[tuple[int, int]] = []
    resumed = distill(method, make_task(2, progress=lambda done, total, **_: made.append((done, total)))).pixels
    assert made == [(done, 24) for done in range(stop, 25)]  # 3 rounds of 8 iterations
    assert torch.equal(resumed, whole)
    made.clear()
    assert torch.equal(distill(method, make_task(2, progress=lambda *told, **_: made.append(told))).pixels, whole)
    assert not made  # everything was there


@pytest.mark.parametrize("every", [1, 5, 8])
def test_stopped_again_and_again_it_ends_with_the_same_bits(make_task: MakeTask, every: int) -> None:
    method = SRe2L(Config(**SHORT, groups=2))
    whole = distill(method, make_task(2, "whole")).pixels
    made, told = stopped_every(every, lambda progress: distill(method, make_task(2, progress=progress)))
    assert told == list(range(1, 25))
    assert torch.equal(made.pixels, whole)


def test_recovered_images_are_what_the_teacher_takes_them_for(make_task: MakeTask, teacher: Trajectory) -> None:
    method = SRe2L(Config(iterations=60, crop="none", flip=False, roll=(0, 1), r_bn=1e-3))
    images = distill(method, make_task(2))
    answers = teacher.model()(images.pixels.float() / 255).argmax(1)
    assert torch.equal(answers, images.labels)


def test_settings_are_the_official_ones_of_each_data_set() -> None:
    def of(name: str, **overrides: Any) -> SRe2L.Config:
        return SRe2L.for_dataset(catalogue.dataset(name), **overrides).config

    default = Config()
    assert (default.iterations, default.lr, default.r_bn, default.first_bn) == (4000, 0.25, 0.01, 10)
    assert (default.tv, default.l2, default.roll, default.min_scale) == (0, 0, (0, 32), 0.08)
    assert (default.crop, default.flip, default.antialias, default.group_classes) == ("rrc", True, False, 100)
    assert of("imagenet-1k") == of("imagenet-100") == of("imagenette") == default
    assert of("tiny-imagenet").non_default_fields() == {"lr": 0.1, "r_bn": 1.0, "roll": [-4, 4]}
    assert of("cifar10") == of("cifar100")
    assert of("cifar100").non_default_fields() == {"iterations": 1000, "crop": "none", "flip": False, "roll": [0, 4]}
    assert of("mnist") == of("cifar10")
    assert SRe2L.for_dataset(info(image_size=64, flip=False)).config == of("tiny-imagenet", flip=False)
    assert not of("digits").flip and of("digits").iterations <= 500
    cda = of("tiny-imagenet", curriculum=1.0)  # CDA's own rate and weight, unless the user gives others
    assert (cda.lr, cda.r_bn, of("tiny-imagenet", curriculum=1.0, lr=0.2).lr) == (0.4, 0.05, 0.2)
    assert of("imagenet-1k", curriculum=1.0).non_default_fields() == {"curriculum": 1.0}
    assert of("cifar10", roll=(0, 2), lr=0.1).roll == (0, 2)


def test_the_identity_holds_what_decides() -> None:
    assert Config(r_bn=0.05, groups=7).identity("images") == {"r_bn": 0.05}  # groups affect the speed alone
    assert SRe2L.info.stored == "fp16" and SRe2L().teachers(GridPoint(info(), 5, 1)) == (info().teacher,)


def test_what_cannot_be_is_refused_in_one_line(make_task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="flipped image of noise"):
        SRe2L().check(GridPoint(info(flip=False), 1, 0))
    SRe2L.for_dataset(info(flip=False)).check(GridPoint(info(flip=False), 1, 0))
    for wrong in ({"groups": 0}, {"groups": "many"}, {"roll": (3, 1)}):
        with pytest.raises(ValidationError):
            Config(**wrong)
    folder = tmp_path / "vit"
    folder.mkdir()
    task = replace(make_task(1), teachers=(made_teacher(folder, "vit-small"),))
    with pytest.raises(UserError, match="batch norms, and vit-small has none; choose another"):
        distill(SRe2L(Config(**SHORT)), task)
