"""Every script in ``perf/`` starts, explains itself and runs in its smallest form."""

from __future__ import annotations

import os
import re
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
ARGUMENT = """
import argparse
parser = argparse.ArgumentParser()
for name in ("subset", "arch-name", "stud-name", "factor", "num-crop", "ipc", "mipc", "re-epochs", "re-batch-size",
             "workers", "val-ipc"):
    parser.add_argument(f"--{name}", type=lambda text: int(text) if text.isdecimal() else text)
args = parser.parse_args()
"""
MAIN = """
from pathlib import Path
import torch
from argument import args
teacher = torch.load("data/pretrain_models/cifar10_conv3.pth", weights_only=True)["model"]
train, val = (len(list(Path("data", args.subset, split).glob("*/*.png"))) for split in ("train", "val"))
assert __name__ == "__main__" and torch.ones(2).cuda().is_cpu, "it knows CUDA alone"
print("of many lines the last is shown")
print(f"{args.stud_name}: {args.re_epochs} epochs of {args.ipc} from {args.mipc} of {train} images, "
      f"{args.val_ipc} of {val}; {min(teacher)}")
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


def test_a_cell_that_the_official_code_does_not_test_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        start("official", "--rded", str(tmp_path), "--cell", "5")
    assert "--cell 5: the official code tests no student of fewer than 6 epochs" in capsys.readouterr().err


@pytest.mark.campaign
def test_a_whole_cell_is_measured_on_both_sides(tmp_path: Path) -> None:
    for name, text in (("argument", ARGUMENT), ("main", MAIN)):
        (tmp_path / f"{name}.py").write_text(text)
    command = [sys.executable, PERF / "official.py", "--rded", tmp_path, "--cell", "6", "--images", "12"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *shown, official, seconds, ratio = done.stdout.splitlines()
    assert official == "conv3: 6 epochs of 10 from 12 of 120 images, 80 of 800; classifier.bias"
    (row,) = (line.split() for line in shown if line.startswith("rded["))
    assert row[0].startswith("rded[pool=12,teacher=") and row[1:3] == ["teacher", "10"]
    assert float(row[3]) > 20, "twice of what chance has"
    times = re.fullmatch(r"ours (\S+) s, theirs (\S+) s", seconds)
    assert times and ratio.startswith("ratio official_rded_cell ")
    ours, theirs, found = float(times[1]), float(times[2]), float(ratio.split()[-1])
    assert ours > 1 and theirs > 0, "both are processes, and counted"
    assert found == pytest.approx(ours / theirs, rel=0.1)
