"""`bench storage`: tables that fit, JSON and CSV that parse, errors of one line."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main

Say = Callable[..., str]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs the verb."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments: str) -> str:
        assert main(["storage", *arguments]) == 0
        return capsys.readouterr().out

    return run


def row(text: str, *start: str) -> list[str]:
    """The first line that begins with these words: the words after them."""
    for line in text.splitlines():
        words = line.split()
        if words[: len(start)] == list(start):
            return words[len(start) :]
    raise AssertionError(f"no line begins with {start}")


def test_imagenet(say: Say) -> None:
    text = say("--classes", "1000")
    assert row(text, "stored:fp16", "any") == ["572", "MiB", "5.6", "GiB", "27.9", "GiB", "112", "GiB"]
    assert row(text, "projector", "hello") == ["3.1", "MiB"] * 4
    assert row(text, "teacher:int8", "any") == ["11.2", "MiB"] * 4
    assert row(text, "hard", "any") == ["0", "B"] * 4
    assert row(text, "(images)", "any")[:2] == ["14.3", "MiB"]
    assert row(text, "sre2l", "files") == ["580", "MiB", "5.7", "GiB", "28.3", "GiB", "113", "GiB"]
    assert row(text, "projector", "of", "hello")[0] == "816,856"
    assert row(text, "its", "public", "base,", "counted", "apart")[0] == "38,316,896"
    assert "572.2 MiB ✓" in text and "111.8 GiB ✓" in text and "38.15 as MiB to MB ✓" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("--classes", "1000", "--ipc", "1,10,20,50,100,200,500"),
        ("--dataset", "imagenet-1k"),
        ("--dataset", "tiny-imagenet"),
        ("--dataset", "digits", "--ipc", "1,10,50", "--paper"),
    ],
)
def test_tables_fit_a_hundred_columns_and_align(say: Say, arguments: tuple[str, ...]) -> None:
    text = say(*arguments)
    assert max(map(len, text.splitlines())) <= 100
    block = text[text.index("Share of all") :].splitlines()[2:]
    heads, (*rows,) = block[0], block[1 : block.index("")]
    ends = [at + 1 for at, letter in enumerate(heads) if letter != " " and heads[at + 1 : at + 2] in ("", " ")]
    for line in rows:  # numbers end where their heads end
        assert line[ends[-1] - 1] != " " and line.rstrip() == line[: ends[-1]]


def test_labels_that_were_asked_for_bring_no_papers(say: Say) -> None:
    asked = ("--classes", "1000", "--ipc", "50", "--methods", "rded", "--labels", "stored:topk10")
    assert "papers" not in say(*asked) and "papers" in say(*asked, "--paper")


def test_small_sets_say_nothing_of_papers(say: Say) -> None:
    text = say("--dataset", "digits", "--ipc", "1,10")
    assert "papers" not in text and row(text, "stored:fp16", "any") == ["58.7", "KiB", "586", "KiB"]
    assert "papers" in say("--dataset", "digits", "--ipc", "1", "--paper")


def test_json(say: Say) -> None:
    facts = json.loads(say("--classes", "1000", "--methods", "hello", "--labels", "native,stored:fp16", "--json"))
    assert facts["request"]["classes"] == 1000
    found = {(line["labels"], line["ipc"]): line for line in facts["sizes"]}
    assert found["projector", 200]["label_bytes"] == 3_267_424
    assert found["stored:fp16 of projector", 1]["label_bytes"] == 600_000_880
    assert found["projector", 1]["public_parameters"] == 38_316_896
    printed = {one["what"]: one for one in facts["printed"]}
    fits = [one["unit"] for one in printed["labels, ImageNet-1K, IPC 1"]["readings"] if one["fits"]]
    assert fits == ["MiB"]


def test_csv(say: Say) -> None:
    lines = list(csv.DictReader(io.StringIO(say("--dataset", "imagenet-1k", "--csv"))))
    assert len(lines) == 5 * 7 * 4 + 4 + 4  # native is another row of HeLlO alone
    assert {line["protocol"] for line in lines if line["method"] == "rded"} == {"official-rded"}
    assert all(int(line["label_bytes"]) >= 0 for line in lines)


def test_out(say: Say, tmp_path: Path) -> None:
    text = say("--dataset", "digits", "--ipc", "1,10", "--out", str(tmp_path / "new"))
    assert text.count("wrote ") == 5
    page = (tmp_path / "new" / "digits.md").read_text()
    assert "`python -m bench storage --dataset digits --ipc 1,10`" in page and "| stored:fp16" in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name what to count"),
        (("--classes", "1"), "classes"),
        (("--classes", "many"), "expected a whole number from 1 on, not 'many'"),
        (("--classes", "10", "--ipc", "a"), "expected whole numbers separated by commas"),
        (("--classes", "10", "--image-size", "5000"), "image_size"),
        (("--dataset", "imagenet"), "unknown data set 'imagenet'"),
        (("--classes", "10", "--json", "--csv"), "not allowed with"),
        (("--classes", "10", "--teacher", "vgg12"), "(did you mean 'vgg11'"),
        (("--classes", "10", "--clases", "3"), "did you mean --classes"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["storage", *arguments]) == 2
    found = capsys.readouterr()
    assert found.out == "" and found.err.count("\n") == 1 and says in found.err


def test_a_folder_that_can_not_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["storage", "--dataset", "digits", "--ipc", "1", "--out", str(tmp_path / "file")]) == 2
    assert "can't be written to" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["storage", "--help"])
    text = capsys.readouterr().out
    assert text.count("python -m bench storage") >= 5 and max(map(len, text.splitlines())) <= 120


def test_as_a_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boards = tmp_path / "boards"
    assert main(["run", "--suite", "storage", "--small", "--out", str(boards), "--store", str(tmp_path / "store")]) == 0
    text = capsys.readouterr().out
    assert row(text, "stored:fp16", "any") == ["58.7", "KiB", "586", "KiB", "2.9", "MiB"] and text.count("wrote ") == 5
    page = boards / "suites" / "storage" / "digits.md"
    assert "`python -m bench storage --dataset digits --ipc 1,10,50`" in page.read_text()
    assert not (tmp_path / "store").exists()

    assert main(["run", "--suite", "storage", "--dry-run", "--ipc", "3", "--out", str(tmp_path / "none")]) == 0
    assert row(capsys.readouterr().out, "stored:fp16", "any") == ["1.7", "GiB"] and not (tmp_path / "none").exists()


def test_as_a_suite_it_takes_no_flags_of_cells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--suite", "storage", "--seeds", "3"]) == 2
    assert "no use for seeds; it takes --dataset, --ipc, --methods, --labels" in capsys.readouterr().err
    assert main(["run", "--suite", "storag"]) == 2
    assert "did you mean 'storage'?" in capsys.readouterr().err


def test_the_committed_page_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bench report --check` looks at it, too."""

    def drift() -> list[str]:
        main(["report", "--check", "--out", str(tmp_path)])
        text = capsys.readouterr().out.replace("\n", " ")
        return [line for line in text.split("drift: ") if "suites/storage" in line]

    boards = Path(__file__).parents[2] / "leaderboards"
    shutil.copytree(boards / "suites" / "storage", tmp_path / "suites" / "storage")
    few = (boards / "digits.records.jsonl").read_text().splitlines(keepends=True)[:3]
    (tmp_path / "digits.records.jsonl").write_text("".join(few))
    assert drift() == []
    (tmp_path / "suites" / "storage" / "imagenet-1k.csv").write_text("no\n")
    (line,) = drift()
    assert "imagenet-1k.csv: the formulas give another" in line
