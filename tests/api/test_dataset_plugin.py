"""A data set of an outside package: listed, described and run like those of this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Bench

PLUGIN = """
from bench.api import DatasetInfo, TeacherSpec
from bench.api.catalogue import DatasetPlugin


class Spots(DatasetPlugin):
    def info(self):
        return DatasetInfo(
            name="spots", title="Spots", classes=3, image_size=16, smallest_class=8, train_images=24, test_images=12,
            mean=(0.5,) * 3, std=(0.25,) * 3, clip="icon-clip", student="convnet2-w8",
            teacher=TeacherSpec(arch="convnet2-w8", image_size=16, epochs=2, batch_size=8, checkpoints=2),
        )

    def load(self, info, root):
        import torch
        from bench.api import Dataset
        from bench.kit.data.dataset import Resident

        def split(each):
            labels = torch.arange(3).repeat_interleave(each)
            pixels = torch.randint(0, 99, (3 * each, 3, 16, 16), generator=torch.Generator().manual_seed(each))
            pixels[torch.arange(3 * each), labels] += 100
            return Resident(pixels.to(torch.uint8), labels)

        ids = ("red", "green", "blue")
        return Dataset(info, ids, ids, split(8), split(4))


class Grids(DatasetPlugin):
    argument, title = "SIDE", "Grids of a side"

    def info(self):
        return Spots("spots").info().model_copy(update={"name": "grids-" + self.name.partition(":")[2]})

    def load(self, info, root):
        return Spots("spots").load(info, root)
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with two data sets, installed by its folder alone."""
    home = tmp_path / "outside"
    facts = home / "spots-1.0.dist-info"
    facts.mkdir(parents=True)
    (home / "spots_data.py").write_text(PLUGIN)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: spots\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[bench.datasets]\nspots = spots_data:Spots\ngrids = spots_data:Grids\n")
    monkeypatch.setenv("PYTHONPATH", str(home))
    return tmp_path


def test_it_is_listed_and_described(outside: Path, bench: Bench) -> None:
    listed = bench("list", "datasets").stdout
    assert "spots" in listed and "grids:SIDE" in listed and "Grids of a side" in listed
    said = bench("data", "spots").stdout
    assert "24 train, 12 test; 8 in the smallest class" in said and "generated when it is read" in said
    assert "grids-9: Spots" in bench("data", "grids:9").stdout


def test_it_is_run(outside: Path, bench: Bench, tiny_protocol: Path) -> None:
    bench(
        "run", "--methods", "rded", "--ipc", "1", "--seeds", "0", "--dataset", "spots", "--protocol", tiny_protocol,
        "--store", outside / "store", "--out", outside / "boards", "--cluster", "inline", "--no-baselines",
    )  # fmt: skip
    records = [json.loads(path.read_text()) for path in (outside / "store" / "cells").glob("*/record.json")]
    assert {record["cell"]["stage"] for record in records} >= {"teacher", "distill", "label", "evaluate"}
    assert all(record["state"] == "done" for record in records)
    assert "rded" in next((outside / "boards").glob("spots.md")).read_text().lower()
