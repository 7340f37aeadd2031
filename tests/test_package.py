"""What is installed: every file that the code reads travels with it, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("package", ["bench", "evaluators", "methods"])
def test_data_travels_with_the_package(package: str) -> None:
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    covered = {path for pattern in facts.get(package, []) for path in (ROOT / package).glob(pattern)}
    data = {path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data <= covered


@pytest.mark.campaign
def test_the_wheel_is_small_and_holds_the_packages_alone(tmp_path: Path) -> None:
    parts = ("bench", "methods", "evaluators", "leaderboards", "tests", "examples", "docs")
    for part in parts:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", "."]
    subprocess.run(command, cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.stat().st_size < 15e6
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in held} == {"bench", "methods", "evaluators", "leaderboards"}
    assert {name for name in held if name.startswith("leaderboards/")} == {"leaderboards/published.csv"}
    modules = {str(path.relative_to(ROOT)) for part in parts[:3] for path in (ROOT / part).rglob("*.py")}
    assert modules == {name for name in held if name.endswith(".py")}
