"""What a projector stores, counted without weights: to the unit, against the networks."""

from __future__ import annotations

import math
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from bench.api import LabelSize
from bench.kit.clip.loading import load_clip
from methods.hello import lora
from methods.hello.config import Config, Convention, Layers
from methods.hello.projector import build, label_size
from tests.methods.test_hello_lora import COUNTS

RN50 = "RN50:openai"


@pytest.fixture(scope="module")
def rn50() -> nn.Module:
    visual: nn.Module = open_clip.create_model("RN50", pretrained=None, device="meta").visual  # shapes alone
    return visual


@pytest.mark.parametrize(("convention", "layers", "pool", "convs", "in1k", "in100", "whole"), COUNTS)
def test_counts(
    rn50: nn.Module, convention: Convention, layers: Layers, pool: bool, convs: int, in1k: int, in100: int, whole: int
) -> None:
    settings: dict[str, Any] = {"convention": convention, "layers": layers, "attention_pool": pool}
    config = Config(**settings)
    assert label_size(config, RN50, 1000) == LabelSize(in1k, 4, 38_316_896)
    assert label_size(config, RN50, 100) == LabelSize(in100, 4, 38_316_896)
    assert label_size(Config(head="full", **settings), RN50, 1000) == LabelSize(whole, 4, 38_316_896)
    shapes = {name: rn50.get_parameter(name).shape for name in lora.select(rn50, layers, pool)}
    assert sum(map(math.prod, lora.stored_shapes(shapes, 8, convention).values())) == convs


def test_settings_that_change_it() -> None:
    probe = label_size(Config(adapt="head", head="full"), RN50, 1000)
    assert probe == LabelSize(1_024_000, 4, 38_316_896)
    assert label_size(Config(store_dtype="float16"), RN50, 1000) == LabelSize(816_856, 2, 38_316_896)
    assert label_size(Config(learn_scale=True), RN50, 1000) == LabelSize(816_857, 4, 38_316_896)
    assert label_size(Config(head_rank=64), RN50, 1000) == LabelSize(816_856 - 64 * 2024, 4, 38_316_896)
    assert label_size(Config(), "RN51:openai", 1000) is None


def test_other_towers() -> None:
    """ViT-B/32: 12 blocks of four linear layers of width 768 (3 x 768, 768, 3072, 768 outputs), rank 8; its features
    are 512 numbers."""
    found = label_size(Config(), "ViT-B-32:openai", 1000)
    assert found is not None and found.public == 87_849_216
    blocks = 12 * 8 * (768 * (1 + 3) + 768 * (1 + 1) + 768 * (1 + 4) + 768 * (4 + 1))
    assert found.numbers == blocks + 128 * (1000 + 512)


@pytest.mark.parametrize(
    "settings",
    [{}, {"conv_rank": 3, "layers": "all", "attention_pool": True}, {"adapt": "head"}, {"head": "full"},
     {"learn_scale": True, "convention": "peft", "head_rank": 5}],
)  # fmt: skip
def test_a_real_projector(settings: dict[str, Any]) -> None:
    config, names = Config(**settings), [f"thing {number}" for number in range(12)]
    clip, tokenizer, _ = load_clip("icon-clip", torch.device("cpu"))
    public = sum(p.numel() for p in clip.visual.parameters())
    projector = build(clip, tokenizer, names, config)
    stored = sum(p.numel() for p in lora.adapters(projector).values())
    assert label_size(config, "icon-clip", 12) == LabelSize(stored, 4, public)
