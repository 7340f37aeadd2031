"""Synthetic data and an untrained CLIP: both need no files and are the same every time."""

from __future__ import annotations

import pytest
import torch

from bench.api import catalogue
from bench.kit import data
from bench.kit.clip.loading import load_clip
from bench.kit.clip.naming import clip_identity
from bench.kit.data.dataset import Resident


@pytest.mark.parametrize("name", ["synthetic", "synthetic-imagenet-1k"])
def test_it_is_what_the_catalogue_says(name: str) -> None:
    info = catalogue.dataset(name)
    made, again = data.load(info), data.load(info)
    assert isinstance(made.train, Resident) and isinstance(again.train, Resident)
    assert torch.equal(made.train.pixels, again.train.pixels) and made.train.pixels.dtype == torch.uint8
    assert torch.bincount(made.train.labels).tolist() == [info.smallest_class] * info.classes
    assert len(made.test) == info.test_images and len(set(made.names)) == info.classes
    pixels = made.train.pixels[:1000].double() / 255
    assert 0.4 < pixels.mean() < 0.6 and 0.15 < pixels.std() < 0.3


def test_classes_differ_and_images_of_a_class_do_too() -> None:
    made = data.load(catalogue.dataset("synthetic"))
    assert isinstance(made.train, Resident) and isinstance(made.test, Resident)
    of_class = made.train.pixels.view(100, 10, -1).double()
    within = (of_class[:, 0] - of_class[:, 1]).abs().mean()
    between = (of_class[0, 0] - of_class[1, 0]).abs().mean()
    assert 5 < within < between / 2
    assert not torch.equal(made.train.pixels[0], made.test.pixels[0])


def test_an_untrained_clip_is_the_same_everywhere_and_draws_from_nobody() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model, tokenizer, base = load_clip("RN50:none", "cpu")
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)
    other, _, again = load_clip("RN50:none", "cpu")
    assert base == again and base.name == "RN50:none" == clip_identity("RN50:none")
    kept = model.state_dict()
    assert base.bytes == sum(tensor.nbytes for tensor in kept.values()) > 4 * 102_007_137
    assert all(torch.equal(tensor, kept[name]) for name, tensor in other.state_dict().items())
    assert tokenizer(["a thing"]).shape == (1, 77)
    with torch.no_grad():
        assert torch.isfinite(model.visual(torch.rand(1, 3, 224, 224))).all()
