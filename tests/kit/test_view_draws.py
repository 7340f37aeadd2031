"""What is drawn for the views: the generator, orders, boxes and mixtures, against their references."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from bench.kit.views import AugmentationConfig, AugmentationStream
from bench.kit.views.boxes import CROP_WIDTH, random_resized_boxes
from bench.kit.views.draws import (
    GAP,
    IMAGE_WIDTH,
    Purpose,
    some_uniforms,
    span_uniforms,
    uniforms,
)
from bench.kit.views.mixing import draw_mixture
from bench.kit.views.table import draw_table

CPU = torch.device("cpu")
EPOCH = 5


def test_generator_is_philox_as_published() -> None:
    # Random123's known answer for philox4x64-10 with key 0 and counter 0; numpy adds one to the counter first
    words = np.random.Philox(key=0, counter=2**256 - 1).random_raw(4)
    published = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert [int(word) for word in words] == published


def test_draws_and_views_are_pinned() -> None:
    """Stored labels live as long as these hashes: if one changes, labels of older versions fit no view."""
    digest = hashlib.sha256()
    for purpose in Purpose:
        digest.update(span_uniforms(7, purpose, range(3, 6), 5, 22, first=9).astype("<f8").tobytes())
    assert digest.hexdigest() == "794480a73e4575028edd6ddf575d891937a7ba8f1216fe1aa127093f502abc00"

    plan, count = AugmentationConfig(size=24, flip=True, shuffle=2, mix="cutmix", seed=11), 40
    draws = uniforms(plan.seed, Purpose.IMAGE, 2, count, IMAGE_WIDTH)
    table = draw_table(plan, range(2, 3), draws, 32, 32, CPU)
    order = AugmentationStream(plan, count).order(2)
    digest = hashlib.sha256(table.columns.numpy().astype("<i4").tobytes())
    digest.update(order.numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == "b8694a3384ae6161f13008cc1166a0598328a36f9d83f054f42279a8af853e13"
    mixture = draw_mixture(plan, uniforms(plan.seed, Purpose.BATCH, 2, 1, 4, first=19)[0])
    assert mixture.box == (11, 21, 2, 12)
    assert plan.digest() == "0cc18e22e5ae1df40149186389892134a0f26015fc5d9e813d1c55c0eeb07ea6"


@pytest.mark.parametrize("width", [1, 4, 6, 22])
def test_any_row_can_be_drawn_alone(width: int) -> None:
    table = uniforms(3, Purpose.CROP, EPOCH, 300, width)
    assert table.min() >= 0 and table.max() < 1
    for row in (0, 1, 7, 299):
        assert (uniforms(3, Purpose.CROP, EPOCH, 1, width, first=row) == table[row]).all()
    rows = np.array([5, 290, 4, 5, 5 + 2 * GAP, 0])
    assert (some_uniforms(3, Purpose.CROP, EPOCH, rows, width) == table[rows]).all()
    span = span_uniforms(3, Purpose.CROP, range(EPOCH - 1, EPOCH + 2), 20, width, first=7)
    assert (span[20:40] == table[7:27]).all()


def test_draws_of_seeds_purposes_and_epochs_differ() -> None:
    tables = [uniforms(s, p, e, 50, 2) for s in (0, 1) for p in (Purpose.IMAGE, Purpose.CROP) for e in (0, 1)]
    for index, table in enumerate(tables):
        assert all((table != other).all() for other in tables[:index])


def test_order_is_a_permutation_that_changes_with_the_epoch() -> None:
    stream = AugmentationStream(AugmentationConfig(size=8, seed=2), 100)
    orders = [stream.order(epoch) for epoch in range(3)]
    assert all(order.sort().values.tolist() == list(range(100)) for order in orders)
    assert not torch.equal(orders[0], orders[1])
    batches = list(stream.batches(1, 32))
    assert [number for number, _ in batches] == [0, 1, 2, 3]
    assert [len(indices) for _, indices in batches] == [32, 32, 32, 4]
    assert torch.equal(torch.cat([indices for _, indices in batches]), orders[1])


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_weights_are_beta_distributed(alpha: float) -> None:
    draws = uniforms(1, Purpose.BATCH, 0, 2000, 4)
    plan = AugmentationConfig(size=32, mix="mixup", alpha=alpha)
    weights = [draw_mixture(plan, row).weight for row in draws]
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_cutmix_box_is_sre2ls() -> None:
    """Side int(S·√(1 - λ)) around a uniform centre, halved and clipped; the weight is what the box leaves."""
    draws, size = uniforms(2, Purpose.BATCH, 0, 500, 4), 33
    for row in draws:
        mixture = draw_mixture(AugmentationConfig(size=size, mix="cutmix"), row)
        assert mixture.box is not None
        top, bottom, left, right = mixture.box
        cut = int(size * (1 - row[0]) ** 0.5)
        spans = [int(np.clip(int(row[k] * size) + s * (cut // 2), 0, size)) for k in (1, 2) for s in (-1, 1)]
        assert [top, bottom, left, right] == spans
        assert mixture.weight == 1 - (bottom - top) * (right - left) / size**2


@pytest.mark.parametrize(("height", "width"), [(64, 48), (40, 200)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    count, scale, ratio = 2000, (0.08, 1.0), (3 / 4, 4 / 3)
    torch.manual_seed(1)
    theirs = np.array(
        [RandomResizedCrop.get_params(torch.empty(3, height, width), list(scale), list(ratio)) for _ in range(count)]
    )
    draws = uniforms(1, Purpose.CROP, 0, count, CROP_WIDTH)
    ours = random_resized_boxes(draws, np.full(count, height), np.full(count, width), scale, ratio)
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] > 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= [height, width]).all()

    def figures(boxes: Any) -> list[Any]:
        return [*boxes.T, boxes[:, 2] * boxes[:, 3], boxes[:, 2] / boxes[:, 3]]

    for mine, their in zip(figures(ours), figures(theirs), strict=True):
        assert stats.ks_2samp(mine, their).pvalue > 1e-3


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (30, 30, [0, 0, 30, 30]),
        (30, 90, [0, 25, 30, 40]),
        (90, 30, [25, 0, 40, 30]),
        (32, 28, [0, 0, 32, 28]),
    ],
)
def test_fallback_is_torchvisions(height: int, width: int, box: list[int]) -> None:
    # nothing but the whole area: no try fits, but for an image whose aspect is hit by chance
    draws = uniforms(1, Purpose.CROP, 0, 50, CROP_WIDTH)
    draws[:, 1:-2:2] = 0.99 if height >= width else 0.01  # aspects against the image's
    ratio = (3 / 4, 4 / 3)
    boxes = random_resized_boxes(draws, np.full(50, height), np.full(50, width), (1, 1), ratio)
    assert (boxes == box).all()
