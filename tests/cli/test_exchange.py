"""``bench export`` and ``bench import``: out, in, and the same student to the last bit; what is odd is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import DatasetCard
from PIL import Image

from bench.cli import main
from bench.kit.labels.stored import StoredLabels
from bench.kit.labels.storing import coordinates
from bench.kit.views import AugmentationStream
from tests.cli.conftest import Run

STUDENT = "rded-stored-fp16-digits-ipc2-convnet2-w8-s0"
HARD = "rded-hard-digits-ipc2-convnet2-w8-s0"


@pytest.fixture(scope="session")
def released(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of an evaluate cell, with its stored labels."""
    target = tmp_path_factory.mktemp("released") / "theirs"
    done = finished.bench("export", STUDENT, "--to", target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"huggingface-cli upload USER/theirs {target} . --repo-type dataset" in done.stdout
    return target


@pytest.fixture
def exported(released: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(released, tmp_path / "theirs"))


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line with which ``bench import`` refuses a folder; nothing of it may stay."""

    def take(folder: Path, *more: str) -> str:
        store = tmp_path / "refusing"
        assert main(["import", str(folder), "--store", str(store), *more]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert not list((store / "imported").glob("*")) if (store / "imported").exists() else True
        return printed

    return take


@pytest.fixture
def plain(exported: Path) -> Path:
    """The images alone, in folders by number."""
    (exported / "manifest.json").unlink()
    shutil.rmtree(exported / "labels")
    for index, path in enumerate(sorted((exported / "train").iterdir())):
        path.rename(exported / str(index))
    (exported / "train").rmdir()
    return exported


def test_an_export_holds_what_its_manifest_says(finished: Run, exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    present = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert present == {*manifest["files"], "manifest.json"}
    for name, facts in manifest["files"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == facts["sha256"]
    images = finished.record("rded-digits-ipc2-s0")
    assert sorted(facts.sha256 for facts in images.files.values()) == sorted(
        facts["sha256"] for name, facts in manifest["files"].items() if name.startswith("train/")
    )
    assert [one["folder"] for one in manifest["classes"]][:2] == ["00000-number-zero", "00001-number-one"]
    assert manifest["labels"]["kind"] == "stored" and manifest["labels"]["student_seed"] == 0


def test_the_card_says_what_it_is_and_how_good(finished: Run, exported: Path, tmp_path: Path) -> None:
    card = (exported / "README.md").read_text()
    data = DatasetCard(card).data
    assert data.pretty_name == "scikit-learn's digits distilled by RDED, 2 per class"
    assert data.license == "unknown" and data.size_categories == ["n<1K"] and "arxiv:2312.03526" in data.tags
    assert data.configs == [{"config_name": "default", "data_files": [{"split": "train", "path": "train/**"}]}]
    top1 = finished.record(STUDENT).result["top1"]
    (line,) = [one for one in card.splitlines() if "stored:fp16" in one]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["tiny v1", "convnet2-w8", "stored:fp16", f"{100 * top1:.1f}", "1"]
    assert "eprint = {2312.03526}" in card and str(finished.place) not in card
    assert main(["export", STUDENT, "--to", str(tmp_path / "again"), "--store", str(finished.store.root)]) == 0
    for path in ("README.md", "manifest.json"):
        assert (tmp_path / "again" / path).read_bytes() == (exported / path).read_bytes()


def test_there_and_back_is_the_same_student_to_the_last_bit(
    finished: Run, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "theirs-store"
    assert main(["import", str(exported), "--store", str(store)]) == 0
    assert "--protocol tiny.toml --seeds 0 --student-seeds 0 --labels native,teacher,hard" in capsys.readouterr().out
    done = finished.grid(
        "external:theirs", "--seeds", "0", "--labels", "native,hard", "--no-baselines", "--store", store, "--out",
        tmp_path / "boards",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    pairs = ((STUDENT, "external-theirs-own-stored-digits"), (HARD, "external-theirs-hard-digits"))
    for mine, theirs in pairs:
        assert finished.record(mine).result == finished.record(theirs, store).result
    assert "external:theirs" in (tmp_path / "boards" / "digits.md").read_text()
    image = next((store / "imported" / "theirs" / "images").rglob("*.jpg"))
    assert image.stat().st_nlink == 2  # the cell's images are the imported files, not copies
    assert main(["import", str(exported), "--store", str(store)]) == 0
    assert "is there already" in capsys.readouterr().out
    wrong = finished.grid("external:theirs", "--seeds", "1", "--labels", "native", "--store", store, "--dry-run")
    assert wrong.returncode == 2 and "stored for other views than tiny shows to student seed 1" in wrong.stderr
    baselines = finished.grid("external:theirs", "--seeds", "0", "--labels", "native", "--store", store, "--dry-run")
    # random images can't have these labels, and don't ask for them: hard ones and full data come alone
    assert ["evaluate", "4", "2", "2"] in [line.split() for line in baselines.stdout.splitlines()]


def test_a_folder_by_numbers_or_names_is_as_good(finished: Run, plain: Path, tmp_path: Path) -> None:
    store = tmp_path / "theirs-store"
    digits = ["--dataset", "digits", "--store", str(store)]
    assert main(["import", str(plain), *digits]) == 0
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    named = tmp_path / "named"
    for index, word in enumerate(words):
        shutil.copytree(plain / str(index), named / "images" / f"Number_{word}")
    assert main(["import", str(named), *digits]) == 0
    facts = [json.loads((store / "imported" / name / "set.json").read_text()) for name in ("theirs", "named")]
    assert facts[0]["images"] == facts[1]["images"]
    done = finished.grid(
        "external:named", "--seeds", "0", "--labels", "hard", "--no-baselines", "--store", store, "--out",
        tmp_path / "boards",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert finished.record("external-named-hard", store).result == finished.record(HARD).result


def test_published_label_files_train_the_student_they_were_made_for(
    finished: Run, plain: Path, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The labels of our own set, written as SRe2L writes them, with the crops in place of our schedule."""
    ours = StoredLabels.load(released / "labels", torch.device("cpu"))
    schedule, stream = ours.schedule(), AugmentationStream(ours.schedule().plan, ours.schedule().images)
    pixels = torch.zeros(schedule.images, 3, schedule.plan.size, schedule.plan.size, dtype=torch.uint8)
    for epoch in range(schedule.epochs):
        (folder := tmp_path / "fkd" / f"epoch_{epoch}").mkdir(parents=True)
        for batch in range(schedule.batches):
            size, side = schedule.batch_size, schedule.plan.size
            views = stream.again(pixels, torch.zeros(len(pixels), dtype=torch.int64), epoch, batch, size)
            held = coordinates(stream, epoch, batch, size, side, side)
            content = [held["coords"], held["flip"][:, 0], held["partner"][:, 0], held["weight"].item()]
            content += [held["box"][0].tolist(), ours.soft_labels(views, 0).half()]
            torch.save(content, folder / f"batch_{batch}.tar")
    order = tmp_path / "order.json"
    order.write_text(json.dumps([stream.order(epoch).tolist() for epoch in range(schedule.epochs)]))
    store = tmp_path / "theirs-store"
    flags = ["--dataset", "digits", "--store", str(store), "--name", "published", "--labels", str(tmp_path / "fkd")]
    assert main(["import", str(plain), *flags]) == 2
    assert "add --label-order FILE" in capsys.readouterr().err
    assert main(["import", str(plain), *flags, "--label-order", str(order)]) == 0
    said = capsys.readouterr().out
    assert "--set protocol.batch_size=4" in said and "the likeliest class of " in said
    grid = ["external:published", "--labels", "native", "--no-baselines", "--store", store]
    wrong = finished.grid(*grid, "--set", "protocol.batch_size=5", "--dry-run")
    assert wrong.returncode == 2 and "batch_size 4, expected 5" in wrong.stderr
    done = finished.grid(*grid, "--seeds", "0", "--out", tmp_path / "boards")
    assert done.returncode == 0, done.stdout + done.stderr
    mine, theirs = finished.record(STUDENT).result, finished.record("external-published-own-published", store).result
    assert [top1 for _, top1 in theirs["curve"]] == pytest.approx([top1 for _, top1 in mine["curve"]], abs=0.01)


def test_changed_files_are_found_before_anything_is_taken(exported: Path, refused: Callable[..., str]) -> None:
    image = next(exported.glob("train/00003*/*.jpg"))
    good = image.read_bytes()
    image.write_bytes(good[:-1] + b"\0")
    assert f"{image} is not what the manifest says" in refused(exported)
    image.unlink()
    assert f"{image} is missing" in refused(exported)
    image.write_bytes(good)
    manifest = json.loads((exported / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"bytes": 0, "sha256": ""}
    (exported / "manifest.json").write_text(json.dumps(manifest))
    assert "which is outside" in refused(exported)
    del manifest["files"]["../secret"]
    manifest["data"]["order_hash"] = "0" * 64
    (exported / "manifest.json").write_text(json.dumps(manifest))
    assert "another class order" in refused(exported)
    (exported / "manifest.json").write_text('{"format": "distill-bench set"}')
    assert "expected a manifest as bench export writes it" in refused(exported)


def test_labels_are_checked_before_anything_is_taken(exported: Path, refused: Callable[..., str]) -> None:
    """Of a set whose manifest agrees with its files: labels that were made for other images, or can't be read."""

    def changed(name: str, content: bytes) -> None:
        (exported / name).write_bytes(content)
        manifest = json.loads((exported / "manifest.json").read_text())
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (exported / "manifest.json").write_text(json.dumps(manifest))

    source = (exported / "labels" / "source.json").read_bytes()
    facts = json.loads(source)
    changed("labels/source.json", json.dumps({**facts, "images": "0" * len(facts["images"])}).encode())
    assert "image" in refused(exported)
    changed("labels/source.json", b"{}")
    assert "can't be used" in refused(exported)
    changed("labels/source.json", json.dumps({**facts, "classes": 7}).encode())
    assert "label" in refused(exported)
    changed("labels/source.json", source)
    shard = next((exported / "labels").glob("*.safetensors"))
    whole = shard.read_bytes()
    changed(f"labels/{shard.name}", whole[:-4] + b"\xff\xff\xff\xff")  # NaN in any floating format
    assert "not finite" in refused(exported)
    changed(f"labels/{shard.name}", whole[:-100])
    assert "labels" in refused(exported)
    changed(f"labels/{shard.name}", whole)
    (exported / "labels" / "more.json").write_text("{}")
    assert "is not in the manifest" in refused(exported)


def test_odd_folders_are_named(plain: Path, refused: Callable[..., str]) -> None:
    digits = ("--dataset", "digits")
    assert "doesn't say which data set" in refused(plain)
    assert "did you mean 'digits'?" in refused(plain, "--dataset", "digit")
    assert "can't be called" in refused(plain, *digits, "--name", "../x")
    one = next((plain / "4").iterdir())
    extra = plain / "4" / "zzz.png"
    Image.new("RGB", (16, 16)).save(extra)
    assert "class '0' has 2 images and '4' has 3" in refused(plain, *digits)
    one.unlink()
    Image.new("RGB", (15, 16)).save(extra)
    assert f"{extra} is 15 x 16 px" in refused(plain, *digits)
    extra.write_bytes(extra.read_bytes()[:50])
    assert f"{extra}: not a readable image" in refused(plain, *digits)
    (plain / "9").rename(plain / "nein")
    assert "unknown class in" in refused(plain, *digits) and "'nein'" in refused(plain, *digits)
    shutil.rmtree(plain / "nein")
    assert "has 9 of the 10 classes of digits: there is no folder for 9" in refused(plain, *digits)


def test_a_wrong_class_name_gets_the_nearest(plain: Path, refused: Callable[..., str]) -> None:
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nnie"]
    for index, word in enumerate(words):
        (plain / str(index)).rename(plain / f"number {word}")
    assert "'number nnie' (did you mean 'number nine'?)" in refused(plain, "--dataset", "digits")


def test_an_export_never_overwrites_and_leaves_nothing_half_done(
    finished: Run, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(finished.store.root)]
    before = sorted(tmp_path.iterdir())
    for start, target, words in (
        (STUDENT, exported, "is there already and not empty"),
        ("teacher-digits", tmp_path / "x", "is a cell of stage teacher"),
        (STUDENT, exported / "README.md" / "x", "can't be written"),
        ("rded-digits", tmp_path / "x", "is the beginning of"),
    ):
        assert main(["export", start, "--to", str(target), *store]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1 and words in printed
    (tmp_path / "empty").mkdir()
    assert main(["export", STUDENT, "--to", str(tmp_path / "empty"), *store]) == 0
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "empty"])


def test_another_set_of_the_same_name_is_refused(
    finished: Run, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "s"), "--name", "theirs"]
    assert main(["import", str(exported), *store]) == 0
    assert (
        main(["export", "rded-digits-ipc2-s1", "--to", str(tmp_path / "o"), "--store", str(finished.store.root)]) == 0
    )
    kept = (tmp_path / "s" / "imported" / "theirs" / "set.json").read_bytes()
    capsys.readouterr()
    assert main(["import", str(tmp_path / "o"), *store]) == 2
    assert "is another set already; choose another name with --name" in capsys.readouterr().err
    assert (tmp_path / "s" / "imported" / "theirs" / "set.json").read_bytes() == kept
    assert [path.name for path in (tmp_path / "s" / "imported").iterdir()] == ["theirs"]
