"""The command line: quick without torch, one line and exit code 2 for what the user can put right."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import VERBS, main
from tests.conftest import Bench

LOOKING = """
import json, sys
from bench.cli import main
for words in json.loads(sys.argv[1]):
    main(words)
    assert "torch" not in sys.modules, words
"""


def test_what_only_looks_does_not_import_torch(tmp_path: Path) -> None:
    ranks = Path(__file__).parents[2] / "leaderboards" / "suites" / "ranks"
    looking = [
        *(["list", what] for what in ("methods", "datasets", "students", "protocols")),
        ["run", "--methods", "hello,rded", "--ipc", "1,10,50", "--dry-run", "--store", "nowhere"],
        ["report", "--check", "--out", str(ranks)],
    ]
    command = [sys.executable, "-c", LOOKING, json.dumps(looking)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count("rded") > 3, done.stderr


HELP = """
import sys
from bench.cli import main
for verb in sys.argv[1:]:
    try:
        main([*verb.split(), "--help"])
    except SystemExit as end:
        print(end.code, "torch" in sys.modules, end="|")
"""


def test_help_has_examples_and_imports_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", HELP, "", *VERBS], capture_output=True, text=True)
    *shown, nothing = done.stdout.split("0 False|")
    assert len(shown) == 1 + len(VERBS) and nothing == "", done.stderr
    assert all("examples:" in text and "python -m bench" in text for text in shown)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--methods", "rdde"], ["unknown method 'rdde'", "did you mean 'rded'?"]),
        (["run", "--methods", "rded", "--dataset", "digit"], ["unknown data set", "did you mean 'digits'?"]),
        (["run", "--methods", "rded", "--students", "resnet-18"], ["unknown student", "did you mean 'resnet18'?"]),
        (["run", "--methods", "rded", "--ipcs", "1"], ["--ipcs", "did you mean --ipc?"]),
        (["run", "--methods", "rded", "--ipc", "0"], ["--ipc 0"]),
        (["run", "--methods", "rded", "--ipc=-1"], ["--ipc -1"]),
        (["run", "--methods", "rded", "--ipc", "1000"], ["smallest class of digits has 139"]),
        (["run", "--methods", "rded", "--ipc", "ten"], ["--ipc", "whole numbers"]),
        (["run", "--methods", "rded", "--jobs", "0"], ["--jobs", "from 1 on"]),
        (["run", "--methods", "rded", "--force", "teach"], ["teach", "did you mean teacher?"]),
        (["run", "--methods", "rded", "--set", "rded.crops"], ["METHOD.FIELD=VALUE"]),
        (["run"], ["--methods"]),
        (
            ["run", "rded,hello", "--ipc", "1"],
            ["unrecognized arguments: rded,hello (did you mean --methods rded,hello?)"],
        ),
        (
            ["run", "--methods", "rded", "--device", "cuda:99", "--dry-run", "--cluster", "local"],
            ["device 99 is needed"],
        ),
        (["rnu"], ["rnu", "did you mean run?"]),
        (["list", "method"], ["did you mean methods?"]),
        (["show", "x", "--store", "nowhere"], ["there is no store at nowhere"]),
        (["status", "--store", "nowhere"], ["there is no store at nowhere"]),
        (["check", "helo"], ["unknown method 'helo'", "did you mean 'hello'?"]),
        (["data", "imagenet"], ["unknown data set 'imagenet'"]),
        (["data", "digits", "--pack", "256"], ["is held in memory anyway"]),
        (["report", "--check", "--out", "nowhere"], ["nothing to report"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and printed.err.startswith("bench: ")
    for word in words:
        assert word in printed.err


@pytest.mark.parametrize(
    ("number", "step"), [(errno.EROFS, "choose another place"), (errno.ENOSPC, "free it or choose another place")]
)
def test_a_place_that_cannot_be_written_is_told_with_what_helps(
    number: int, step: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(_: argparse.Namespace) -> int:
        raise OSError(number, os.strerror(number), "store")

    monkeypatch.setattr("bench.cli.doctor.execute", execute)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == f"bench: store: {os.strerror(number)}; {step}\n"


def test_a_dry_run_writes_nothing(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", "--methods", "rded,hello", "--ipc", "1,10,50", "--dry-run")
    assert done.returncode == 0
    *_, total, _, estimate = done.stdout.splitlines()
    assert total.split() == ["total", "83", "0", "83"] and estimate.startswith("no estimate of time yet")
    assert list(tmp_path.iterdir()) == []


def test_missing_data_says_where_to_get_it_and_where_to_put_it(bench: Bench, tmp_path: Path) -> None:
    done = bench("run", "--methods", "rded", "--dataset", "imagenet-1k", "--ipc", "1", "--data-root", tmp_path / "data")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "image-net.org" in done.stderr and str(tmp_path / "data") in done.stderr
    assert not (tmp_path / ".bench").exists()
    described = bench("data", "imagenet-1k", "--data-root", tmp_path / "data")
    assert described.returncode == 1 and "image-net.org" in described.stdout


def tiny(colours: Path, protocol: Path) -> list[str | Path]:
    return [
        "run", "--methods", "rded", "--ipc", "1", "--seeds", "0", "--dataset", f"folder:{colours}",
        "--cluster", "inline",
        "--students", "convnet2-w8", "--protocol", protocol, "--no-baselines",
        "--set", "teacher.arch=convnet2-w8", "--set", "teacher.epochs=2",
    ]  # fmt: skip


def test_an_empty_class_folder_is_named(bench: Bench, colours: Path, tiny_protocol: Path) -> None:
    for path in (colours / "train" / "colour 1").iterdir():
        path.unlink()
    done = bench(*tiny(colours, tiny_protocol))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "colour 1" in done.stderr and "is empty" in done.stderr


def test_a_truncated_image_is_named_before_any_training(
    bench: Bench, colours: Path, tiny_protocol: Path, tmp_path: Path
) -> None:
    path = colours / "train" / "colour 2" / "5.png"
    path.write_bytes(path.read_bytes()[:-200])
    done = bench(*tiny(colours, tiny_protocol))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert str(path) in done.stderr
    assert list((tmp_path / ".bench" / "cells").iterdir()) == []


def test_a_full_disk_stops_the_run_and_loses_nothing(
    bench: Bench, colours: Path, tiny_protocol: Path, tmp_path: Path
) -> None:
    store = tmp_path / "small"
    store.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", store], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no file system of its own can be mounted here, so no disk can be filled")
    try:
        done = bench(*tiny(colours, tiny_protocol), "--store", store)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1 and "no space left" in done.stderr
        kept = [json.loads(path.read_text())["state"] for path in store.glob("cells/*/record.json")]
        assert set(kept) <= {"done"}
        subprocess.run(["mount", "-o", "remount,size=8m", store], check=True)
        again = bench(*tiny(colours, tiny_protocol), "--store", store)
        assert again.returncode == 0, again.stdout + again.stderr
    finally:
        subprocess.run(["umount", store], check=True)


def test_a_failed_cell_is_kept_shown_and_tried_again(
    bench: Bench, colours: Path, tiny_protocol: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    hook = "import bench.kit.images as images\ndef save(*_): raise ValueError('no images today')\nimages.save = save\n"
    (broken / "sitecustomize.py").write_text(hook)
    done = bench(*tiny(colours, tiny_protocol), env={"PYTHONPATH": str(broken)})
    assert done.returncode == 1
    assert "failed: rded-folder-colours-ipc1-s0" in done.stdout and "no images today" in done.stdout
    board = (tmp_path / "results" / "folder-colours.md").read_text()
    assert "fail" in board and "no images today" in board
    status = bench("status")
    assert status.returncode == 1 and "no images today" in status.stdout
    shown = bench("show", "rded-folder-colours-ipc1-s0")
    assert shown.returncode == 0 and "Traceback" in shown.stdout
    again = bench(*tiny(colours, tiny_protocol))
    assert again.returncode == 0
    board = (tmp_path / "results" / "folder-colours.md").read_text().replace(tmp_path.name, "here")
    assert "fail" not in board.split("## How to read")[0]


def test_without_a_store_boards_are_made_again_from_their_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    boards = Path(__file__).parents[2] / "leaderboards"
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    for name in ("digits.records.jsonl", "digits.predictions.safetensors"):
        shutil.copy(boards / name, "out")
    assert main(["report", "--out", "out"]) == 0
    kept = len((boards / "digits.records.jsonl").read_bytes().splitlines())
    assert f"wrote out/digits.md: 0 added, 0 changed, {kept} kept" in capsys.readouterr().out
    assert Path("out/digits.html").is_file()
    for name in ("digits.md", "digits.csv", "digits.records.jsonl"):
        assert Path("out", name).read_bytes() == (boards / name).read_bytes()
    assert main(["report", "--out", "elsewhere"]) == 2  # no records there, and no store
    assert "there is nothing to report in elsewhere" in capsys.readouterr().err


def test_the_order_of_few_classes_is_printed(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        for index, name in enumerate(("Ärmel", "apple", "Zebra")):
            (colours / split / f"colour {index}").rename(colours / split / name)
    assert main(["data", f"folder:{colours}"]) == 0
    assert "classes       3, in this order: Zebra, apple, Ärmel\n" in capsys.readouterr().out
