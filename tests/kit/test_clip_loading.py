"""The packaged icon-clip and open_clip models, loaded by name."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from bench.errors import UserError
from bench.kit.clip.loading import ICON_CLIP_FOLDER, load_clip, load_clip_folder, text_embeddings
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


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(UserError, match=r"--clip RN50:/path/to/file"):
        load_clip("RN50:openai", "cpu")


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
