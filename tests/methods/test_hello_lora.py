"""Low-rank updates: parameter counts to the unit, each convention against plain loops, choice and merging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import open_clip
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from bench.errors import UserError
from methods.hello import lora, projector
from methods.hello.config import Config, Convention, Layers


@pytest.fixture(scope="module")
def rn50() -> nn.Module:
    visual: nn.Module = open_clip.create_model("RN50", pretrained=None, device="meta").visual  # shapes alone
    return visual


def tiny_tower(width: int = 8) -> ModifiedResNet:
    torch.manual_seed(0)
    return ModifiedResNet(layers=[1, 1, 1, 1], output_dim=16, heads=4, image_size=32, width=width).eval()


def numel(shapes: Sequence[Sequence[int]], rank: int, convention: Convention) -> int:
    named = {str(index): shape for index, shape in enumerate(shapes)}
    return sum(map(math.prod, lora.stored_shapes(named, rank, convention).values()))


def head_numbers(classes: int) -> int:
    return numel([(classes, 1024)], Config().rank(classes, 1024), "loralib")


def updates(tower: nn.Module, weights: list[str], convention: Convention = "loralib", rank: int = 8) -> int:
    return numel([tower.get_parameter(name).shape for name in weights], rank, convention)


def test_clip_rn50_tower(rn50: nn.Module) -> None:
    assert sum(p.numel() for p in rn50.parameters()) == 38_316_896
    assert sum(isinstance(m, nn.Conv2d) for m in rn50.modules()) == 55
    assert head_numbers(1000) == 259_072
    assert head_numbers(100) == 71_936


# layers, attention pool, updates of the tower, totals: ImageNet-1K, ImageNet-100, and 1K with its head whole
COUNTS = [
    ("loralib", "all", False, 889_560, 1_148_632, 961_496, 1_913_560),
    ("loralib", "3x3-blocks", False, 543_744, 802_816, 615_680, 1_567_744),
    ("loralib", "3x3", False, 557_784, 816_856, 629_720, 1_581_784),
    ("peft", "all", False, 639_704, 898_776, 711_640, 1_663_704),
    ("peft", "no-downsample", False, 594_136, 853_208, 666_072, 1_618_136),
    ("peft", "blocks", False, 588_288, 847_360, 660_224, 1_612_288),
    ("peft", "layers-3-4", False, 516_096, 775_168, 588_032, 1_540_096),
    ("flattened", "all", False, 517_704, 776_776, 589_640, 1_541_704),
    ("flattened", "no-stem", False, 513_024, 772_096, 584_960, 1_537_024),
    ("flattened", "no-downsample", True, 595_016, 854_088, 666_952, 1_619_016),
]


@pytest.mark.parametrize(("convention", "layers", "pool", "convs", "in1k", "in100", "whole"), COUNTS)
def test_counts(
    rn50: nn.Module,
    convention: Convention,
    layers: Layers,
    pool: bool,
    convs: int,
    in1k: int,
    in100: int,
    whole: int,
) -> None:
    config = Config(convention=convention, layers=layers, attention_pool=pool)
    weights = lora.select(rn50, config.layers, config.attention_pool)
    found = updates(rn50, weights, config.convention)
    assert found == convs
    assert (found + head_numbers(1000), found + head_numbers(100)) == (in1k, in100)
    assert found + 1024 * 1000 == whole


def test_default_and_attention_pool(rn50: nn.Module) -> None:
    config = Config()
    weights = lora.select(rn50, config.layers, config.attention_pool)
    assert len(weights) == 19
    assert updates(rn50, weights) + head_numbers(1000) == 816_856
    pool = [name for name in lora.select(rn50, "3x3", True) if name not in weights]
    assert updates(rn50, pool) == 122_880


# the rows of the ablation: what each stores of a projector to 1000 classes (arXiv 2408.08201, Table 3: 1.0, 1.0, 1.5,
# .8 and .8 M, M being 2^20)
ABLATION = [
    ({"adapt": "head", "head": "full", "init": "random", "teachers": "none"}, 1_024_000),
    ({"adapt": "head", "head": "full", "init": "random"}, 1_024_000),
    ({"head": "full", "init": "random"}, 1_581_784),
    ({}, 816_856),
    ({"image_update": True}, 816_856),
]


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    """The architecture of the public CLIP with random weights."""
    made: open_clip.CLIP = open_clip.create_model("RN50", pretrained=None)
    return made


@pytest.mark.parametrize(("settings", "stored"), ABLATION)
def test_ablation_counts(
    clip: open_clip.CLIP, settings: dict[str, Any], stored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built whole, as the method builds it."""
    monkeypatch.setattr(projector, "text_embeddings", lambda *_: torch.zeros(1000, 1024))
    names = [f"class {index}" for index in range(1000)]
    model = projector.build(deepcopy(clip), lambda _: torch.zeros(1), names, Config(**settings))
    assert sum(p.numel() for p in lora.adapters(model).values()) == stored


def loops(a: Tensor, b: Tensor, shape: tuple[int, ...], convention: str) -> Tensor:
    """B A as a weight, number by number."""
    out, inner, k, _ = shape
    delta = torch.zeros(shape)
    for o in range(out):
        for i in range(inner):
            for y in range(k):
                for x in range(k):
                    if convention == "peft":  # the r-channel k x k convolution, mixed by a 1 x 1
                        kernels = a.view(-1, inner, k, k)
                        delta[o, i, y, x] = sum(b[o, r] * kernels[r, i, y, x] for r in range(b.shape[1]))
                    else:  # place of the number in a product of shape (out k, in k), read row by row
                        row, column = divmod(((o * inner + i) * k + y) * k + x, inner * k)
                        delta[o, i, y, x] = sum(b[row, r] * a[r, column] for r in range(b.shape[1]))
    return delta


@pytest.mark.parametrize("convention", ["loralib", "peft", "flattened"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.usefixtures("in_double")
def test_update_is_the_plain_product(convention: Convention, kernel: int) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 3, kernel, kernel, generator=generator)
    gain = torch.rand(4, generator=generator) + 0.5
    update = lora.LowRank(weight, 2, convention, 3.0, gain, generator)
    assert torch.equal(update(weight), weight)  # B starts at zero
    assert float(update.A.detach().abs().max()) <= update.A.shape[1] ** -0.5
    nn.init.normal_(update.B, generator=generator)
    plain = loops(update.A.detach(), update.B.detach(), tuple(weight.shape), convention)
    expected = weight + 3.0 / 2 * gain[:, None, None, None] * plain
    torch.testing.assert_close(update(weight).detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("in_double")
def test_peft_is_two_convolutions() -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    update = lora.LowRank(weight, 2, "peft", None, None, generator)
    nn.init.normal_(update.B, generator=generator)
    x = torch.randn(2, 3, 6, 6, generator=generator)
    through = nn.functional.conv2d(x, update.A.view(2, 3, 3, 3), padding=1)
    aside = nn.functional.conv2d(through, update.B.view(4, 2, 1, 1))
    found = nn.functional.conv2d(x, update(weight), padding=1)
    expected = nn.functional.conv2d(x, weight, padding=1) + aside
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("convention", ["loralib", "peft", "flattened"])
@pytest.mark.usefixtures("in_double")
def test_merged_equals_unmerged(convention: Convention) -> None:
    tower = tiny_tower().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    weights = lora.select(tower, "all", attention_pool=True)
    lora.attach(tower, weights, 2, convention, None, {}, generator)
    trained = lora.adapters(tower)
    assert set(trained) == {f"{name}.{factor}" for name in weights for factor in "AB"}
    shapes = tiny_tower()
    assert sum(p.numel() for p in trained.values()) == updates(shapes, weights, convention, rank=2)
    for name, parameter in trained.items():
        if name.endswith(".B"):
            nn.init.normal_(parameter, std=0.1, generator=generator)
    x = torch.randn(2, 3, 32, 32, generator=generator)
    before = tower(x).detach()
    assert not torch.allclose(before, tiny_tower()(x), atol=1e-3)  # the update does something
    lora.merge(tower)
    assert not lora.adapters(tower)
    assert {name for name, _ in tower.named_parameters()} == {name for name, _ in shapes.named_parameters()}
    torch.testing.assert_close(tower(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("in_double")
def test_vit_has_its_linear_layers_adapted() -> None:
    torch.manual_seed(0)
    tower = VisionTransformer(32, patch_size=8, width=16, layers=2, heads=2, mlp_ratio=2.0, output_dim=8)
    tower.eval().requires_grad_(False)
    weights = lora.select(tower, "3x3", attention_pool=False)
    block = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert weights == [f"transformer.resblocks.{index}.{part}" for index in range(2) for part in block]
    assert lora.select(tower, "all", attention_pool=False) == weights
    generator = torch.Generator().manual_seed(4)
    lora.attach(tower, weights, 2, "loralib", None, {}, generator)
    for parameter in lora.adapters(tower).values():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    x = torch.randn(2, 3, 32, 32, generator=generator)
    before = tower(x)
    before.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lora.adapters(tower).values())
    lora.merge(tower)
    torch.testing.assert_close(tower(x), before.detach(), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="attention_pool"):
        lora.select(tower, "3x3", attention_pool=True)
