"""The recovery kit against plain references: torchvision's functions, hooks and loops in torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from bench.errors import UserError
from bench.kit.checkpoint import Checkpoint
from bench.kit.models import build
from bench.kit.recovery import bn_statistics as moments_of
from bench.kit.recovery.augment import Draws, GroupViews
from bench.kit.recovery.bn_statistics import BatchNormInputs, Distances, group_moments
from bench.kit.recovery.config import RecoveryAugmentation
from bench.kit.recovery.loop import noise, recover
from bench.kit.recovery.memory import groups_that_fit, rounds, saved_bytes
from tests.stopping import stopped_every

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def activations(*shape: int, dtype: torch.dtype | None = None) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


# -- statistics


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (6, 1, 2, 2), (6, 300, 7, 5)])
@pytest.mark.usefixtures("in_double")
def test_moments_are_those_of_each_group(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    x = activations(*shape).contiguous(memory_format=layout)
    mean, variance = group_moments(x, 3)
    for group, part in enumerate(x.chunk(3)):
        torch.testing.assert_close(mean[group], part.mean((0, 2, 3)))
        torch.testing.assert_close(variance[group], part.var((0, 2, 3), unbiased=False))


def test_moments_of_vectors() -> None:
    x = activations(8, 5)
    mean, variance = group_moments(x, 2)
    torch.testing.assert_close(mean, x.view(2, 4, 5).mean(1))
    torch.testing.assert_close(variance, x.view(2, 4, 5).var(1, unbiased=False))


@pytest.mark.parametrize("chunk", [1, 37, 2**18])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_moments(chunk: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments_of, "_CHUNK", chunk)
    x = activations(4, 3, 2, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    torch.autograd.gradcheck(lambda given: group_moments(given, 2), x)
    flat = activations(6, 3, dtype=torch.float64).requires_grad_()
    torch.autograd.gradcheck(lambda given: group_moments(given, 3), flat)


def test_large_batches_keep_their_digits() -> None:
    """Plain float32 sums of so many numbers are off by 1e-5 and more."""
    x = (activations(64, 8, 64, 64) + 3).contiguous(memory_format=torch.channels_last)
    mean, variance = group_moments(x, 1)
    exact = x.double()
    torch.testing.assert_close(mean[0].double(), exact.mean((0, 2, 3)), rtol=5e-6, atol=0)
    torch.testing.assert_close(variance[0].double(), exact.var((0, 2, 3), unbiased=False), rtol=5e-6, atol=0)


def network(arch: str = "resnet10-small-w16", size: int = 16) -> nn.Module:
    """With random statistics and affine parameters; ResNets among them use some activations twice."""
    torch.manual_seed(0)
    net = build(arch, 5, size, MEAN, STD).net
    for name, tensor in [*net.named_buffers(), *net.named_parameters()]:
        if tensor.is_floating_point() and ("running" in name or "bn" in name):
            tensor.data.uniform_(0.5, 1.5)
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def hooked(net: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the inputs of all batch norms in module order."""
    given: dict[nn.Module, Tensor] = {}
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [
        module.register_forward_hook(lambda module, given_to_it, _: given.update({module: given_to_it[0]}))
        for module in norms
    ]
    logits = net(images)
    for handle in handles:
        handle.remove()
    return logits, [given[module] for module in norms]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.usefixtures("in_double")
def test_batch_norm_inputs_are_what_hooks_see_and_change_nothing(groups: int) -> None:
    net, images = network(), activations(6, 3, 16, 16)
    torch.manual_seed(1)
    weights: list[tuple[Tensor, Tensor]] = []

    def total(logits: Tensor, moments: list[tuple[Tensor, Tensor]]) -> Tensor:
        if not weights:
            weights.extend((torch.rand_like(mean), torch.rand_like(variance)) for mean, variance in moments)
        terms = [(w * mean + v * variance).sum() for (w, v), (mean, variance) in zip(weights, moments, strict=True)]
        return logits.square().sum() + torch.stack(terms).sum()

    plain, fast = (images.clone().requires_grad_() for _ in range(2))
    logits, given = hooked(net, plain)
    parts = [x.unflatten(0, (groups, -1)) for x in given]
    expected = total(logits, [(x.mean((1, 3, 4)), x.var((1, 3, 4), unbiased=False)) for x in parts])
    expected.backward()
    with BatchNormInputs(net, groups) as inputs:
        seen = net(fast)
        found = total(seen, inputs.take())
    found.backward()
    torch.testing.assert_close(seen, logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(fast.grad, plain.grad)
    assert all("forward" not in vars(module) for module in net.modules())  # put back


def test_a_layer_whose_output_nobody_uses_still_gets_the_gradient_of_its_moments() -> None:
    norm = nn.BatchNorm2d(2).eval().requires_grad_(False)
    x = activations(3, 2, 2, 2).requires_grad_()
    with BatchNormInputs(norm, 1) as inputs:
        norm(x)
        (mean, _) = inputs.take()[0]
    mean.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 1 / 12))


def test_batch_norms_that_do_more_keep_doing_it() -> None:
    class Rectified(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x).relu()

    norm = Rectified(2).eval()
    x = activations(4, 2, 3, 3)
    with BatchNormInputs(norm, 2) as inputs:
        assert norm(x).min() == 0
        mean, _ = inputs.take()[0]
    torch.testing.assert_close(mean[1], x[2:].mean((0, 2, 3)))


def test_batch_norms_without_statistics_are_refused() -> None:
    with pytest.raises(UserError, match="keeps no running statistics"):
        BatchNormInputs(nn.BatchNorm2d(2, track_running_stats=False), 1)


def test_distances_are_weighted_norms_not_squared_and_summed_over_layers() -> None:
    distances = Distances([torch.zeros(2), torch.ones(3)], [10, 1])
    found = [torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0], [1.0, 3.0, 1.0]])]
    for tensor in found:
        tensor.requires_grad_()
    losses = distances(found)
    torch.testing.assert_close(losses, torch.tensor([50.0, 2.0]))
    losses.sum().backward()
    torch.testing.assert_close(found[0].grad, torch.tensor([[6.0, 8.0], [0.0, 0.0]]))  # none where the norm is 0
    torch.testing.assert_close(found[1].grad, torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


# -- views


def one_by_one(views: RecoveryAugmentation, draws: Draws, iteration: int, images: Tensor) -> Tensor:
    """What torchvision does to a stacked batch (B, 3, S, S), with given choices."""
    size = images.shape[-1]
    if views.crop == "rrc":
        box = draws.boxes[iteration].tolist()
        images = transforms.resized_crop(images, *box, [size, size], antialias=views.antialias)
    if views.crop == "shift":
        padded = F.pad(images, [views.pad] * 4)
        top, left = (draws.shifts[iteration] + views.pad).tolist()
        images = padded[..., top : top + size, left : left + size]
    if draws.flips[iteration]:
        images = images.flip(-1)
    return images.roll(draws.rolls[iteration].tolist(), (-2, -1))


VIEWS = {
    "imagenet": RecoveryAugmentation(),
    "antialiased": RecoveryAugmentation(antialias=True),
    "tiny": RecoveryAugmentation(roll=(-4, 4)),
    "cifar": RecoveryAugmentation(crop="none", flip=False, roll=(0, 4)),
    "cda": RecoveryAugmentation(curriculum=1.0),
    "shift": RecoveryAugmentation(crop="shift", pad=3, roll=(0, 32)),
    "bare": RecoveryAugmentation(crop="none", flip=False, roll=(0, 0)),
}


@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS)
@pytest.mark.usefixtures("in_double")
def test_views_are_torchvisions_of_the_stacked_batch(views: RecoveryAugmentation) -> None:
    size, iterations, seeds = 20, 12, (5, 6)
    images = activations(2, 4, 3, size, size)
    made = GroupViews(views, seeds, size, iterations, CPU)
    for iteration in range(iterations):
        found = made(images, iteration)
        for group, seed in enumerate(seeds):
            draws = Draws(views, seed, size, iterations, range(iterations))
            expected = one_by_one(views, draws, iteration, images[group])
            torch.testing.assert_close(found[group], expected, rtol=1e-6, atol=1e-6)


def test_all_images_of_a_group_are_treated_alike() -> None:
    images = activations(2, 1, 3, 16, 16).expand(-1, 5, -1, -1, -1)
    made = GroupViews(RecoveryAugmentation(), (5, 6), 16, 3, CPU)(images, 1)
    assert torch.equal(made, made[:, :1].expand_as(made))
    assert not torch.allclose(made[0], GroupViews(RecoveryAugmentation(), (6, 5), 16, 3, CPU)(images, 1)[0])


@pytest.mark.usefixtures("in_double")
def test_a_group_s_views_depend_on_its_seed_and_the_iteration_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    images = activations(3, 2, 3, 16, 16)
    together = GroupViews(RecoveryAugmentation(), (5, 6, 7), 16, 9, CPU)
    wanted = [together(images, iteration) for iteration in range(9)]
    monkeypatch.setattr("bench.kit.recovery.augment._CHUNK_BYTES", 4 * 8 * 16**2)  # four iterations at a time
    alone = GroupViews(RecoveryAugmentation(), (6,), 16, 9, CPU)
    for iteration in (8, 0, 3, 4, 1):
        torch.testing.assert_close(alone(images[1:2], iteration)[0], wanted[iteration][1])


def test_rolls_reach_both_ends_and_nothing_beyond() -> None:
    for views, low, high in ((VIEWS["imagenet"], 0, 32), (VIEWS["tiny"], -4, 4), (VIEWS["cifar"], 0, 4)):
        rolls = Draws(views, 3, 32, 4000, range(4000)).rolls
        assert set(rolls[:, 0]) == set(rolls[:, 1]) == set(range(low, high + 1))
        assert abs(np.corrcoef(rolls.T)[0, 1]) < 0.1  # down and right for themselves
    shifts = Draws(VIEWS["shift"], 3, 32, 4000, range(4000)).shifts
    assert set(shifts.flatten()) == set(range(-3, 4))


def test_flips_and_crops_are_drawn_as_in_torchvision() -> None:
    draws = Draws(VIEWS["imagenet"], 3, 224, 4000, range(4000))
    assert 0.45 < draws.flips.mean() < 0.55
    area = draws.boxes[:, 2] * draws.boxes[:, 3] / 224**2
    aspect = draws.boxes[:, 3] / draws.boxes[:, 2]
    assert 0.079 < area.min() < 0.09 and area.max() > 0.95
    assert 0.74 < aspect.min() < 0.8 and 1.28 < aspect.max() < 1.35
    whole = Draws(VIEWS["shift"], 3, 224, 9, range(9)).boxes
    assert (whole == [0, 0, 224, 224]).all()
    assert not Draws(VIEWS["cifar"], 3, 32, 4000, range(4000)).flips.any()


def test_the_curriculum_goes_from_whole_images_to_small_crops() -> None:
    views = RecoveryAugmentation(curriculum=0.5)
    assert views.smallest_area(0, 100) == 1
    assert math.isclose(views.smallest_area(25, 100), 0.08 + 0.92 / 2)
    assert math.isclose(views.smallest_area(10, 100), 0.08 + 0.92 * 0.5 * (1 + math.cos(math.pi / 5)))
    assert views.smallest_area(50, 100) == views.smallest_area(99, 100) == 0.08
    assert RecoveryAugmentation().smallest_area(0, 100) == 0.08
    boxes = Draws(RecoveryAugmentation(curriculum=1.0), 3, 64, 4000, range(4000)).boxes
    assert (boxes[0] == [0, 0, 64, 64]).all()
    area = boxes[:, 2] * boxes[:, 3] / 64**2
    floor = np.array([RecoveryAugmentation(curriculum=1.0).smallest_area(iteration, 4000) for iteration in range(4000)])
    assert (area > floor - 0.03).all()  # sides are whole pixels
    assert area[:400].min() > 0.9 and area[3600:].min() < 0.15


def test_impossible_views_are_refused() -> None:
    with pytest.raises(ValidationError, match="lowest, highest"):
        RecoveryAugmentation(roll=(4, 0))


# -- the descent


class Pull:
    """Towards a picture, with a memory: the pull grows with the iterations it has seen."""

    def __init__(self) -> None:
        self.target = activations(1, 2, 3, 8, 8) * 2
        self.seen = torch.zeros(())

    def __call__(self, views: Tensor, iteration: int) -> Tensor:
        self.seen = self.seen + 1
        return (views - self.target).square().mean((1, 2, 3, 4)) * (1 + self.seen / 10)

    def state(self) -> dict[str, Tensor]:
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.seen = state["seen"]


def run(iterations: int = 12, seeds: tuple[int, ...] = (1, 2), **options: Any) -> Tensor:
    views = GroupViews(RecoveryAugmentation(roll=(0, 2)), seeds, 8, iterations, CPU)
    loss = Pull()
    return recover(noise(seeds, 2, 8, CPU), loss, views, lr=0.25, mean=MEAN, std=STD, memory=loss, **options)


@pytest.mark.usefixtures("in_double")
def test_the_descent_is_adam_with_a_cosine_to_zero_and_a_clamp() -> None:
    iterations, loss = 12, Pull()
    views = GroupViews(RecoveryAugmentation(roll=(0, 2)), (1, 2), 8, iterations, CPU)
    images = noise((1, 2), 2, 8, CPU).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=0.25, betas=(0.5, 0.9), eps=1e-8, foreach=False)
    clamped = 0
    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = 0.5 * (1 + math.cos(math.pi * iteration / iterations)) * 0.25
        optimizer.zero_grad()
        loss(views(images, iteration), iteration).sum().backward()
        optimizer.step()
        for channel, (m, s) in enumerate(zip(MEAN, STD, strict=True)):
            free = images.data[:, :, channel].clone()
            images.data[:, :, channel] = free.clamp(-m / s, (1 - m) / s)
            clamped += int((images.data[:, :, channel] != free).sum())
    assert clamped > 50
    pixels = images.detach() * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    found = run(iterations)
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(found, pixels.clamp(0, 1))


@pytest.mark.usefixtures("in_double")
def test_groups_are_for_themselves() -> None:
    torch.testing.assert_close(run(seeds=(1, 2))[1], run(seeds=(2,))[0])


def test_killed_inside_a_batch_it_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "due", lambda _: True)
    whole = run()

    def killed(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=Checkpoint(tmp_path), progress=killed)
    made: list[tuple[int, int]] = []
    resumed = run(checkpoint=Checkpoint(tmp_path), progress=lambda *told: made.append(told))
    assert made == [(done, 12) for done in range(7, 13)]  # killed before it was saved
    assert torch.equal(resumed, whole)


@pytest.mark.parametrize("every", [1, 5])
def test_stopped_again_and_again_it_ends_with_the_same_bits(tmp_path: Path, every: int) -> None:
    made, told = stopped_every(every, lambda progress: run(checkpoint=Checkpoint(tmp_path), progress=progress))
    assert told == list(range(1, 13))
    assert torch.equal(made, run())


def test_noise_is_normal_and_a_stream_a_group() -> None:
    both = noise((1, 2), 3, 16, CPU)
    assert both.shape == (2, 3, 3, 16, 16)
    assert torch.equal(both[1:], noise((2,), 3, 16, CPU))
    assert abs(float(both.mean())) < 0.05 and abs(float(both.std()) - 1) < 0.05


def test_as_many_groups_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    each = saved_bytes(net, 16, CPU)
    _, given = hooked(net, torch.zeros(1, 3, 16, 16))
    inputs = sum(x.nbytes for x in given)
    assert inputs < each < 5 * inputs
    monkeypatch.setattr("bench.kit.recovery.memory._CPU_BYTES", 35 * each)
    assert groups_that_fit(net, 10, 16, CPU) == 3
    assert groups_that_fit(net, 100, 16, CPU) == 1


def test_rounds_hold_groups_of_equal_size_in_their_order() -> None:
    assert rounds([5, 5, 5, 2], 2) == [[0, 1], [2], [3]]
    assert rounds([2, 2, 1, 2, 2, 1, 2, 2, 1], 4) == [[0, 1, 3, 4], [6, 7], [2, 5, 8]]
