"""A teacher as its authors publish it, through the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.kit.models import build
from tests.conftest import Bench

CLASSES, SIDE, ARCH = 10, 32, "convnet3-w16"


def draw(root: Path) -> tuple[Tensor, Tensor]:
    """Ten shades of a colour as a folder data set; returns the training images in [0, 1] and their labels."""
    stream, images, labels = np.random.default_rng(0), [], []
    for split, count in (("train", 8), ("val", 4)):
        for label in range(CLASSES):
            home = root / split / f"shade{label}"
            home.mkdir(parents=True)
            for index in range(count):
                pixels = stream.integers(0, 20, (SIDE, SIDE, 3)) + np.array([25 * label, 200 - 20 * label, 60])
                Image.fromarray(pixels.astype(np.uint8)).save(home / f"{index}.png")
                if split == "train":
                    images.append(torch.from_numpy(pixels).permute(2, 0, 1) / 255)
                    labels.append(label)
    return torch.stack(images).float(), torch.tensor(labels)


def as_rded(name: str) -> str:
    """``features.5.running_var`` → ``layers.norm.1.running_var``."""
    kinds = ("conv", "norm")
    return re.sub(r"^features\.(\d+)", lambda at: f"layers.{kinds[int(at[1]) % 4]}.{int(at[1]) // 4}", name)


def test_official_rded_with_the_teacher_of_its_authors(bench: Bench, tmp_path: Path) -> None:
    images, labels = draw(tmp_path / "shades")
    torch.manual_seed(0)
    model = build(ARCH, CLASSES, SIDE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    state = {as_rded(name): tensor for name, tensor in model.net.state_dict().items()}
    torch.save({"model": state}, tmp_path / "conv3.pth")
    torch.save(
        state | {name: state[name][:5] for name in ("classifier.weight", "classifier.bias")}, tmp_path / "five.pth"
    )

    words = ("run", "--dataset", "folder:shades", "--methods", "rded", "--protocol", "official", "--ipc", "1")
    words += ("--seeds", "0", "--no-baselines", "--students", ARCH, "--cluster", "inline", "--out", "boards")
    done = bench(*words, "--teacher", f"{ARCH}=conv3.pth")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"rded\[teacher=\w{8}\].* 1 +(100|[6-9]\d)\.\d", done.stdout), done.stdout
    short = bench(*words, "--teacher", f"{ARCH}=five.pth", "--dry-run")
    assert short.returncode == 2 and "has 5 classes and folder-shades has 10" in short.stderr
