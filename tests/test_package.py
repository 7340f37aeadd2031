"""What is installed: every file that the code reads travels with it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("package", ["bench", "evaluators", "methods"])
def test_data_travels_with_the_package(package: str) -> None:
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    covered = {path for pattern in facts.get(package, []) for path in (ROOT / package).glob(pattern)}
    data = {path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data <= covered
