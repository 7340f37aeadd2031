"""docs/official-recipes.md follows from the protocols and the facts; run as a module, this file writes it."""

from __future__ import annotations

from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

from bench.planning.protocols import all_protocols
from tests.evaluators.test_official_facts import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "official-recipes.md"
HEAD = """\
# Official recipes

`--protocol official` trains students as each paper's authors did. Every line below is tested against the running
training loop, and names the file and line of the authors' code that says so; *paper*: only the paper does;
**assumed**: neither does, and it is a setting of the protocol with that default (`--set protocol.FIELD=…`, which
then shows in the protocol's name). `official-lpqld`, `official-hald` and `official-gift` are chosen by name: they say
how students read labels, whatever made the images. `python -m tests.evaluators.test_official_page` writes this page.

What all of them report is the best tested epoch (`oracle_top1` here); the headline of the benchmark is the last.
"""
WORDS = {
    "images_updated": "Images are updated",
    "labels": "Labels", "optimizer": "Optimizer", "decay": "Weight decay", "decayed": "Tensors that decay",
    "lr": "Rate at the first, middle and last epoch", "lr_of": "Rate by student", "epochs": "Epochs",
    "batch": "Batch at IPC 1, 10 and 50", "steps": "Steps per epoch at IPC 10",
    "batch_norm": "Images per BatchNorm forward pass", "batch_norm_of": "The same by student",
    "bn_momentum": "Momentum of BatchNorm", "ema": "Decay of the averaged weights", "temperature": "Temperature",
    "temperatures": "Temperature over the epochs", "phases": "Epochs soft, hard, soft",
    "loss": "Loss of the fixed logits", "hard_loss": "Loss of them in hard epochs", "mix": "Mix", "views": "Views",
    "tests": "Tests after epochs", "test_view": "Test view", "precision": "Precision",
}  # fmt: skip


def text(value: Any) -> str:
    """Write a value of the table."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def kind(source: str) -> str:
    """Say who says so."""
    return "**assumed**" if "assumed" in source else "*paper*" if source.startswith("paper") else "code"


def page() -> str:
    """Write the page."""
    parts = [HEAD]
    for recipe in TABLE:
        protocol = all_protocols()[recipe["protocol"]]
        lines = files("evaluators.protocols").joinpath(f"{protocol.name}.toml").read_text(encoding="utf-8").splitlines()
        about = " ".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines))
        student = f", {recipe['student']}" if "student" in recipe else ""
        parts.append(f"## {protocol.name}, version {protocol.version}: {recipe['dataset']}{student}\n\n{about}\n")
        parts.append(
            f"Source: {recipe['code'].rstrip(', ')}\n\n| Fact | Value | Who says so | Where |\n|---|---|---|---|"
        )
        parts += [
            f"| {WORDS[name]} | {text(value)} | {kind(source)} | {source} |"
            for name, (value, source) in recipe["facts"].items()
        ]
        parts.append("")
    return "\n".join(parts)


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.evaluators.test_official_page writes it anew"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
