"""Streams of views: independence of order, batch size and restarts; mixing; lazily read images; errors."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bench.errors import UserError
from bench.kit.views import AugmentationConfig, AugmentationStream, AugmentedBatch
from bench.kit.views.draws import Purpose, uniforms
from bench.kit.views.mixing import draw_mixture

EPOCH = 5


def random_set(count: int, height: int, width: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count + height)
    shape = (count, 3, height, width or height)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, 10, (count,), generator=generator)


def epoch_views(plan: AugmentationConfig, pixels: Tensor, labels: Tensor, epoch: int = EPOCH) -> AugmentedBatch:
    """The whole set as one batch, in its own order."""
    return AugmentationStream(plan, len(labels)).make(pixels, labels, torch.arange(len(labels)), epoch, 0)


@pytest.mark.parametrize("crop", ["rrc", "shift", "none"])
def test_lazily_read_images_have_the_same_views(crop: Any) -> None:
    """Cut on the host and finished on the device, but for torchvision's rounding to bytes after each axis."""
    count, height, width = 40, 30, 41
    pixels, labels = random_set(count, height, width)
    plan = AugmentationConfig(size=24, crop=crop, flip=True, mix="cutmix", seed=8)
    stream = AugmentationStream(plan, count)
    indices = stream.order(EPOCH)[:16]
    heights, widths = torch.full((16,), height), torch.full((16,), width)
    boxes = stream.boxes(EPOCH, indices, heights, widths)
    assert boxes.dtype == torch.int64
    cut = [
        transforms.resized_crop(pixels[index], *box, [24, 24], antialias=True)
        for index, box in zip(indices.tolist(), boxes.tolist(), strict=True)
    ]
    finished = stream.finish(torch.stack(cut), labels[indices], indices, EPOCH, 3)
    made = stream.make(pixels, labels, indices, EPOCH, 3)
    torch.testing.assert_close(finished.pixels, made.pixels, atol=1.1 / 255, rtol=0)
    assert finished.weight == made.weight
    assert torch.equal(finished.labels, made.labels)
    assert torch.equal(finished.partner_labels, made.partner_labels)


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
@pytest.mark.parametrize("crop", ["rrc", "none"])
def test_mixing_is_the_slow_mixing(mix: Any, crop: Any) -> None:
    count, size = 24, 16
    pixels, _ = random_set(count, size)
    labels = torch.arange(count)  # so that a partner's label is its row
    plan = AugmentationConfig(size=size, crop=crop, flip=True, seed=9)
    stream = AugmentationStream(plan.model_copy(update={"mix": mix, "alpha": 0.8}), count)
    base = epoch_views(plan, pixels, labels).pixels
    for batch in (0, 1, 17):
        made = stream.make(pixels, labels, torch.arange(count), EPOCH, batch)
        assert sorted(made.partner_labels.tolist()) == list(range(count))
        mixture = draw_mixture(stream.config, uniforms(9, Purpose.BATCH, EPOCH, 1, 4, first=batch)[0])
        for index, partner in enumerate(made.partner_labels.tolist()):
            if mix == "mixup":
                expected = made.weight * base[index] + (1 - made.weight) * base[partner]
            else:
                assert mixture.box is not None
                top, bottom, left, right = mixture.box
                mask = torch.ones(size, size)
                mask[top:bottom, left:right] = 0
                assert made.weight == pytest.approx(mask.mean().item())
                expected = mask * base[index] + (1 - mask) * base[partner]
            torch.testing.assert_close(made.pixels[index], expected, atol=1e-6, rtol=0)


def test_partners_are_uniform() -> None:
    count, epochs = 4, 3000
    stream = AugmentationStream(AugmentationConfig(size=2, crop="none", mix="mixup"), count)
    pixels, _ = random_set(count, 2)
    labels, rows = torch.arange(count), torch.arange(count)
    seen: dict[tuple[int, ...], int] = {}
    for epoch in range(epochs):
        key = tuple(stream.make(pixels, labels, rows, epoch, 0).partner_labels.tolist())
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 24
    assert stats.chisquare(list(seen.values())).pvalue > 1e-3


PLANS = [
    AugmentationConfig(size=16, min_scale=1, flip=True),
    AugmentationConfig(size=16, flip=True, shuffle=2, seed=1),
    AugmentationConfig(size=12, flip=True, seed=2),
    AugmentationConfig(size=16, crop="shift", pad=2),
]


@pytest.mark.parametrize("plan", PLANS, ids=["whole", "mosaic", "crop", "shift"])
@pytest.mark.parametrize("count", [30, 700])  # below and above the size from which a table spans one epoch
def test_a_view_depends_on_its_key_alone(plan: AugmentationConfig, count: int) -> None:
    pixels, labels = random_set(count, 16)
    whole = epoch_views(plan, pixels, labels)
    stream = AugmentationStream(plan, count)
    for epoch in (EPOCH + 1, 0, 40, EPOCH):  # whatever was made before
        stream.make(pixels, labels, torch.tensor([3]), epoch, 0)
    indices = stream.order(1)[:25]
    for size in (1, 7, 25):
        for batch, chosen in enumerate(indices.split(size)):
            views = stream.make(pixels, labels, chosen, EPOCH, batch + 100)
            assert torch.equal(views.pixels, whole.pixels[chosen])
            assert torch.equal(views.labels, labels[chosen])
            assert torch.equal(views.indices, chosen)
    assert not torch.equal(epoch_views(plan, pixels, labels, EPOCH + 1).pixels, whole.pixels)
    reseeded = plan.model_copy(update={"seed": 77})
    assert not torch.equal(epoch_views(reseeded, pixels, labels).pixels, whole.pixels)


@pytest.mark.parametrize("count", [30, 700])
def test_a_mixed_batch_can_be_made_again(count: int) -> None:
    pixels, labels = random_set(count, 16)
    plan = AugmentationConfig(size=16, flip=True, mix="cutmix")

    def run(stream: AugmentationStream, epoch: int) -> list[AugmentedBatch]:
        return [stream.make(pixels, labels, rows, epoch, batch) for batch, rows in stream.batches(epoch, 8)]

    stream = AugmentationStream(plan, count)
    first = [run(stream, epoch) for epoch in (0, 1)]
    again = run(AugmentationStream(plan, count), 1)  # a restart in the second epoch
    for one, other in zip(first[1], again, strict=True):
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.partner_labels, other.partner_labels)
        assert one.weight == other.weight
    assert len({views.weight for views in first[1]}) > 1
    assert first[0][0].weight != first[1][0].weight


@pytest.mark.parametrize("held", [0, 2**20])  # bytes of tables: none is found again, or all are
@pytest.mark.parametrize("plan", PLANS, ids=["whole", "mosaic", "crop", "shift"])
@pytest.mark.parametrize("count", [30, 700])
def test_a_batch_on_its_own_is_the_batch_in_its_turn(
    plan: AugmentationConfig, count: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.kit.views.stream.REPLAY_BYTES", held)
    pixels, labels = random_set(count, 16)
    plan = plan.model_copy(update={"mix": "cutmix"})
    ordinary, alone = AugmentationStream(plan, count), AugmentationStream(plan, count)
    for epoch in (EPOCH, 80, EPOCH + 1, EPOCH):
        for batch, indices in ordinary.batches(epoch, 13):
            if batch not in (0, 1, -(-count // 13) - 1):  # the last is shorter
                continue
            wanted = ordinary.make(pixels, labels, indices, epoch, batch)
            made = alone.again(pixels, labels, epoch, batch, 13)
            for name in ("pixels", "indices", "labels", "partner_labels", "partner_indices"):
                assert torch.equal(getattr(made, name), getattr(wanted, name)), name
            assert (made.weight, made.epoch, made.batch) == (wanted.weight, epoch, batch)
    assert len(alone._replayed) == (9 if held else 1)
    assert alone._replayed_bytes == sum(table.bytes for _, (table, _) in alone._replayed.values())


@pytest.mark.parametrize("mix", ["none", "cutmix", "mixup"])
@pytest.mark.parametrize("plan", PLANS, ids=["whole", "mosaic", "crop", "shift"])
def test_nothing_waits_for_the_device(plan: AugmentationConfig, mix: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the meta device hold no values: whatever reads one on the host fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no meta device
    plan = plan.model_copy(update={"mix": mix})
    stream = AugmentationStream(plan, 30)
    pixels = torch.empty(30, 3, 16, 16, dtype=torch.uint8, device="meta")
    labels = torch.empty(30, dtype=torch.int64, device="meta")
    for batch, indices in stream.batches(EPOCH, 8, "meta"):
        views = stream.make(pixels, labels, indices, EPOCH, batch)
        assert views.pixels.shape == (len(indices), 3, plan.size, plan.size)
        assert isinstance(views.weight, float)
        again = stream.again(pixels, labels, EPOCH, batch, 8)
        assert again.pixels.shape == views.pixels.shape and again.weight == views.weight


def test_plan_is_strict_and_its_digest_ignores_defaults() -> None:
    plan = AugmentationConfig(size=32, mix="cutmix")
    assert plan == AugmentationConfig.model_validate_json(plan.model_dump_json())
    assert plan.digest() == AugmentationConfig(size=32, mix="cutmix", alpha=1.0, pad=4).digest()
    assert plan.digest() != AugmentationConfig(size=32).digest()
    bad: list[dict[str, Any]] = [
        {"size": 0},
        {"min_scale": 0},
        {"min_scale": 0.9, "max_scale": 0.5},
        {"ratio": (2, 1)},
        {"crop": "center"},
        {"alpha": 0},
        {"shuffle": 0},
        {"pad": -1},
        {"seed": -1},
        {"flips": True},
    ]
    for fields in bad:
        with pytest.raises(ValidationError):
            AugmentationConfig.model_validate({"size": 32, **fields})


def test_impossible_requests_are_refused() -> None:
    pixels, labels = random_set(4, 15)
    with pytest.raises(UserError, match="15 x 15 pixels cannot be cut into 2 x 2"):
        epoch_views(AugmentationConfig(size=16, shuffle=2), pixels, labels)
    with pytest.raises(UserError, match=r"shuffle=2 .* use shuffle=1"):
        AugmentationStream(AugmentationConfig(size=16, shuffle=2), 4).boxes(0, labels, labels, labels)
    with pytest.raises(ValueError, match="a stream of 5 images was given 4"):
        AugmentationStream(AugmentationConfig(size=16), 5).make(pixels, labels, torch.arange(4), 0, 0)
