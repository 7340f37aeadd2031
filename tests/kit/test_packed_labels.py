"""Label models stored in fewer bits: how exactly, in how many bytes, and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.api import AugmentedBatch
from bench.api.stored.precision import PRECISIONS, Precision
from bench.errors import UserError
from bench.kit import labels as label_sources
from bench.kit.labels.online import OnlineTeacher, restored, rounded
from bench.kit.labels.quantise import balanced, quantise, restore, store_packed, unpack_into
from bench.kit.teachers.trajectory import Network

CPU = torch.device("cpu")
NETWORK = Network(arch="convnet2-w8", classes=5, image_size=8, mean=(0.4,) * 3, std=(0.2,) * 3)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lora_pair(broken: bool) -> dict[str, Tensor]:
    """A and B of rank 8; ``broken``: half the ranks with factors a thousand times apart."""
    a, b = drawn(8, 60), drawn(40, 8, seed=1)
    if broken:
        a[:4], b[:, :4] = a[:4] * 1000, b[:, :4] / 1000
    return {"w.A": a, "w.B": b}


def product_error(state: dict[str, Tensor], precision: str) -> float:
    kind = Precision.parse(precision)
    back = {name: restore(*quantise(t, kind, name), t.shape, kind, name) for name, t in state.items()}
    return float((back["w.B"] @ back["w.A"] - state["w.B"] @ state["w.A"]).norm())


@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.parametrize("shape", [(6, 9), (5, 130), (4, 3, 3, 3), (1, 1)])
def test_numbers_come_back_within_half_a_scale(precision: str, shape: tuple[int, ...]) -> None:
    kind, tensor = Precision.parse(precision), drawn(*shape)
    tensor[0] = 0
    for name in ("w.A", "w.B"):
        packed, scale = quantise(tensor, kind, name)
        assert scale.dtype == torch.float16 and len(scale) == kind.scales(name, shape)
        assert packed.nbytes + scale.nbytes == kind.payload({name: shape})
        back = restore(packed, scale, shape, kind, name)
        assert back.shape == shape and back[0].abs().max() == 0
        assert torch.equal(restore(*quantise(-tensor, kind, name), shape, kind, name), -back)
        error, most = (back - tensor).flatten(1).abs(), {"int8": 127, "int4": 7}[kind.numbers]
        assert kind.numbers == "int4" or error.max() <= scale.max() / 2 * 1.001
        if kind.per == "row":
            inside = tensor.flatten(1).abs() <= scale.float()[:, None] * most
            assert (error <= scale.float()[:, None] / 2 * 1.001 + 1e-7)[inside].all()


def test_the_table_of_the_projector_to_the_byte() -> None:
    """19 convolutions of 3 x 3 with factors of rank 24, and a head of rank 128 on 1,024 features: 816,856 numbers."""
    from methods.hello.config import Config
    from methods.hello.projector import label_size

    found = label_size(Config(), "RN50:openai", 1000)
    assert found is not None and found.numbers == 816_856
    sizes = {name: Precision.parse(name).payload(found.shapes) for name in PRECISIONS}
    assert sizes["fp16"] == 1_633_712 and sizes["int8"] == 843_448 and sizes["int8+rank"] == 819_192
    assert sizes["int4"] == 435_032 and sizes["int4+group64"] == 448_696
    assert sum(Precision.parse("int4+group64").scales(*one) for one in found.shapes.items()) == 20_128


def test_balancing_keeps_the_product_and_helps() -> None:
    for broken in (False, True):
        state = lora_pair(broken)
        even = balanced(state)
        torch.testing.assert_close(even["w.B"] @ even["w.A"], state["w.B"] @ state["w.A"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(even["w.A"].norm(dim=1), even["w.B"].norm(dim=0), rtol=1e-4, atol=1e-4)
    for precision in ("int8", "int4"):
        assert product_error(balanced(lora_pair(True)), precision) < product_error(lora_pair(True), precision)
    wide = {"w.A": drawn(6, 4), "w.B": drawn(3, 6, seed=2)}  # a rank above both sides
    assert balanced(wide)["w.A"].shape == (6, 4)
    torch.testing.assert_close(balanced(wide)["w.B"] @ balanced(wide)["w.A"], wide["w.B"] @ wide["w.A"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_source_is_stored_again_and_read_back(tmp_path: Path, precision: str) -> None:
    torch.manual_seed(0)
    source = OnlineTeacher(NETWORK, NETWORK.build().eval().requires_grad_(False))
    (exact := tmp_path / "exact").mkdir()
    (packed := tmp_path / "packed").mkdir()
    source.save(exact)
    (exact / "more.txt").write_text("kept")
    store_packed(exact, packed, precision)
    assert sorted(path.name for path in packed.iterdir()) == ["more.txt", "source.json", "teacher.safetensors"]
    kinds, state = load_file(packed / "teacher.safetensors"), load_file(exact / "teacher.safetensors")
    floats = {name: tensor.shape for name, tensor in state.items() if tensor.is_floating_point()}
    whole = sum(tensor.nbytes for name, tensor in state.items() if name not in floats)
    assert sum(t.nbytes for t in kinds.values()) == whole + Precision.parse(precision).payload(floats)
    (back := tmp_path / "back").mkdir()
    unpack_into(packed, back)
    both = [{n: (t.shape, t.dtype) for n, t in one.items()} for one in (load_file(back / "teacher.safetensors"), state)]
    assert both[0] == both[1]
    assert json.loads((back / "source.json").read_text()) == json.loads((exact / "source.json").read_text())
    pixels, nobody = torch.rand(7, 3, 8, 8), torch.zeros(7, dtype=torch.int64)
    views = AugmentedBatch(pixels, nobody, nobody, nobody, nobody, 1.0, 0, 0)
    wanted, found = source.soft_labels(views, 0), label_sources.load(packed, CPU, {}).soft_labels(views, 0)
    assert (found - wanted).norm() < {"fp16": 2e-3, "int8": 0.03, "int4": 0.5}[precision.split("+")[0]] * wanted.norm()


def test_fp16_is_exact_for_what_it_holds(tmp_path: Path) -> None:
    (exact := tmp_path / "exact").mkdir()
    (packed := tmp_path / "packed").mkdir()
    (exact / "source.json").write_text('{"kind": "x"}')
    save_file({"w.A": drawn(4, 6).half().float(), "big": torch.tensor([1e9])}, exact / "a.safetensors")
    store_packed(exact, packed, "fp16")
    unpack_into(packed, exact)
    assert torch.equal(load_file(exact / "a.safetensors")["w.A"], drawn(4, 6).half().float())
    assert load_file(exact / "a.safetensors")["big"].item() == 65504


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_teacher_answers_with_what_comes_back(precision: Any) -> None:
    torch.manual_seed(1)
    state = NETWORK.build().net.state_dict()
    back = restored(rounded(state, precision), NETWORK)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert back[name].shape == tensor.shape
        torch.testing.assert_close(back[name], tensor.float(), rtol=1e-3, atol=0.2 if precision == "int4" else 0.02)


def test_an_unknown_precision_is_told() -> None:
    with pytest.raises(UserError, match=r"online:int3.*did you mean"):
        Precision.parse("int3")
