"""What a projector stores, said without building it: to the unit, against the networks."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from bench.api import LabelSize
from bench.kit.clip.loading import load_clip
from methods.hello import lora
from methods.hello.config import Config, Convention, Layers
from methods.hello.parameters import Tower, label_size, tower
from methods.hello.projector import build
from tests.methods.test_hello_lora import COUNTS

RN50 = "RN50:openai"


@pytest.fixture(scope="module")
def rn50() -> nn.Module:
    visual: nn.Module = open_clip.create_model("RN50", pretrained=None, device="meta").visual  # shapes alone
    return visual


def convolutions(visual: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(m.weight.shape) for name, m in visual.named_modules() if isinstance(m, nn.Conv2d)}


def test_tower_of_rn50(rn50: nn.Module) -> None:
    known = tower(RN50)
    assert known is not None and known.parameters == 38_316_896
    found = dict(known.convolutions())
    assert found == convolutions(rn50) and len(found) == 55
    pool = [tuple(rn50.get_parameter(f"attnpool.{part}_proj.weight").shape) for part in "qkvc"]
    assert list(known.attention()) == pool


@pytest.mark.parametrize(
    ("width", "layers", "size", "features"), [(8, (1, 1, 1, 1), 32, 16), (16, (2, 1, 3, 1), 64, 24)]
)
def test_other_towers(width: int, layers: tuple[int, ...], size: int, features: int) -> None:
    with torch.device("meta"):
        real = open_clip.modified_resnet.ModifiedResNet(list(layers), features, 4, size, width)
    known = Tower(width, layers, size, features)
    assert known.parameters == sum(p.numel() for p in real.parameters())
    assert dict(known.convolutions()) == convolutions(real)


@pytest.mark.parametrize(("convention", "layers", "pool", "convs", "in1k", "in100", "whole"), COUNTS)
def test_counts(
    rn50: nn.Module, convention: Convention, layers: Layers, pool: bool, convs: int, in1k: int, in100: int, whole: int
) -> None:
    settings: dict[str, Any] = {"convention": convention, "layers": layers, "attention_pool": pool}
    config = Config(**settings)
    assert label_size(config, RN50, 1000) == LabelSize(in1k, 4, 38_316_896)
    assert label_size(config, RN50, 100) == LabelSize(in100, 4, 38_316_896)
    assert label_size(Config(head="full", **settings), RN50, 1000) == LabelSize(whole, 4, 38_316_896)
    assert lora.count(rn50, lora.select(rn50, layers, pool), 8, convention) == convs


def test_settings_that_change_it() -> None:
    probe = label_size(Config(adapt="head", head="full"), RN50, 1000)
    assert probe == LabelSize(1_024_000, 4, 38_316_896)
    assert label_size(Config(store_dtype="float16"), RN50, 1000) == LabelSize(816_856, 2, 38_316_896)
    assert label_size(Config(learn_scale=True), RN50, 1000) == LabelSize(816_857, 4, 38_316_896)
    assert label_size(Config(head_rank=64), RN50, 1000) == LabelSize(816_856 - 64 * 2024, 4, 38_316_896)
    assert label_size(Config(), "ViT-B-32:openai", 1000) is None


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


def test_it_needs_no_torch() -> None:
    code = "import sys; from methods.hello.parameters import *; label_size(Config(), 'icon-clip', 10); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
