"""Every script in ``perf/`` starts, explains itself and runs in its smallest form."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import environment
from tests.processes import run_command

PERF = Path(__file__).parents[2] / "perf"
NO_SCRIPTS = {"clock"}  # a module that the others import
SCRIPTS = sorted(path.stem for path in PERF.glob("*.py") if path.stem not in NO_SCRIPTS)
# what a stand-in of an official repository must have
OFFICIAL = """
import torch
from torchvision import transforms

class MultiRandomCrop(torch.nn.Module):
    def __init__(self, num_crop, size, factor):
        super().__init__()
        self.count, self.crop = num_crop, transforms.RandomResizedCrop(size // factor, ratio=(1, 1))

    def forward(self, image):
        return torch.stack([self.crop(image) for _ in range(self.count)])

normalize = transforms.Normalize([0.5] * 3, [0.25] * 3)

def selector(n, model, images, labels, size, m=5):
    return images[:n, 0]
"""


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts import their neighbours, and patch torch for code that knows CUDA alone."""
    monkeypatch.syspath_prepend(PERF)
    monkeypatch.setattr(torch.Tensor, "cuda", torch.Tensor.cuda)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def start(script: str, *flags: str) -> None:
    sys.argv = [f"perf/{script}.py", *flags]
    runpy.run_path(str(PERF / f"{script}.py"), run_name="__main__")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_runs(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit, match="0"):
        start(script, "--help")
    assert "usage:" in capsys.readouterr().out
    flags = ["--tiny"]
    if script == "official":
        (tmp_path / "synthesize").mkdir()
        (tmp_path / "synthesize" / "utils.py").write_text(OFFICIAL)
        flags = ["--rded", str(tmp_path), "--images", "5", "--size", "16", "--rounds", "1", "--device", "cpu"]
    elif script == "gpu":
        flags += ["--device", "cpu", "--out", str(tmp_path)]
    elif script not in ("overhead", "planning", "schedule"):
        flags += ["--device", "cpu"]
    if script == "gpu":  # its command is forked from what has imported torch
        forked = lambda words, cwd, **_: run_command(words[3:], Path(cwd), environment()).check_returncode()  # noqa: E731
        monkeypatch.setattr(subprocess, "run", forked)
    start(script, *flags)
    shown = capsys.readouterr().out
    assert "ratio " in shown or script in ("overhead", "planning")
    if script == "gpu":
        (table,) = tmp_path.glob("*.md")
        assert "| parity_sre2l | 0 |" in table.read_text(), "a processor is like itself"
