"""The packaged icon-clip and open_clip models by name, and that icon-clip's training can be interrupted."""

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
from bench.kit.clip import train_icon_clip
from bench.kit.clip.icon_augment import augment, normalise
from bench.kit.clip.icon_captions import CLIP_PROMPTS, NUMBERS, SHORT_PROMPTS, Captions, one_name, phrases
from bench.kit.clip.icon_corpus import Corpus, read_corpus
from bench.kit.clip.loading import ICON_CLIP_FOLDER, load_clip, load_clip_folder, text_embeddings
from bench.kit.clip.measure_icon_clip import zero_shot
from bench.kit.clip.train_icon_clip import CellSpec, contrastive_loss

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


def test_the_configuration_is_the_one_that_the_script_trains() -> None:
    config = json.loads((ICON_CLIP_FOLDER / "config.json").read_text())
    assert config["model_cfg"] == train_icon_clip.MODEL_CFG
    assert config["preprocess_cfg"] == train_icon_clip.PREPROCESS_CFG


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
    (tmp_path / "config.json").write_text(json.dumps({"model_cfg": train_icon_clip.MODEL_CFG}))
    with pytest.raises(UserError, match="no usable model"):
        load_clip_folder(tmp_path, "cpu", "icon-clip")


def test_numbers_are_one_caption_and_are_said_in_both_ways() -> None:
    assert {one_name(name) for name in ("5", "five", "counter 5", "numeric 5", "number five")} == {"number five"}
    assert set(phrases("number five")) >= {"number five", "number 5", "digit five", "digit 5", "five", "5"}
    assert phrases("shopping bag") == ["shopping bag"]


def test_sentences_are_tokenised_as_open_clip_does() -> None:
    names = ["shopping bag", "fire extinguisher of a very very long name that no context of sixteen holds"]
    captions = Captions(names, 16)
    drawn = captions.sample([0] * 200 + [1] * 20, np.random.default_rng(0))
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    prompts = (*CLIP_PROMPTS, *SHORT_PROMPTS)
    known = {tuple(row) for name in names for row in tokenizer([p.format(name) for p in prompts]).tolist()}
    assert {tuple(row) for row in drawn.tolist()} <= known


def test_augmented_views_come_from_their_generator_alone() -> None:
    pixels = torch.randint(0, 256, (24, 32, 32), dtype=torch.uint8)
    first, second = (augment(pixels, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (24, 3, 32, 32)
    assert first.min() >= -1 and first.max() <= 1
    assert torch.equal(normalise(pixels)[:, 0], normalise(pixels)[:, 2])


def test_the_loss_takes_icons_of_one_caption_as_one_answer() -> None:
    stream = torch.Generator().manual_seed(0)
    seen, read = torch.randn(4, 8, generator=stream), torch.randn(3, 8, generator=stream)
    target, scale = torch.tensor([0, 2, 2, 1]), torch.tensor(1.0)
    logits = scale.exp() * torch.nn.functional.normalize(seen) @ torch.nn.functional.normalize(read).T
    to_text = -logits.log_softmax(1)[torch.arange(4), target].mean()
    by_text = logits.log_softmax(0)
    to_image = -(by_text[0, 0] + by_text[3, 1] + (by_text[1, 2] + by_text[2, 2]) / 2) / 3
    torch.testing.assert_close(contrastive_loss(seen, read, target, scale), (to_text + to_image) / 2)


def test_interrupted_training_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = np.random.default_rng(0)
    pixels = torch.from_numpy(stream.integers(0, 256, (40, 32, 32), dtype=np.uint8))
    corpus = Corpus(pixels, stream.integers(0, 5, 40), ["boot", "bag", "dress", "shirt", "hat"], np.arange(40) >= 32)
    recipe = CellSpec(epochs=2, batch=16)
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    train_icon_clip.train(corpus, recipe, tmp_path / "whole")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_icon_clip, "export", killed)  # after the first epoch's checkpoint
        with pytest.raises(KeyboardInterrupt):
            train_icon_clip.train(corpus, recipe, tmp_path / "cut")
    train_icon_clip.train(corpus, recipe, tmp_path / "cut")
    whole, cut = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "cut"))
    assert whole == cut
    model, _, _ = load_clip_folder(tmp_path / "cut", "cpu", "mine")
    assert model.visual.image_size == 32


def test_a_folder_without_drawn_icons(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no drawn icons"):
        read_corpus(tmp_path)
