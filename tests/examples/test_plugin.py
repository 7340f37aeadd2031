"""The template package, which the site shows: installed outside this one, all of it passes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.api import architectures, catalogue, registry
from bench.api.stored.codec import FORMATS, LabelCodec
from bench.api.stored.columns import label_columns
from bench.conformance import CodecConformance, EvaluatorConformance, MethodConformance, StudentConformance, run
from bench.errors import UserError
from bench.kit.data import load
from bench.planning.protocols import all_protocols
from tests.conftest import Bench, draw_classes
from tests.packages import install

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin"


def put(folder: Path) -> Path:
    """Install the template into a folder."""
    facts = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    found = [path for path in PLUGIN.rglob("*") if path.suffix in (".py", ".toml") and path.parent != PLUGIN]
    files = {str(path.relative_to(PLUGIN)): path.read_text() for path in found}
    return install(folder, facts["name"], files, facts["entry-points"], facts["version"])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The template is installed in this process."""
    monkeypatch.syspath_prepend(put(tmp_path / "outside"))
    groups = (
        *(registry.METHODS, registry.EVALUATORS, registry.PROTOCOLS),
        *(architectures.STUDENTS, catalogue.PLUGINS, FORMATS),
    )
    kept = [vars(group).copy() for group in groups]
    for group in groups:
        vars(group).pop("_points", None)
        vars(group).pop("usable", None)
    all_protocols.cache_clear()
    yield
    all_protocols.cache_clear()
    for group, facts in zip(groups, kept, strict=True):
        vars(group).clear()
        vars(group).update(facts)


def test_a_real_method_fits_on_a_page() -> None:
    assert len((PLUGIN / "example_methods" / "dm.py").read_text().splitlines()) <= 40


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", ["dm[iterations=3]", "herding", "mean-images"])
def test_its_methods_pass(method: str) -> None:
    suite = type("Suite", (MethodConformance,), {"method": method})
    assert [outcome.reason for outcome in run(suite) if outcome.passed is False] == []


@pytest.mark.usefixtures("installed")
def test_its_student_passes() -> None:
    suite = type("Suite", (StudentConformance,), {"student": "tiny-mlp"})
    assert [outcome.reason for outcome in run(suite) if outcome.passed is False] == []


@pytest.mark.usefixtures("installed")
def test_its_codec_passes_and_goes_with_the_others() -> None:
    suite = type("Suite", (CodecConformance,), {"codec": FORMATS.get("fixed8"), "tolerance": 4.0})
    assert [outcome.reason for outcome in run(suite) if outcome.passed is False] == []
    assert str(LabelCodec.parse("topk3+fixed8+prune4")) == "prune4+topk3+fixed8"
    assert [column.row_bytes for column in label_columns(LabelCodec.parse("topk3+fixed8"), 10)] == [4, 3]


@pytest.mark.usefixtures("installed")
def test_its_evaluator_passes() -> None:
    suite = type("Suite", (EvaluatorConformance,), {"evaluator": "nearest-mean"})
    assert [outcome.reason for outcome in run(suite) if outcome.passed is False] == []


@pytest.mark.usefixtures("installed")
def test_held_out_images_are_training_images() -> None:
    whole, part = (load(catalogue.dataset(name)) for name in ("digits", "held-out:digits"))
    both = torch.cat([part.train.labels, part.test.labels])
    assert both.bincount().tolist() == whole.train.labels.bincount().tolist()
    assert part.test.labels.bincount().tolist() == [count // 5 for count in whole.train.labels.bincount().tolist()]
    images = [{split.image(row).numpy().tobytes() for row in range(len(split))} for split in (part.train, part.test)]
    assert images[0] | images[1] == {whole.train.image(row).numpy().tobytes() for row in range(len(whole.train))}
    assert not images[0] & images[1]


@pytest.mark.usefixtures("installed")
def test_a_folder_is_held_out_by_files_and_a_class_too_small_for_it_is_named(tmp_path: Path) -> None:
    name = f"held-out:folder:{draw_classes(tmp_path / 'few', train=7)}"
    info = catalogue.dataset(name)
    part = load(info, catalogue.root_of(name))
    assert (info.train_images, info.test_images, info.smallest_class) == (18, 3, 6)
    assert (len(part.train), len(part.test), part.digest) == (18, 3, info.fingerprint)
    next((tmp_path / "few" / "train").glob("*/*")).unlink()
    with pytest.raises(UserError, match="not those that were planned with"):
        load(info, catalogue.root_of(name))
    with pytest.raises(UserError, match="has 4 training images; expected 5 or more, of which the last fifth is held"):
        catalogue.dataset(f"held-out:folder:{draw_classes(tmp_path / 'fewer', train=4)}")


def test_all_of_it_in_a_run(bench: Bench, tmp_path: Path) -> None:
    put(tmp_path / "outside")
    words = ["--methods", "herding", "--ipc", "1", "--seeds", "0", "--dataset", "spots", "--no-baselines",
             "--students", "tiny-mlp", "--labels", "native,stored:prune2+fixed8,hard",
             "--protocol", "example-short", "--cluster", "inline", "--store", "s", "--out", "b"]  # fmt: skip
    done = bench("run", *words, env={"PYTHONPATH": "outside"})
    assert done.returncode == 0, done.stderr
    board = (tmp_path / "b" / "spots.md").read_text()
    assert "tiny-mlp" in board and "fixed8" in board
