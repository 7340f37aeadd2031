"""The scripts that train and measure icon-clip: pairs, captions, views, loss, and both commands in tiny form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from bench.errors import UserError
from bench.kit.clip.loading import ICON_CLIP_FOLDER, load_clip_folder
from examples.icon_clip import train
from examples.icon_clip.augment import augment, normalise
from examples.icon_clip.captions import CLIP_PROMPTS, SHORT_PROMPTS, Captions, one_name, phrases
from examples.icon_clip.corpus import Corpus, read_corpus
from examples.icon_clip.pairs import touches_icons_100, training_pairs
from examples.icon_clip.train import TrainingConfig, contrastive_loss
from examples.icons_100.build import ICONS_100
from tests.examples.test_icons_100 import square, write_package

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    names = ("shopping-bag", "anchor", "hat", "boot", "number-5", "glove", "scarf", "shoe", "coat")
    drawn = {name: square(place, 4 + place) for place, name in enumerate(names, 1)}
    return write_package(
        tmp_path / "package",
        {"alpha": {"icons": drawn}, "jam": {"icons": {"boot-f": square(2, 12), "hat": square(3, 9)}}},
    )


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        ("camera", True),
        ("video-camera-off", True),
        ("cameras", True),
        ("videocamera", True),
        ("shopping-cart-plus", True),
        ("light-bulb", True),
        ("star2", True),
        ("fullmoon", True),
        ("moonface", True),
        ("start", False),
        ("card", False),
        ("shopping-bag", False),
        ("number-5", False),
    ],
)
def test_what_is_held_out(name: str, held_out: bool) -> None:
    assert touches_icons_100(name) is held_out


def test_every_class_holds_itself_out() -> None:
    for concept in ICONS_100:
        for name in (concept, f"{concept}-off", f"my-{concept}s", concept.replace("-", "") + "2"):
            assert touches_icons_100(name), name


def test_training_pairs_hold_out_concepts_and_whole_sets(package: Path) -> None:
    pairs = training_pairs(package)
    assert [caption for _, caption in pairs.train][:3] == ["shopping bag", "hat", "boot"] and len(pairs.train) == 8
    assert [icon.set for icon, _ in pairs.unseen] == ["jam", "jam"]
    assert pairs.held_out == 1  # the anchor


def test_the_configuration_is_the_one_that_the_script_trains() -> None:
    config = json.loads((ICON_CLIP_FOLDER / "config.json").read_text())
    assert config["model_cfg"] == train.MODEL_CFG
    assert config["preprocess_cfg"] == train.PREPROCESS_CFG


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
    config = TrainingConfig(epochs=2, batch=16)
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    train.train(corpus, config, tmp_path / "whole")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "export", killed)  # after the first epoch's checkpoint
        with pytest.raises(KeyboardInterrupt):
            train.train(corpus, config, tmp_path / "cut")
    train.train(corpus, config, tmp_path / "cut")
    whole, cut = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "cut"))
    assert whole == cut
    model, _, _ = load_clip_folder(tmp_path / "cut", "cpu", "mine")
    assert model.visual.image_size == 32


def test_a_folder_without_drawn_icons(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no drawn icons"):
        read_corpus(tmp_path)


@pytest.mark.campaign
def test_both_commands_run_on_a_tiny_package(package: Path, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="drawing icons needs the extra `icons`")
    out = tmp_path / "out"

    def run(script: str, *words: str | Path) -> str:
        command = [sys.executable, "-m", f"examples.icon_clip.{script}", *map(str, words)]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    words = ("--source", package, "--out", out, "--epochs", "1", "--batch", "4", "--threads", "1")
    assert "drew 10 icons; 0 would not draw, 1 held out" in run("train", *words)
    measured = run("measure", "--weights", out, "--corpus", out, "--data-root", tmp_path)
    assert "digits: zero-shot top-1 0." in measured and "icons-100: skipped" in measured
    assert "known concepts in unseen sets: zero-shot top-1" in measured and "n = 2" in measured
