"""Networks by name: counts known from elsewhere, names the field's checkpoints have, sizes that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from bench.api import architectures
from bench.errors import UserError
from bench.kit.models import Classifier, build

GREY: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def net(arch: str, classes: int = 10, size: int = 32) -> Any:
    return build(arch, classes, size, **GREY).net


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_resnet18_of_a_hundred_classes_has_11227812_parameters() -> None:
    assert count(net("resnet18", 100, 224)) == 11_227_812  # HeLlO's Table 1: 10.7 x 2^20


def conv_block(into: int, out: int) -> int:
    return into * out * 9 + out + 2 * out  # kernel, bias, batch norm


@pytest.mark.parametrize(
    ("arch", "size", "wanted"),
    [
        ("convnet3", 32, 320_010),  # known from dataset condensation (its instance norms have as many)
        ("convnet3", 28, conv_block(3, 128) + 2 * conv_block(128, 128) + 128 * 9 * 10 + 10),  # 28, 14, 7, 3
        ("convnet3-w32", 16, conv_block(3, 32) + 2 * conv_block(32, 32) + 32 * 4 * 10 + 10),
        ("convnet6", 128, conv_block(3, 128) + 5 * conv_block(128, 128) + 128 * 4 * 10 + 10),
    ],
)
def test_convnets_have_the_counts_worked_out_by_hand(arch: str, size: int, wanted: int) -> None:
    assert count(net(arch, 10, size)) == wanted


@pytest.mark.parametrize("depth", ["18", "34", "50"])
def test_a_small_resnet_is_torchvisions_but_for_the_stem(depth: str) -> None:
    ours, theirs = net(f"resnet{depth}-small", 200, 64), torchvision.models.get_model(f"resnet{depth}", num_classes=200)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    ours.load_state_dict(theirs.state_dict())  # the same names and shapes
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(ours.eval()(pixels), theirs.eval()(pixels))


def test_a_resnet10_has_one_block_a_stage_of_the_width_asked_for() -> None:
    small = net("resnet10-small-w16", 10, 16)
    assert [len(getattr(small, f"layer{stage}")) for stage in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert small.conv1.weight.shape == (16, 3, 3, 3) and small.fc.weight.shape == (10, 128)


@pytest.mark.parametrize("arch", [*architectures.SMALL, "convnet2-w8", "resnet18-small-w16", "timm:resnet10t"])
def test_every_small_network_answers_and_learns(arch: str) -> None:
    model = build(arch, 7, 64, **GREY)
    logits = model(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 7) and logits.dtype == torch.float32
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("arch", ["mobilenet_v2", "shufflenet_v2_x0_5", "torchvision:squeezenet1_1"])
def test_libraries_networks_come_in_training_mode(arch: str) -> None:
    model = build(arch, 7, 64, **GREY)
    assert all(module.training for module in model.modules())
    assert model.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 7)


def test_the_input_is_normalised_inside() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    model = Classifier(nn.Identity(), mean, std)
    pixels = torch.rand(4, 3, 5, 5)
    wanted = torchvision.transforms.functional.normalize(pixels, mean, std)
    assert torch.allclose(model(pixels), wanted, atol=1e-6)
    assert not model.state_dict()  # the statistics are not weights


def conv_bn(into: int, out: int, kernel: int, groups: int = 1) -> int:
    return into // groups * out * kernel**2 + 2 * out


def wide_resnet(blocks: int, widen: int, classes: int) -> int:
    """A bare stem; blocks that normalise first, a 1x1 shortcut where the width changes; a last norm."""
    total, width = 3 * 16 * 9, 16
    for out in (16 * widen, 32 * widen, 64 * widen):
        for into in [width] + [out] * (blocks - 1):
            total += 2 * into + into * out * 9 + 2 * out + out * out * 9 + (into * out if into != out else 0)
        width = out
    return total + 2 * width + width * classes + classes


def half_mobilenet(classes: int) -> int:
    total, width = conv_bn(3, 16, 3), 16
    for expansion, out, count in [(1, 8, 1), (6, 12, 2), (6, 16, 3), (6, 32, 4), (6, 48, 3), (6, 80, 3), (6, 160, 1)]:
        for _ in range(count):
            hidden = expansion * width
            total += conv_bn(width, hidden, 1) + conv_bn(hidden, hidden, 3, hidden) + conv_bn(hidden, out, 1)
            width = out
    return total + conv_bn(160, 1280, 1) + 1280 * classes + classes


def half_shufflenet(classes: int) -> int:
    total, width = conv_bn(3, 24, 1), 24
    for out, count in [(48, 3), (96, 7), (192, 3)]:
        half = out // 2
        total += conv_bn(width, width, 3, width) + 2 * conv_bn(width, half, 1)
        total += conv_bn(half, half, 3, half) + conv_bn(half, half, 1)
        total += count * (2 * conv_bn(half, half, 1) + conv_bn(half, half, 3, half))
        width = out
    return total + conv_bn(192, 1024, 1) + 1024 * classes + classes


@pytest.mark.parametrize(
    ("arch", "wanted"),
    [
        ("wrn16-2", wide_resnet(2, 2, 100)),
        ("wrn16-1", wide_resnet(2, 1, 100)),
        ("wrn10-3", wide_resnet(1, 3, 100)),
        ("wrn40-1", wide_resnet(6, 1, 100)),
        ("mobilenetv2-small", half_mobilenet(100)),
        ("shufflenetv2-small", half_shufflenet(100)),
    ],
)
def test_the_small_networks_of_g_vbsms_pool_have_the_counts_worked_out_by_hand(arch: str, wanted: int) -> None:
    assert count(net(arch, 100)) == wanted
    if arch == "wrn16-2":
        assert wanted == 703_284  # 0.70 M in CRD's tables
    if arch == "mobilenetv2-small":
        assert wanted == 812_836  # 0.81 M


@pytest.mark.parametrize("arch", ["wrn16-2", "wrn10-1", "mobilenetv2-small", "shufflenetv2-small"])
def test_they_take_images_of_any_size_and_keep_images_apart(arch: str) -> None:
    for size in (16, 28, 32, 64):
        model = net(arch, 7, size).eval()
        pixels = torch.rand(3, 3, size, size)
        with torch.no_grad():
            logits = model(pixels)
            assert logits.shape == (3, 7)
            assert torch.allclose(model(pixels[1:2])[0], logits[1], rtol=1e-3, atol=float(logits.abs().max()) * 1e-3)
            assert not torch.equal(logits[0], logits[1])


def test_how_far_they_shrink_images() -> None:
    """By 4, 16 and 8: what their last normalised maps of 32-px images measure."""
    for arch, side in {"wrn16-2": 8, "mobilenetv2-small": 2, "shufflenetv2-small": 4}.items():
        model, sides = net(arch).eval(), []
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda module, given, made, sides=sides: sides.append(made.shape[-1]))
        model(torch.rand(1, 3, 32, 32))
        assert sides[-1] == side


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        ("wrn16-2", ["block1.layer.0.convShortcut.weight", "block3.layer.1.bn2.running_var", "bn1.bias", "fc.weight"]),
        ("mobilenetv2-small", ["conv1.0.weight", "blocks.3.2.conv.6.weight", "conv2.1.bias", "classifier.0.bias"]),
        ("shufflenetv2-small", ["layer1.0.conv5.weight", "layer2.7.bn3.bias", "conv2.weight", "linear.bias"]),
    ],
)
def test_their_parameters_have_the_names_of_crds_checkpoints(arch: str, names: list[str]) -> None:
    assert set(names) <= set(net(arch).state_dict())


def test_the_same_stream_gives_the_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(net("convnet2-w8").state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_momentum_of_batch_norms_is_the_architectures_unless_given() -> None:
    def momenta(model: nn.Module) -> set[float | None]:
        return {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)}

    assert momenta(build("convnet2-w8", 10, 16, **GREY)) == {0.1}
    assert momenta(build("convnet2-w8", 10, 16, **GREY, bn_momentum=0.19)) == {0.19}
    assert momenta(build("torchvision:mobilenet_v3_small", 10, 32, **GREY)) == {0.01}


def test_a_doubled_update_of_the_statistics_is_one_of_momentum_019() -> None:
    """RDED's validation runs each batch through the student twice before it steps (``validation/main.py``)."""
    twice, once = nn.BatchNorm2d(6), nn.BatchNorm2d(6, momentum=0.19)
    for batch in torch.rand(20, 8, 6, 4, 4) * 3 + 1:
        twice(batch)
        twice(batch)
        once(batch)
    for name in ("running_mean", "running_var"):
        assert torch.allclose(twice.get_buffer(name), once.get_buffer(name), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("arch", "size", "message"),
    [
        ("wrn17-2", 32, r"unknown student 'wrn17-2' \(did you mean 'wrn16-2'\?\)"),
        ("resnet81", 32, r"unknown student 'resnet81' \(did you mean 'resnet18'\?\)"),
        ("timm:resnet18_", 32, r"unknown timm model 'resnet18_' \(did you mean"),
        ("torchvision:resnet19", 32, r"unknown torchvision model 'resnet19' \(did you mean 'resnet1"),
        ("timm:", 32, "names no model"),
        ("convnet6", 32, "convnet6 halves images 6 times: 32 px are too few"),
        ("swin-small", 28, "a multiple of 16, not 28"),
        ("vit_b_16", 32, "vit_b_16 can't take images of 32 px"),
        ("alexnet", 32, "alexnet can't take images of 32 px"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(arch: str, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        net(arch, 10, size)
    assert "\n" not in str(caught.value)
