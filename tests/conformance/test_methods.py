"""Every installed method keeps the contract; a method that doesn't is told how."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from bench.api import CellSpec, Distiller, GridPoint, Images, MethodInfo, Task, registry
from bench.conformance.checks import check


# what is imported depends on the set, see tests/methods/test_external.py
@pytest.mark.parametrize("name", [name for name in registry.method_names() if name != "external"])
def test_installed_methods_keep_the_contract(name: str) -> None:
    results = list(check(name))
    assert len(results) == 13
    assert [f"{result.name}: {result.detail}" for result in results if not result.passed] == []


class Careless(Distiller):
    """Images that are one short, of another type each time, and a recipe that forgets the seed."""

    info: ClassVar[MethodInfo] = MethodInfo(name="careless", title="Careless", version=1, paper="", labels="hard")

    def teachers(self, setting: GridPoint) -> tuple[()]:
        return ()

    def image_recipe(self, setting: GridPoint) -> CellSpec:
        return CellSpec("careless", 1, {"ipc": setting.ipc})

    def label_recipe(self, setting: GridPoint) -> None:
        return None

    def distill(self, task: Task) -> Images:
        import torch

        task.progress(5, 3)
        count = task.dataset.classes * task.ipc - 1
        return Images(torch.rand(count, 3, 16, 16), torch.zeros(count, dtype=torch.int64))


def test_a_careless_method_is_told_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    original = registry.method

    def method(name: str) -> Any:
        return Careless if name == "careless" else original(name)

    monkeypatch.setattr(registry, "method", method)
    failed = {result.name: result.detail for result in check("careless") if not result.passed}
    assert "put the seed into its fields" in failed["recipes are plain values and tell seeds apart"]
    assert "not uint8 (8, 3, 16, 16)" in failed["images: uint8, the data set's size, class-major"]
    assert "derive every random draw from task.seed" in failed["images: the same seed makes the same bits"]
    assert "expected 0 <= done <= total" in failed["progress counts up to its total"]
