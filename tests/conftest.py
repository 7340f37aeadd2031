"""What tests share: two speeds, a tiny folder of images, a tiny protocol, and the command line in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.execution.environment import choose_kernels
from tests.precision import double_precision
from tests.processes import run_command

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the tests run side by side
choose_kernels(portable=True)  # before torch, too: what is computed here is what processes of their own compute

FUZZ = int(os.environ.get("DISTILL_BENCH_FUZZ", "200"))  # hostile inputs tried of each kind

TINY_PROTOCOL = """
name = "tiny"
version = 1
track = "common"
title = "two epochs, for tests"
epochs = 4
batch_size = 4
full_data = { epochs = 2, batch_size = 8 }
lr = 5e-3
temperature = 4.0
min_scale = 0.5
mix = "cutmix"
tests = 2
"""

Bench = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--campaign``, which runs everything, and with ``-m campaign`` the slow tests alone."""
    parser.addoption("--campaign", action="store_true", help="run the slow tests too: Slurm, Chromium, kills, suites")


@pytest.hookimpl(tryfirst=True)  # before -m is heeded
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out unless they are asked for: those that are marked, and those on a real Slurm."""
    for item in items:
        if "_running_cluster" in item.fixturenames:
            item.add_marker("campaign")
    if not config.getoption("--campaign"):
        slow = [item for item in items if item.get_closest_marker("campaign")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture
def in_double() -> Iterator[None]:
    """Whatever the test creates is in double precision; see :mod:`tests.precision`."""
    with double_precision():
        yield


def draw_classes(root: Path, classes: int = 3, train: int = 8, test: int = 4, side: int = 16) -> Path:
    """A folder data set whose classes differ by colour: train/ and val/, PNG files."""
    stream = np.random.default_rng(0)
    for split, count in (("train", train), ("val", test)):
        for label in range(classes):
            home = root / split / f"colour {label}"
            home.mkdir(parents=True)
            for index in range(count):
                pixels = stream.integers(0, 90, (side, side, 3), dtype=np.uint8)
                pixels[..., label % 3] += 120
                Image.fromarray(pixels).save(home / f"{index}.png")
    return root


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Three classes of 16-px images, 8 to train and 4 to test on."""
    return draw_classes(tmp_path / "colours")


@pytest.fixture
def tiny_protocol(tmp_path: Path) -> Path:
    """A protocol of four epochs."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_PROTOCOL)
    return path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """The command line, run in ``tmp_path`` with a store there; returns the finished process."""

    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, figures: bool = False
    ) -> subprocess.CompletedProcess[str]:
        return run_command(list(map(str, arguments)), tmp_path, environment(env), figures)

    return run


def command(arguments: Sequence[str | Path]) -> list[str]:
    """``python -m bench …``."""
    return [sys.executable, "-m", "bench", *map(str, arguments)]


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a command under test: no cluster, a wide screen, nothing of the user's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DISTILL_BENCH", "SLURM", "SBATCH"))}
    return {**kept, "COLUMNS": "200", "NO_COLOR": "1", **(extra or {})}
