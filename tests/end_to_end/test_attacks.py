"""Attempts to publish a wrong number: each ends in one line, a failed cell, or a row of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.api import Dataset
from bench.cli import main
from bench.execution import datasets, stages
from bench.kit.data.dataset import Resident
from bench.kit.data.packaged import Packaged
from bench.store.sealing import read_sealed
from tests.conftest import Bench, draw_classes
from tests.packages import install

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_protocol: Path
) -> Run:
    """``bench VERB …`` in this process: exit code and all that was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("bench.report.publish.draw_figures", lambda *_, **__: [])

    def call(*words: str | Path, verb: str = "run") -> tuple[int, str]:
        usual = ["--methods", "random_real", "--labels", "hard", "--ipc", "1", "--seeds", "0", "--no-baselines"]
        usual += ["--students", "convnet2-w8", "--protocol", str(tiny_protocol), "--cluster", "inline"]
        usual += ["--store", "store", "--out", "boards"]
        code = main([verb, *(usual if verb == "run" else []), *map(str, words)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def entries(board: str = "folder-colours") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"boards/{board}.records.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_folders_that_change_places_are_computed_again(run: Run, colours: Path, split: str) -> None:
    assert run("--dataset", f"folder:{colours}")[0] == 0
    one, other = colours / split / "colour 0", colours / split / "colour 1"
    one.rename(colours / "spare")
    other.rename(one)
    (colours / "spare").rename(other)
    code, said = run("--dataset", f"folder:{colours}")
    assert code == 0 and "nothing to do" not in said
    assert len({one["data_digest"] for one in entries()}) == 2


def test_two_folders_of_one_name_are_two_data_sets(run: Run, colours: Path, tmp_path: Path) -> None:
    other = shutil.copytree(colours, tmp_path / "noisy" / "colours")
    Image.new("RGB", (16, 16), (9, 9, 9)).save(other / "val" / "colour 0" / "0.png")
    run("--dataset", f"folder:{colours}")
    run("--dataset", f"folder:{other}", "--seeds", "1")
    assert len({(one["seed"], one["data_digest"]) for one in entries()}) == 2


def test_an_image_that_changes_fails_its_cell_by_name(run: Run, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.execution import worker

    made = dict(stages.STAGES)

    def distill_and_meddle(task: stages.StageTask) -> stages.Made:
        found = made["distill"](task)
        shutil.copy(colours / "val" / "colour 0" / "1.png", colours / "val" / "colour 1" / "1.png")
        datasets.load_data.cache_clear()  # as another process would
        return found

    monkeypatch.setitem(worker.stages.STAGES, "distill", distill_and_meddle)
    code, said = run("--dataset", f"folder:{colours}")
    assert code == 1 and "colour 1/1.png has changed since the run was planned" in said


def test_a_test_split_out_of_the_training_split_is_refused_and_marked(run: Run, colours: Path) -> None:
    shutil.rmtree(colours / "val")
    shutil.copytree(colours / "train", colours / "val")
    code, said = run("--dataset", f"folder:{colours}")
    assert code == 2 and "folder-colours: 24 of 24 test images are training images" in said
    code, said = run(f"folder:{colours}", verb="data")
    assert code == 1 and "24 of 24 test images are training images, too" in said
    assert run("--dataset", f"folder:{colours}", "--allow-overlap")[0] == 0
    assert entries()[0]["overlap"] == {"training": 24, "allowed": 1}


def test_a_set_made_of_test_images_is_refused_and_marked(run: Run, tmp_path: Path) -> None:
    colours = draw_classes(tmp_path / "colours", side=32)
    for folder in sorted((colours / "val").iterdir()):
        (tmp_path / "theirs" / folder.name).mkdir(parents=True)
        Image.open(folder / "2.png").save(tmp_path / "theirs" / folder.name / "best.bmp")
    words = ("theirs", "--dataset", f"folder:{colours}", "--store", "store")
    code, said = run(*words, verb="import")
    assert code == 2 and "3 of 3 images of theirs are test images of folder-colours" in said
    assert not list((tmp_path / "store" / "imported").glob("*"))
    assert run(*words, "--allow-overlap", verb="import")[0] == 0
    ours = ("--dataset", f"folder:{colours}", "--methods", "external:theirs")
    code, said = run(*ours)
    assert code == 1 and "3 of 3 synthetic images are test images" in said
    assert run(*ours, "--allow-overlap")[0] == 0
    assert entries()[0]["overlap"] == {"images": 3, "allowed": 1}


def test_images_that_a_set_holds_twice_are_counted_and_marked(run: Run, tmp_path: Path) -> None:
    colours = draw_classes(tmp_path / "colours", side=32)
    for folder in sorted((colours / "train").iterdir()):
        (tmp_path / "theirs" / folder.name).mkdir(parents=True)
        for name in ("a.bmp", "b.bmp"):
            Image.open(folder / "2.png").save(tmp_path / "theirs" / folder.name / name)
    assert run("theirs", "--dataset", f"folder:{colours}", "--store", "store", verb="import")[0] == 0
    assert run("--dataset", f"folder:{colours}", "--methods", "external:theirs", "--ipc", "2")[0] == 0
    assert entries()[0]["overlap"] == {"repeated": 3}
    assert "3 of the synthetic images are another of their set again" in Path("boards/folder-colours.md").read_text()


def test_finished_cells_of_other_images_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--dataset", "digits")[0] == 0
    read = Packaged.load

    def load_other(*given: Any) -> Dataset:
        data = read(*given)
        pixels, labels = data.test.on("cpu")
        return replace(data, test=Resident(255 - pixels, labels))

    monkeypatch.setattr(Packaged, "load", load_other)
    for words in ((), ("--seeds", "0,1")):
        code, said = run("--dataset", "digits", *words)
        assert code == 2 and "2 cells of this grid were made of other images of digits" in said
    assert "--force distill --force evaluate" in said
    datasets.load_data.cache_clear()
    assert run("--dataset", "digits", "--force", "distill", "--force", "evaluate")[0] == 0
    datasets.load_data.cache_clear()


def test_a_cut_grid_is_named_and_an_edited_record_is_computed_again(run: Run, colours: Path, tmp_path: Path) -> None:
    run("--dataset", f"folder:{colours}")
    (first,) = (tmp_path / "store" / "grids").iterdir()
    run("--dataset", f"folder:{colours}", "--ipc", "2")
    assert len(entries()) == 2
    whole = first.read_bytes()
    first.write_bytes(whole[:300])
    for verb, words in (("report", ("--out", "boards")), ("status", ())):
        code, said = run("--store", "store", *words, verb=verb)
        assert code == 1 and f"grids/{first.name}" in said and len(entries()) == 2
    first.write_bytes(whole)
    (record,) = (tmp_path / "store" / "cells").glob("random_real-hard-*-ipc1-*/record.json")
    top1 = json.loads(read_sealed(record))["result"]["top1"]
    record.write_text(record.read_text().replace(f'"top1": {top1}', '"top1": 0.987'))
    code, said = run("--dataset", f"folder:{colours}")
    assert code == 0 and "edited or damaged; it is made again" in said
    assert json.loads(read_sealed(record))["result"]["top1"] == top1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr = 2e-3": "lr = 5e-3"}, "lr is 0.005, not 0.002"),
        ({'"common-digits-cpu"': '"Common-digits-cpu"'}, "name is 'Common-digits-cpu', not"),
        ({'"common-digits-cpu"': '"common-digits-cpu[lr=2e-3]"'}, "may hold letters"),
        ({"version = 1": "version = 9"}, ""),
        ({}, ""),
    ],
)
def test_a_protocol_does_not_pass_for_another(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    from bench.api import catalogue
    from bench.errors import UserError
    from bench.planning.protocols import choose

    text = Path("evaluators/protocols/common-digits-cpu.toml").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "own.toml").write_text(text)
    try:
        choose(str(tmp_path / "own.toml"), catalogue.dataset("digits"), "rded")
    except UserError as error:
        assert said and said in str(error)
    else:
        assert not said


MEDDLER = """
from bench.api import BaseConfig, Distiller, Images, MethodInfo

class Meddler(Distiller):
    info = MethodInfo(name="{}", title="Meddler", version=1, paper="", labels="hard")

    class Config(BaseConfig):
        pass

    def distill(self, task):
        pixels, labels = task.data.train.on("cpu")
        at = [int((labels == label).nonzero()[0]) for label in range(3)]
        images = Images(pixels[at].clone(), labels[at].clone())
        {}
        return images
"""


def test_a_method_that_writes_into_the_data_fails_and_spoils_no_other_cell(
    bench: Bench, tmp_path: Path, tiny_protocol: Path
) -> None:
    colours = draw_classes(tmp_path / "colours", side=32)
    lines = {
        "one": "task.data.test.labels[:] = 0",
        "two": "pixels.fill_(7)",
        "three": "task.data.test.on('cpu')[0].fill_(7)",
    }
    place = install(tmp_path / "theirs", "meddlers",
                    {f"{name}.py": MEDDLER.format(name, line) for name, line in lines.items()},
                    {"bench.methods": {name: f"{name}:Meddler" for name in lines}})  # fmt: skip
    words = ["run", "--methods", ",".join(lines), "--ipc", "1", "--seeds", "0", "--students", "convnet2-w8",
             "--cluster", "inline", "--protocol", "tiny.toml", "--dataset", f"folder:{colours}",
             "--store", "s", "--out", "b"]  # fmt: skip
    done = bench(*words, env={"PYTHONPATH": str(place)})
    assert done.returncode == 1
    for name in lines:
        assert f"{name} wrote into the real images or labels" in done.stdout + done.stderr
    known = {path.name: read_sealed(path / "record.json") for path in (tmp_path / "s" / "cells").iterdir()}
    meddled = bench(*words[:2], "random_real", *words[3:-4], "--store", "s2", "--out", "b2")
    assert meddled.returncode == 0
    for name in [one for one in known if "hard" in one]:
        clean = json.loads(read_sealed(tmp_path / "s2" / "cells" / name / "record.json"))
        assert json.loads(known[name])["result"] == clean["result"]


STUDENT = """
from bench.api import Student

def build(classes, size):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, {0}), nn.ReLU(), nn.Linear({0}, classes))

MINE = Student(title="mine", build=build)
"""


def test_students_of_other_code_are_other_rows(
    bench: Bench, colours: Path, tmp_path: Path, tiny_protocol: Path
) -> None:
    for seed, width in enumerate((8, 2)):
        text = STUDENT.format(width)
        place = install(tmp_path / f"v{seed}", "mine", {"mine.py": text}, {"bench.students": {"mine": "mine:MINE"}})
        done = bench("run", "--methods", "random_real", "--labels", "hard", "--ipc", "1", "--seeds", str(seed),
                     "--no-baselines", "--students", "mine", "--cluster", "inline", "--protocol", "tiny.toml",
                     "--dataset", f"folder:{colours}", "--store", "s", "--out", "b",
                     env={"PYTHONPATH": str(place)})  # fmt: skip
        assert done.returncode == 0, done.stderr
    lines = (tmp_path / "b" / "folder-colours.csv").read_text().splitlines()[1:]
    assert len(lines) == 2 and all("code of mine" in line for line in lines)


MEANS = Path(__file__).parents[2] / "examples/plugin/example_methods/mean_images.py"
UNSAVED = MEANS.read_text().replace('(folder / "source.json").write_text', "str")
POINTS = {"bench.methods": {"mean-images": "example_methods.mean_images:MeanImages"}}


def test_a_label_model_that_cannot_be_read_back_fails_and_its_code_is_told_as_changed(
    bench: Bench, colours: Path, tmp_path: Path, tiny_protocol: Path
) -> None:
    def run(text: str, *more: str) -> tuple[int, str]:
        shutil.rmtree(tmp_path / "site", ignore_errors=True)
        place = install(tmp_path / "site", "theirs", {"example_methods/mean_images.py": text}, POINTS)
        done = bench("run", "--methods", "mean-images", "--ipc", "1", "--seeds", "0", "--no-baselines",
                     "--students", "convnet2-w8", "--cluster", "inline", "--protocol", "tiny.toml",
                     "--dataset", f"folder:{colours}", "--store", "s", "--out", "b", *more,
                     env={"PYTHONPATH": str(place)})  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    code, said = run(UNSAVED)
    assert code == 1 and "1 failed, 1 depend on them" in said
    assert "no source.json in label-mean-images" in said and '{"kind": "mean-images"}' in said
    changed = "code of mean-images changed since 1 cell, which stay as they are: raise its version, or --force distill"
    code, said = run(MEANS.read_text(), "--dry-run")
    assert code == 0 and changed in said
    code, said = run(UNSAVED + "pass\n")
    assert code == 1 and said.count(changed) == 2, "beside the failure, too"
    assert run(MEANS.read_text())[0] == 0
