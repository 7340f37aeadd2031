"""Extra channels: clicks and masks go where the pixels go, and points are found in clicks again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.kit.data.dataset import Resident
from bench.kit.views import AugmentationConfig, AugmentationStream, AugmentedBatch
from methods.segmentation.masks import CLICK, MASK, channels_of, clicks, points_of
from methods.segmentation.scenes import with_masks

COUNT, SIDE = 24, 32


def integers(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def painted(count: int = COUNT, side: int = SIDE) -> Resident:
    """Images whose first colour is the mask, whose second is the click and whose third is noise."""
    points, masks = integers(side, count, 2), integers(2, count, side, side, seed=1).to(torch.uint8)
    noise = integers(256, count, side, side, seed=2).to(torch.uint8)
    pixels = torch.stack([masks * 255, clicks(points, side, side), noise], 1)
    return with_masks(pixels, torch.arange(count) % 4, points, masks)


def batches(plan: AugmentationConfig, split: Resident, epoch: int, again: bool = False) -> list[AugmentedBatch]:
    stream = AugmentationStream(plan, len(split))
    if again:
        count = -(-len(split) // 7)
        return [stream.again(*split.on("cpu"), epoch, batch, 7) for batch in range(count)]
    return list(split.views(stream.config, epoch, 7, "cpu"))


# -- clicks and points


@pytest.mark.parametrize(("height", "width", "radius"), [(64, 64, 2), (32, 96, 1), (16, 16, 1), (128, 128, 4)])
def test_a_click_is_a_disc_around_its_point(height: int, width: int, radius: int) -> None:
    points = torch.stack([integers(height, 5), integers(width, 5, seed=1)], 1)
    points[0] = torch.tensor([0, width - 1])
    made = clicks(points, height, width)
    assert made.dtype == torch.uint8 and made.shape == (5, height, width)
    for disc, (row, column) in zip(made.tolist(), points.tolist(), strict=True):
        for y in range(height):
            for x in range(width):
                assert disc[y][x] == (255 if (y - row) ** 2 + (x - column) ** 2 <= radius**2 else 0)


def test_points_are_found_in_their_clicks() -> None:
    height, width = 64, 96
    rows, columns = torch.meshgrid(torch.arange(2, height - 2, 7), torch.arange(2, width - 2, 7), indexing="ij")
    points = torch.stack([rows.flatten(), columns.flatten()], 1)
    found, there = points_of(clicks(points, height, width).float() / 255)
    assert there.all()
    torch.testing.assert_close(found * torch.tensor([height, width]), points + 0.5)


def test_at_an_edge_a_point_is_at_most_a_pixel_off() -> None:
    points = torch.tensor([[0, 0], [63, 63], [0, 30], [30, 63]])
    found, _ = points_of(clicks(points, 64, 64).float())
    assert (found * 64 - points - 0.5).abs().max() <= 1


def test_of_a_resized_click_it_is_the_centre_of_mass() -> None:
    plane = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0))
    plane[2] = 0
    found, there = points_of(plane)
    assert there.tolist() == [True, True, False] and found[2].tolist() == [0, 0]
    for k in range(2):
        total = sum(plane[k].flatten().tolist())
        row = sum((y + 0.5) / 9 * float(plane[k, y, x]) for y in range(9) for x in range(7)) / total
        column = sum((x + 0.5) / 7 * float(plane[k, y, x]) for y in range(9) for x in range(7)) / total
        assert found[k].tolist() == pytest.approx([row, column], rel=1e-5)


def test_channels_follow_the_colours() -> None:
    split = painted()
    pixels, points, masks = split.pixels, split.extras["points"], split.extras["masks"]
    assert Resident(pixels, split.labels).on("cpu")[0] is pixels
    alone = Resident(pixels, split.labels, channels=channels_of({"points": points}, SIDE, SIDE)).on("cpu")[0]
    both = split.on("cpu")[0]
    assert alone.shape[1] == 4 and both.shape[1] == 5 and both.dtype == torch.uint8
    assert torch.equal(both[:, :3], pixels) and torch.equal(both[:, :4], alone)
    assert torch.equal(both[:, 3 + CLICK], clicks(points, SIDE, SIDE)) and torch.equal(both[:, 3 + MASK], masks * 255)


# -- views


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "plan",
    [
        {"crop": "rrc", "min_scale": 0.2, "flip": True},
        {"crop": "rrc", "min_scale": 0.7, "flip": False, "size": 16},
        {"crop": "shift", "flip": True},
        {"crop": "none", "flip": True},
        {"crop": "none", "flip": False},
        {"crop": "rrc", "min_scale": 0.5, "flip": True, "mix": "cutmix"},
        {"crop": "rrc", "min_scale": 0.5, "flip": True, "mix": "mixup"},
    ],
)
def test_channels_go_where_the_pixels_go(plan: dict[str, Any], again: bool) -> None:
    split = painted()
    views = batches(AugmentationConfig(**{"size": SIDE, "seed": 3} | plan), split, 2, again)
    assert sum(len(some) for some in views) == COUNT
    for some in views:
        assert some.channels is not None and some.pixels.shape[1:] == (3, *some.channels.shape[2:])
        assert some.channels.shape[1] == 2
        assert torch.equal(some.pixels[:, 0], some.channels[:, MASK])
        assert torch.equal(some.pixels[:, 1], some.channels[:, CLICK])


def test_without_prompts_the_pixels_are_the_same_bits() -> None:
    split = painted()
    bare = Resident(split.pixels, split.labels)
    plan = AugmentationConfig(size=SIDE, min_scale=0.3, flip=True, mix="cutmix", seed=1)
    for with_them, without in zip(batches(plan, split, 0), batches(plan, bare, 0), strict=True):
        assert without.channels is None and torch.equal(with_them.pixels, without.pixels)
        assert torch.equal(with_them.indices, without.indices) and with_them.weight == without.weight


def test_a_flip_alone_mirrors_points() -> None:
    split = painted()
    points = split.extras["points"]
    flipped = 0
    for views in batches(AugmentationConfig(size=SIDE, crop="none", flip=True, seed=5), split, 1):
        assert views.channels is not None
        for plane, index in zip(views.channels[:, CLICK], views.indices.tolist(), strict=True):
            row, column = points[index].tolist()
            upright = float(plane[row, column]) == 1 and torch.equal(
                plane * 255, clicks(points[[index]], SIDE, SIDE)[0]
            )
            mirrored = clicks(torch.tensor([[row, SIDE - 1 - column]]), SIDE, SIDE)[0]
            assert upright or torch.equal(plane * 255, mirrored)
            flipped += not upright
    assert 6 <= flipped <= 18


def test_a_crop_may_lose_the_click_and_then_its_channel_is_empty() -> None:
    planes = []
    for views in batches(AugmentationConfig(size=SIDE, min_scale=0.1, flip=False, seed=0), painted(), 0):
        assert views.channels is not None
        planes.append(views.channels[:, CLICK])
    found, there = points_of(torch.cat(planes))
    assert 3 <= int((~there).sum()) < COUNT
    assert torch.isfinite(found).all()
    assert torch.equal(there, torch.cat(planes).amax((1, 2)) > 0)
