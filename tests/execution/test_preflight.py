"""Before the first cell: every network, file and the store are tried, and one line says all that is wrong."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api import Student, architectures, catalogue
from bench.errors import UserError
from bench.execution.preflight import check, try_store
from bench.kit.models import build
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan

SIZE = catalogue.dataset("digits").image_size
RDED = {"methods": ("rded",), "ipc": (1,), "seeds": (0,), "baselines": False, "students": ("convnet3-w8",)}


def checked(store: Path, **request: Any) -> str:
    """What the line says; empty where all is well."""
    grid: Grid = plan(Request(**{**RDED, **request}))
    try:
        check(grid, {cell.id for cell in grid.cells}, store)
    except UserError as error:
        return str(error)
    return ""


class Pairs(torch.nn.Module):
    """Logits for the wrong number of classes."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3))[:, :2]


class Counting(torch.nn.Module):
    """Needs numbers, which the meta device has not."""

    def __init__(self, classes: int):
        super().__init__()
        self.scale = float(torch.ones(1).sum())
        self.head = torch.nn.Linear(3, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(pixels.mean((2, 3))) * self.scale


def test_every_student_that_can_not_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = {
        "pairs": Student("pairs", lambda classes, _: Pairs()),
        "counting": Student("counting", lambda classes, _: Counting(classes)),
    }
    known = architectures.plugin
    monkeypatch.setattr(architectures, "plugin", lambda name: added.get(name) or known(name))
    students = ("alexnet", "convnet3-w16", "timm:nosuch", "torchvision:resnet81", "pairs", "counting")
    said = checked(tmp_path, students=students)
    assert f"alexnet (can't take images of {SIZE} px" in said
    assert "timm:nosuch (unknown timm model 'nosuch'" in said
    assert "torchvision:resnet81 (unknown torchvision model 'resnet81' (did you mean 'resnet18'?)" in said
    assert "pairs (its output is no logits for 10 classes)" in said
    assert "its own is convnet3-w32" in said and said.isprintable() and len(said) < 1000
    assert "convnet3-w16" not in said and "counting" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_that_can_not_be_is_named(tmp_path: Path) -> None:
    assert "teachers that digits can't have: alexnet" in checked(tmp_path, overrides={"teacher": {"arch": "alexnet"}})


def test_teacher_files_are_held_against_their_networks(tmp_path: Path) -> None:
    for classes, name in ((10, "fits"), (5, "short")):
        net = build("convnet3-w8", classes, SIZE, (0.5,) * 3, (0.5,) * 3).net
        torch.save(net.state_dict(), tmp_path / f"{name}.pth")
    (tmp_path / "empty.pth").touch()
    overrides = {"teacher": {"arch": "convnet3-w8"}}
    assert checked(tmp_path, teacher=tmp_path / "fits.pth", overrides=overrides) == ""
    for name in ("short", "empty"):
        assert f"{name}.pth" in checked(tmp_path, teacher=tmp_path / f"{name}.pth", overrides=overrides)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert "a --store on a file system with flock" in try_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_no_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert checked(tmp_path / "file" / "store").startswith(f"--store {tmp_path}/file/store: {tmp_path}/file is not a")
    grid = plan(Request(**RDED))
    with pytest.raises(UserError, match="^--out .*/file/boards: .* is not a folder; choose one with --out$"):
        check(grid, {cell.id for cell in grid.cells}, tmp_path, tmp_path / "file" / "boards")


def test_room_for_the_labels_is_looked_for(tmp_path: Path) -> None:
    assert try_store(tmp_path / "not" / "there" / "yet") == ""
    assert "1,024 TiB of labels are planned, and" in try_store(tmp_path, planned=2**50)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_usual_networks_loads_no_torch(tmp_path: Path) -> None:
    arguments = ["run", "--methods", "rded,hello", "--ipc", "1", "--dry-run", "--store", str(tmp_path / "store")]
    code = f"import sys; from bench.cli import main; main({arguments!r}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
