"""The packaged icon-clip and open_clip models, loaded by name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from bench.errors import UserError
from bench.kit.clip import weights
from bench.kit.clip.loading import ICON_CLIP_FOLDER, load_clip, load_clip_folder, text_embeddings
from bench.kit.clip.naming import clip_identity, file_digest
from bench.kit.clip.weights import check
from examples.icon_clip.captions import CLIP_PROMPTS, NUMBERS
from examples.icon_clip.measure import zero_shot

CARD = (ICON_CLIP_FOLDER / "README.md").read_text(encoding="utf-8")
DIGIT_NAMES = [f"number {word}" for word in NUMBERS[:10]]


def test_icon_clip_is_what_its_card_says() -> None:
    model, _, base = load_clip("icon-clip", "cpu")
    weights = ICON_CLIP_FOLDER / "model.safetensors"
    assert base.name == "icon-clip"
    assert base.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert base.sha256 in CARD
    assert base.bytes == weights.stat().st_size <= 12_000_000
    assert f"{base.bytes:,} bytes" in CARD
    assert model.visual.image_size == 32
    assert tuple(model.visual.image_mean) == tuple(model.visual.image_std) == (0.5, 0.5, 0.5)
    assert not model.training
    assert all(value.dtype == torch.float32 and not value.requires_grad for value in model.parameters())


def test_icon_clip_names_digits_as_well_as_its_card_says() -> None:
    (said,) = re.findall(r"\| digits .*?\| ([\d.]+) % \|", CARD)
    model, tokenizer, _ = load_clip("icon-clip", "cpu")
    digits = load_digits()
    pixels = torch.from_numpy(np.rint(digits.images * 255 / 16).astype(np.uint8))[:, None].expand(-1, 3, -1, -1)
    accuracy = zero_shot(model, tokenizer, pixels, torch.from_numpy(digits.target), DIGIT_NAMES)
    # The card's figure is of the test split; here are all 1,797, whose error of sampling is within 4 points of it.
    assert accuracy == pytest.approx(float(said) / 100, abs=0.04)


def test_text_embeddings_are_normalised_means_of_normalised_sentences() -> None:
    model, tokenizer, _ = load_clip("icon-clip", "cpu")
    found = text_embeddings(model, tokenizer, ["shopping bag", "boot"], CLIP_PROMPTS)
    assert found.shape == (2, 128)
    with torch.no_grad():
        sentences = model.encode_text(tokenizer([prompt.format("boot") for prompt in CLIP_PROMPTS]), normalize=True)
    mean = sentences.mean(dim=0)
    torch.testing.assert_close(found[1], mean / mean.norm())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("icon-clop", "did you mean 'icon-clip'"),
        ("RN51:openai", "did you mean 'RN50'"),
        ("RN50", "unknown CLIP 'RN50'"),
        ("RN50:nobody", "openai"),
        ("RN50:/no/such/file.pt", "no such weights file"),
    ],
)
def test_names_that_nothing_answers_to(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_clip(name, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [lambda name: load_clip(name, "cpu"), check], ids=["load", "check"])
def test_weights_that_can_not_be_fetched_are_refused_at_once(
    read: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("asked a server that doesn't answer")

    def no_route(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(weights.huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(open_clip, "download_pretrained", never)
    monkeypatch.setattr(weights.urllib.request, "urlopen", no_route)
    with pytest.raises(UserError, match=r"--clip RN50:openai@/path/to/file"):
        read("RN50:openai")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        read("RN50:openai")


def test_a_tokenizer_that_needs_another_package_is_refused_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    monkeypatch.setattr(weights.Weights, "check_server", lambda self: None)
    for name in ("ViT-B-16-SigLIP:webli", "roberta-ViT-B-32:laion2b_s12b_b32k"):
        with pytest.raises(UserError, match="needs the package transformers"):
            check(name)
    check("RN50:openai")
    check("RN50:none")


@pytest.fixture
def tags(tiny_arch: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Tags of the tiny architecture, to be changed."""
    found: dict[str, dict[str, Any]] = {
        "openai": {"quick_gelu": True, "mean": (0.4,) * 3, "std": (0.2,) * 3, "url": "https://server.test/x/openai.pt"}
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny_arch, found)
    return found


def saved(arch: str, path: Path) -> Path:
    state = open_clip.create_model(arch).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def kind_of(name: str) -> tuple[bool, Any]:
    """Whether a CLIP has QuickGELU, and its mean."""
    model, _, _ = load_clip(name, "cpu")
    return any(type(part).__name__ == "QuickGELU" for part in model.modules()), tuple(model.visual.image_mean)


def test_a_file_takes_the_settings_of_its_tag(tiny_arch: str, tags: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    path = saved(tiny_arch, tmp_path / "some.safetensors")
    openai, other = (True, (0.4,) * 3), (False, (0.1,) * 3)
    assert kind_of(f"{tiny_arch}:{path}") == kind_of(f"{tiny_arch}:openai@{path}") == openai  # the only one
    assert kind_of(f"{tiny_arch}:none@{path}")[0] is False  # the architecture's own
    tags["laion_e32"] = {"mean": (0.1,) * 3, "std": (0.2,) * 3, "url": "https://server.test/laion.pt"}
    with pytest.raises(UserError, match=r"some.safetensors.*:TAG@.*, TAG one of openai, laion_e32, or none"):
        load_clip(f"{tiny_arch}:{path}", "cpu")
    assert kind_of(f"{tiny_arch}:laion_e32@{path}") == other
    assert kind_of(f"{tiny_arch}:{path.rename(tmp_path / 'tiny-laion_e32.safetensors')}") == other  # by name
    path = saved(tiny_arch, tmp_path / "some.safetensors")
    tags["openai"]["url"] = f"https://server.test/{file_digest(path)}/RN50.pt"
    assert kind_of(f"{tiny_arch}:{path}") == openai  # by digest
    with pytest.raises(UserError, match=f"holds {tiny_arch}:openai and not RN50"):
        load_clip(f"RN50:{path}", "cpu")
    with pytest.raises(UserError, match="unknown weights of tiny-for-test 'opnai' .did you mean 'openai'"):
        load_clip(f"{tiny_arch}:opnai@{path}", "cpu")


def test_the_identity_of_a_file_holds_its_content_and_its_settings(tiny_arch: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"a")
    names = [f"RN50:{tmp_path}/a.pt", f"RN50:openai@{tmp_path}/a.pt", f"RN50:yfcc15m@{tmp_path}/a.pt", "RN50:openai"]
    digest = hashlib.sha256(b"a").hexdigest()[:12]
    assert [clip_identity(name) for name in names] == [
        f"RN50:file@{digest}", f"RN50:openai@{digest}", f"RN50:yfcc15m@{digest}", "RN50:openai",
    ]  # fmt: skip


@pytest.fixture
def tiny_arch(tmp_path: Path) -> str:
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-for-test.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-for-test.json")
    return "tiny-for-test"


def test_an_architecture_with_a_file_of_weights(tiny_arch: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    made = open_clip.create_model(tiny_arch)
    save_file({name: value.half().contiguous() for name, value in made.state_dict().items()}, path)
    model, tokenizer, base = load_clip(f"{tiny_arch}:{path}", "cpu")
    assert base.name == f"{tiny_arch}:weights.safetensors" and base.bytes == path.stat().st_size
    assert tokenizer(["a boot"]).shape == (1, 8)
    assert all(value.dtype == torch.float32 for value in model.parameters())
    torch.testing.assert_close(model.visual.conv1.weight, made.visual.conv1.weight.half().float().detach())


def test_a_damaged_file_of_weights(tiny_arch: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"half a file")
    with pytest.raises(UserError, match=f"not the weights of {tiny_arch}"):
        load_clip(f"{tiny_arch}:{path}", "cpu")
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    (tmp_path / "config.json").write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(UserError, match="no usable model"):
        load_clip_folder(tmp_path, "cpu", "icon-clip")
