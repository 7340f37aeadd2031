"""Masks: losses, their measure and the light decoder against plain loops, ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor, nn

from bench.api import AugmentedBatch, LabelSource
from bench.errors import UserError
from bench.kit.data.dataset import Resident
from methods.segmentation import masks as measure
from methods.segmentation.masks import click_maps, clicks, enlarged, exact_shares, mask_loss
from methods.segmentation.networks import MaskDecoder, build
from methods.segmentation.scenes import with_masks

CPU = torch.device("cpu")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(count: int = 11, side: int = 16, seed: int = 0) -> Resident:
    """Noise with a rectangle each; the first pixel of its own is the prompt."""
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    points = torch.randint(0, side - 6, (count, 2), generator=stream(seed))
    for mask, (row, column) in zip(masks, points.tolist(), strict=True):
        mask[row : row + 3 + row % 4, column : column + 2 + column % 5] = 1
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=stream(seed + 1)).to(torch.uint8)
    return with_masks(pixels, torch.arange(count), points, masks)


def views_of(channels: Tensor | None, side: int = 16) -> AugmentedBatch:
    count = 2 if channels is None else len(channels)
    nobody = torch.zeros(count, dtype=torch.int64)
    return AugmentedBatch(torch.rand(count, 3, side, side), nobody, nobody, nobody, nobody, 1.0, 0, 0, channels)


# -- the measure


def bilinear(grid: list[list[float]], size: int) -> list[list[float]]:
    """Enlarged with pixels as areas: the middle of pixel y is (y + ½) of the old side by the new one, less ½."""
    side = len(grid)

    def parts(place: int) -> tuple[int, int, float]:
        at = max(0.0, (place + 0.5) * side / size - 0.5)
        low = int(at)
        return low, min(low + 1, side - 1), at - low

    made = []
    for y in range(size):
        above, below, down = parts(y)
        row = []
        for x in range(size):
            left, right, across = parts(x)
            upper = grid[above][left] * (1 - across) + grid[above][right] * across
            lower = grid[below][left] * (1 - across) + grid[below][right] * across
            row.append(upper * (1 - down) + lower * down)
        made.append(row)
    return made


def iou(logits: list[list[float]], exact: list[list[int]]) -> float:
    found, both, either = bilinear(logits, len(exact)), 0, 0
    for y, row in enumerate(exact):
        for x, wanted in enumerate(row):
            there = found[y][x] > 0
            both += bool(there and wanted)
            either += bool(there or wanted)
    return both / either


def test_mean_iou_is_counted_pixel_by_pixel_at_full_resolution() -> None:
    split = scenes()
    answers = torch.randn(11, 4, 4, generator=stream(7))
    tests = measure.TestMasks(split, 16, CPU, batch_size=4)
    shown: list[tuple[Tensor, Tensor]] = []

    def answer(pixels: Tensor, click: Tensor) -> Tensor:
        start = sum(len(some) for some, _ in shown)
        shown.append((pixels, click))
        return answers[start : start + len(pixels)]

    wanted = [iou(one.tolist(), mask.tolist()) for one, mask in zip(answers, split.extras["masks"], strict=True)]
    assert tests.mean_iou(answer) == pytest.approx(sum(wanted) / 11, abs=1e-6)
    assert [len(pixels) for pixels, _ in shown] == [4, 4, 3]
    assert torch.equal(torch.cat([pixels for pixels, _ in shown]), split.pixels.float() / 255)
    points = split.extras["points"]
    assert torch.equal(torch.cat([click for _, click in shown])[:, 0] * 255, clicks(points, 16, 16).float())


def test_masks_are_enlarged_bilinearly_and_positive_logits_are_theirs() -> None:
    logits = torch.randn(3, 4, 4, generator=stream(1))
    wanted = torch.tensor([bilinear(one.tolist(), 16) for one in logits]) > 0
    assert torch.equal(enlarged(logits, 16), wanted)
    assert not enlarged(torch.zeros(1, 4, 4), 16).any()


def test_no_mask_is_worth_nothing_and_the_exact_one_everything() -> None:
    blocks = torch.zeros(3, 64, 64, dtype=torch.uint8)
    blocks[:, 16:48, 8:40] = 1
    split = with_masks(torch.zeros(3, 3, 64, 64, dtype=torch.uint8), torch.arange(3), torch.full((3, 2), 20), blocks)
    tests = measure.TestMasks(split, 64, CPU)
    assert tests.mean_iou(lambda pixels, click: torch.full((len(pixels), 16, 16), -1.0)) == 0
    exact = blocks[:, ::4, ::4].float() * 2 - 1
    # a corner of the enlarged mask is rounded, which costs its outermost pixel; straight edges are exact
    assert 0.99 < tests.mean_iou(lambda *_: exact) <= 1
    everything = tests.mean_iou(lambda pixels, click: torch.ones(len(pixels), 16, 16))
    assert everything == pytest.approx(32 * 32 / 64**2)


@pytest.mark.parametrize("side", [16, 32, 64, 128])
def test_networks_are_tested_on_the_pixels_that_the_masks_are_of(side: int) -> None:
    """Classifiers are tested on the enlarged centre of images from 64 pixels on; a mask would not fit that."""
    split = scenes(3, side)
    tests = measure.TestMasks(split, side, CPU)
    assert torch.equal(tests.layers[:, :3], split.pixels)
    assert torch.equal(tests.layers[:, 4], split.extras["masks"] * 255)


def test_test_sets_without_masks_are_refused() -> None:
    split = scenes()
    points, masks = split.extras["points"], split.extras["masks"]
    for wrong in ({}, {"points": points}, {"points": points, "masks": masks[:, ::2, ::2]}):
        with pytest.raises(ValueError, match="prompts and masks of 16 x 16 pixels"):
            measure.TestMasks(Resident(split.pixels, split.labels, wrong), 16, CPU)


class Asked(LabelSource):
    """Answers with a network, and flat, as stored labels are."""

    kind = "asked"

    def __init__(self, net: nn.Module):
        self.net = net

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        assert not views.pixels.requires_grad and step == 0
        answers: Tensor = self.net(views.pixels, click_maps(views))
        return answers.flatten(1)

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError


def test_label_models_are_measured_as_networks_are() -> None:
    torch.manual_seed(0)
    net = build("promptable-w4", 16, (0.5,) * 3, (0.25,) * 3)
    tests = measure.TestMasks(scenes(), 16, CPU, batch_size=5)
    with torch.no_grad():
        inputs = tests.layers.float() / 255
        net.decoder.out.bias -= net.eval()(inputs[:, :3], inputs[:, 3:4]).mean()  # so that it finds something
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = tests.top1(net)
    assert net.training and all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    net.eval()
    assert found == tests.mean_iou(net) == tests.of_labels(Asked(net)) and 0 < found < 1
    assert tests.top1(net) == found and not net.training


# -- losses


def slow_loss(logits: Tensor, shares: Tensor, dice_weight: float) -> float:
    entropy, dice = 0.0, 0.0
    for one, other in zip(logits.flatten(1).tolist(), shares.flatten(1).tolist(), strict=True):
        found = [1 / (1 + math.exp(-logit)) for logit in one]
        entropy -= sum(t * math.log(p) + (1 - t) * math.log(1 - p) for p, t in zip(found, other, strict=True)) / len(
            one
        )
        overlap = sum(p * t for p, t in zip(found, other, strict=True))
        dice += 1 - (2 * overlap + 1) / (sum(found) + sum(other) + 1)
    return (entropy + dice_weight * dice) / len(logits)


@pytest.mark.parametrize("dice_weight", [0.0, 1.0, 2.5])
def test_the_loss_is_cross_entropy_and_dice(dice_weight: float) -> None:
    logits = 3 * torch.randn(5, 4, 4, generator=stream(2))
    shares = torch.rand(5, 4, 4, generator=stream(3))
    shares[0], shares[1] = 0, 1
    assert float(mask_loss(logits, shares, dice_weight)) == pytest.approx(
        slow_loss(logits, shares, dice_weight), rel=1e-5
    )


def test_exact_masks_are_brought_to_the_logits_by_shares() -> None:
    planes = torch.rand(3, 2, 16, 16, generator=stream(4))
    found = exact_shares(views_of(planes))
    assert found.shape == (3, 4, 4)
    for image in range(3):
        for row in range(4):
            for column in range(4):
                covered = sum(float(planes[image, 1, 4 * row + y, 4 * column + x]) for y in range(4) for x in range(4))
                assert float(found[image, row, column]) == pytest.approx(covered / 16, rel=1e-5)
    assert torch.equal(click_maps(views_of(planes)), planes[:, :1])


def test_views_without_prompts_or_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="have no prompts"):
        click_maps(views_of(None))
    for planes in (None, torch.rand(2, 1, 16, 16)):
        with pytest.raises(ValueError, match="not known"):
            exact_shares(views_of(planes))


# -- the decoder


def test_the_query_is_the_mean_of_the_features_under_the_click() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(6, 5).eval()
    joined: list[Tensor] = []
    decoder.join.register_forward_hook(lambda module, given, made: joined.append(given[0]))
    features, click = torch.randn(3, 6, 4, 4), clicks(torch.tensor([[5, 9], [0, 0], [7, 8]]), 16, 16)[:, None] / 255
    click[1] = 0  # lost to a crop
    with torch.no_grad():
        logits, embedded = decoder(features, click), decoder.embed(features)
    assert logits.shape == (3, 4, 4) and torch.isfinite(logits).all()
    wanted = torch.zeros(3, 12, 4, 4)
    for k in range(3):
        under = torch.zeros(4, 4)
        for y in range(16):
            for x in range(16):
                under[y // 4, x // 4] += click[k, 0, y, x] / 16
        query = torch.zeros(5)
        for y in range(4):
            for x in range(4):
                query += under[y, x] * embedded[k, :, y, x] / max(float(under.sum()), 1e-4)
        for y in range(4):
            for x in range(4):
                here = embedded[k, :, y, x]
                distance = ((here - query) ** 2).mean()[None]
                wanted[k, :, y, x] = torch.cat([here, here * query, distance, under[y, x][None]])
        assert bool(query.any()) == (k != 1)
    torch.testing.assert_close(joined[0], wanted)


def test_a_promptable_network_normalises_and_listens_to_the_click() -> None:
    torch.manual_seed(0)
    net = build("promptable-w4", 32, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).eval()
    pixels, click = torch.rand(2, 3, 32, 32), clicks(torch.tensor([[5, 9], [20, 8]]), 32, 32)[:, None] / 255
    seen: list[Tensor] = []
    net.stem.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    with torch.no_grad():
        answers = net(pixels, click)
        assert answers.shape == (2, 8, 8)
        assert not torch.allclose(net(pixels, click.flip(0)), answers)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(seen[0], (pixels - mean) / std)


@pytest.mark.parametrize(
    ("arch", "side", "message"),
    [
        ("convnet3", 32, "answers with classes"),
        ("promptable-w8", 30, "multiple of 4, not 30"),
    ],
)
def test_networks_that_answer_no_click_are_refused(arch: str, side: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build(arch, side, (0.5,) * 3, (0.5,) * 3)
    assert "\n" not in str(error.value)
