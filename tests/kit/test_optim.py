"""Schedules, decay groups and the average of weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from bench.kit.models import build
from bench.kit.optim import Schedule, WeightAverage, decay_groups, lr_factor, set_lr, sgd


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("half_cosine", {0: 1.0, 150: 0.5 * (1 + math.cos(math.pi / 4)), 300: 0.5}),  # RDED: .854 half-way
        ("half_linear", {0: 1.0, 150: 0.75, 300: 0.5}),  # EDC's code
        ("cosine", {0: 1.0, 150: 0.5, 300: 0.0}),
        ("step", {0: 1.0, 99: 1.0, 100: 0.1, 199: 0.1, 200: 0.01, 299: 0.01}),
        ("constant", {0: 1.0, 299: 1.0}),
    ],
)
def test_schedules(schedule: Schedule, values: dict[int, float]) -> None:
    for epoch, factor in values.items():
        assert lr_factor(schedule, epoch, 300) == pytest.approx(factor, abs=1e-12)


def test_half_cosine_is_854_half_way() -> None:
    assert lr_factor("half_cosine", 150, 300) == pytest.approx(0.854, abs=5e-4)


def test_warm_up_rises_from_a_hundredth_and_the_schedule_has_the_rest() -> None:
    """torchvision's trainer, 100 epochs with 5 of warm-up."""
    factors = [lr_factor("cosine", epoch, 100, 5) for epoch in range(100)]
    assert factors[:5] == pytest.approx([0.01, 0.208, 0.406, 0.604, 0.802])
    assert factors[5:] == pytest.approx([lr_factor("cosine", epoch, 95) for epoch in range(95)])


@pytest.mark.parametrize("epochs", [3, 9, 18, 51, 90, 147, 300])
def test_a_step_comes_exactly_after_each_third(epochs: int) -> None:
    """Floating point must not move it: torchvision's 90 epochs step at 30 and 60."""
    factors = [lr_factor("step", epoch, epochs) for epoch in range(epochs)]
    third = epochs // 3
    assert factors == [1.0] * third + [0.1] * third + [0.1**2] * third


def test_only_weights_of_more_than_one_dimension_decay() -> None:
    model = build("resnet10-small-w16", 10, 16, (0.5,) * 3, (0.25,) * 3)
    groups: list[dict[str, Any]] = decay_groups(model, 0.3)
    decayed, others = groups
    assert decayed["weight_decay"] == 0.3 and others["weight_decay"] == 0.0
    named = {id(p): (name, p) for name, p in model.named_parameters()}
    for group, decays in ((decayed, True), (others, False)):
        for parameter in group["params"]:
            name, p = named.pop(id(parameter))
            assert (name.endswith("weight") and p.ndim > 1) == decays
    assert not named  # every parameter is in one of them


def test_tokens_and_frozen_weights_do_not_decay() -> None:
    model = build("vit-small", 10, 16, (0.5,) * 3, (0.25,) * 3)
    net: Any = model.net
    net.head.weight.requires_grad_(False)
    groups: list[dict[str, Any]] = decay_groups(model, 0.1)
    decayed, others = ({id(p) for p in group["params"]} for group in groups)
    assert id(net.pos_embed) in others and id(net.cls_token) in others
    assert id(net.head.weight) not in decayed | others


def test_teachers_sgd_decays_everything() -> None:
    model = build("convnet2-w8", 10, 16, (0.5,) * 3, (0.25,) * 3)
    optimizer = sgd(model, 0.1, 0.9, 1e-4, nesterov=True)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4]
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters()))
    set_lr(optimizer, 0.03)
    assert optimizer.param_groups[0]["lr"] == 0.03


def test_the_average_starts_at_the_first_weights_and_takes_the_models_statistics() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    average = WeightAverage(model, 0.9)
    slow = copy.deepcopy(model)
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
            for mine, theirs in zip(slow.parameters(), model.parameters(), strict=True):
                mine.copy_(0.9 * mine + 0.1 * theirs)
        model(torch.rand(4, 3, 8, 8))
        average.update()
    for wanted, found in zip(slow.parameters(), average.averaged.parameters(), strict=True):
        assert torch.allclose(wanted, found, atol=1e-6)
    averaged: Any = average.averaged
    norm = averaged[1]
    assert int(norm.num_batches_tracked) == 0
    average.take_buffers()
    assert int(norm.num_batches_tracked) == 5 and torch.equal(norm.running_mean, model.get_buffer("1.running_mean"))
