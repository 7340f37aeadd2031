"""Crop, resize, flip, shift and patch shuffle against torchvision and against slow references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bench.kit.views import AugmentationConfig, AugmentationStream, AugmentedBatch, resized_crop
from bench.kit.views.boxes import CROP_WIDTH, random_resized_boxes
from bench.kit.views.draws import (
    IMAGE_WIDTH,
    Column,
    Purpose,
    permutation,
    uniforms,
)

EPOCH = 5


def random_set(count: int, height: int, width: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count + height)
    shape = (count, 3, height, width or height)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, 10, (count,), generator=generator)


def epoch_views(plan: AugmentationConfig, pixels: Tensor, labels: Tensor, epoch: int = EPOCH) -> AugmentedBatch:
    """The whole set as one batch, in its own order."""
    return AugmentationStream(plan, len(labels)).make(pixels, labels, torch.arange(len(labels)), epoch, 0)


def image_draws(plan: AugmentationConfig, count: int, column: Column) -> Any:
    return uniforms(plan.seed, Purpose.IMAGE, EPOCH, count, IMAGE_WIDTH)[:, column]


def flipped(plan: AugmentationConfig, count: int) -> list[bool]:
    return [bool(draw < 0.5) for draw in image_draws(plan, count, Column.FLIP)]


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("size", "height", "width"), [(16, 16, 16), (32, 45, 28), (7, 50, 31), (64, 33, 99)])
def test_resized_crop_is_torchvisions(size: int, height: int, width: int, antialias: bool) -> None:
    pixels = random_set(5, height, width)[0].float() / 255
    boxes = torch.tensor(
        [
            [0, 0, height, width],
            [1, 2, height // 2, width // 3],
            [3, 4, 5, 6],
            [height - 3, width - 9, 3, 9],
            [height // 2, width // 2, 1, 1],
        ]
    )
    made = resized_crop(pixels, boxes, size, antialias)
    for image, box, view in zip(pixels, boxes.tolist(), made, strict=True):
        expected = transforms.resized_crop(image, *box, [size, size], antialias=antialias)
        torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


def test_resized_crop_has_torchvisions_gradient() -> None:
    pixels = torch.rand(1, 3, 20, 17, dtype=torch.float32, requires_grad=True)
    box, weight = [2, 3, 15, 11], torch.rand(3, 8, 8)
    (resized_crop(pixels, torch.tensor([box]), 8)[0] * weight).sum().backward()
    assert pixels.grad is not None
    made, pixels.grad = pixels.grad, None
    (transforms.resized_crop(pixels[0], *box, [8, 8], antialias=True) * weight).sum().backward()
    torch.testing.assert_close(made, pixels.grad, atol=1e-5, rtol=0)


def test_autocast_does_not_coarsen_views() -> None:
    pixels, labels = random_set(6, 20)
    plan = AugmentationConfig(size=16)
    plain = epoch_views(plan, pixels, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(epoch_views(plan, pixels, labels).pixels, plain.pixels)


def test_whole_area_is_the_identity_on_squares() -> None:
    for side in (8, 31, 64, 224):
        draws = uniforms(side, Purpose.CROP, 0, 500, CROP_WIDTH)
        boxes = random_resized_boxes(draws, np.full(500, side), np.full(500, side), (1, 1), (3 / 4, 4 / 3))
        assert (boxes == [0, 0, side, side]).all()
    pixels, labels = random_set(9, 16)
    views = epoch_views(AugmentationConfig(size=16, min_scale=1), pixels, labels).pixels
    assert torch.equal(views, transforms.to_dtype(pixels, torch.float32, scale=True))
    assert torch.equal((views * 255).round().byte(), pixels)


def shuffled(image: Tensor, factor: int, draws: Any) -> Tensor:
    """ShufflePatches: strips of columns, then strips of rows, are put into a random order."""
    for axis, keys in ((2, draws[1::2]), (1, draws[0::2])):
        strips = image.chunk(factor, axis)
        places = permutation(keys).tolist()
        image = torch.cat([strips[places.index(place)] for place in range(factor)], axis)
    return image


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("crop", ["rrc", "none"])
@pytest.mark.parametrize(("height", "size", "antialias"), [(24, 24, True), (36, 20, True), (36, 20, False)])
def test_views_are_the_slow_pipeline(factor: int, crop: Any, height: int, size: int, antialias: bool) -> None:
    count = 12
    pixels, labels = random_set(count, height)
    plan = AugmentationConfig(size=size, crop=crop, flip=True, shuffle=factor, antialias=antialias, seed=4)
    sides = torch.full((count,), height)
    # shuffling leaves the boxes as they are
    unshuffled = AugmentationStream(plan.model_copy(update={"shuffle": 1}), count)
    boxes = unshuffled.boxes(EPOCH, torch.arange(count), sides, sides)
    draws = uniforms(plan.seed, Purpose.SHUFFLE, EPOCH, count, 2 * factor)
    made = epoch_views(plan, pixels, labels)
    assert made.weight == 1 and torch.equal(made.labels, labels) and torch.equal(made.partner_labels, labels)
    assert made.pixels.dtype == torch.float32 and made.pixels.shape == (count, 3, size, size)
    for index, flip in enumerate(flipped(plan, count)):
        image = shuffled(pixels[index].float() / 255, factor, draws[index])
        view = transforms.resized_crop(image, *boxes[index].tolist(), [size, size], antialias=antialias)
        view = transforms.horizontal_flip(view) if flip else view
        torch.testing.assert_close(made.pixels[index], view, atol=1e-5, rtol=0)


def test_shuffles_reach_every_arrangement() -> None:
    pixels = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2).expand(200, 3, 2, 2)
    views = epoch_views(AugmentationConfig(size=2, crop="none", shuffle=2), pixels, torch.zeros(200, dtype=torch.int64))
    seen = {tuple((view[0] * 255).round().int().flatten().tolist()) for view in views.pixels}
    assert seen == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}


@pytest.mark.parametrize(("height", "size"), [(16, 16), (9, 16)])
def test_shift_is_resize_pad_and_crop(height: int, size: int) -> None:
    count, pad = 30, 3
    pixels, labels = random_set(count, height)
    plan = AugmentationConfig(size=size, crop="shift", pad=pad, flip=True, seed=6)
    made = epoch_views(plan, pixels, labels).pixels
    tops = (image_draws(plan, count, Column.DOWN) * (2 * pad + 1)).astype(int).tolist()
    lefts = (image_draws(plan, count, Column.RIGHT) * (2 * pad + 1)).astype(int).tolist()
    assert set(tops) == set(lefts) == set(range(2 * pad + 1))
    for index, flip in enumerate(flipped(plan, count)):
        image = transforms.resize(pixels[index].float() / 255, [size, size], antialias=True)
        view = transforms.crop(transforms.pad(image, [pad] * 4), tops[index], lefts[index], size, size)
        view = transforms.horizontal_flip(view) if flip else view
        torch.testing.assert_close(made[index], view, atol=1e-5, rtol=0)


def test_caching_weights_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = random_set(50, 20)
    plan = AugmentationConfig(size=16, flip=True, shuffle=2)
    cached = epoch_views(plan, pixels, labels).pixels
    monkeypatch.setattr("bench.kit.views.table.CACHED_BYTES", 0)
    assert torch.equal(epoch_views(plan, pixels, labels).pixels, cached)
