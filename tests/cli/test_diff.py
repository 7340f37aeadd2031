"""``bench diff``: the reason comes first, and it is the right one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.exchange import reason as reasons
from bench.exchange.comparison import RunView, compare, flat
from bench.store.entries import Entry
from tests.cli.conftest import Run

STUDENT = "rded-stored-fp16-digits-ipc2-convnet2-w8-s0"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What ``bench diff`` prints."""

    def run(*arguments: str | Path) -> str:
        assert main(["diff", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def other(finished: Run, tmp_path: Path) -> Path:
    """A copy of the finished store, to change."""
    return Path(shutil.copytree(finished.store.root, tmp_path / "other"))


def entry(cell: str = "a", **facts: Any) -> Entry:
    usual: dict[str, Any] = {
        "cell": cell, "dataset": "digits", "title": "Digits", "method": "rded", "labels": "teacher", "ipc": 10,
        "student": "convnet3", "protocol": "common", "protocol_version": 1, "seed": 0, "state": "done", "top1": 0.5,
    }  # fmt: skip
    return Entry(**{**usual, **facts})


def reason(a: Entry, b: Entry) -> str:
    one, other = RunView.of_entry(a), RunView.of_entry(b)
    return reasons.reason(one, other, *compare(one, other))


def test_a_cell_is_the_same_as_itself(finished: Run, say: Callable[..., str]) -> None:
    said = say(STUDENT, STUDENT, "--store", finished.store.root).splitlines()
    assert said[0] == "the same cell with the same result, to the last bit"
    assert len(said) == 4


def test_another_seed_is_named_and_followed_to_its_roots(finished: Run, say: Callable[..., str]) -> None:
    said = say(STUDENT, STUDENT.replace("s0", "s1"), "--store", finished.store.root)
    assert said.splitlines()[0] == "the seed of distillation and student differs (0, 1)"
    assert "images › prepared: prepare-rded-digits-s0" in said and "labels: stored-fp16-rded" in said
    top1 = [finished.record(STUDENT.replace("s0", f"s{seed}")).result["top1"] for seed in (0, 1)]
    (line,) = [line for line in said.splitlines() if line.startswith("top1")]
    assert line.split() == ["top1", *map(str, top1), f"{top1[1] - top1[0]:+.6g}"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"torch": "9.9"}, "computed with other versions of torch"),
        ({"threads": "7"}, "computed with another number of threads (1, 7)"),
        ({"cpu": "an abacus"}, "computed on another CPU"),
        ({"commit": "0123456789ab"}, "computed by other code (commit"),
        ({}, "something is not deterministic"),
        ({"torch": "9.9", "numpy": "9"}, "(2"),
    ],
)
def test_the_same_cell_elsewhere(
    finished: Run, other: Path, say: Callable[..., str], environment: dict[str, str], words: str
) -> None:
    finished.rewritten(other, STUDENT, environment=environment, top1=0.99)
    first = say(STUDENT, "--store", finished.store.root, "--store-b", other).splitlines()[0]
    assert first.startswith("the same configuration") and words in first
    if "numpy" in environment:
        assert first.endswith("; numpy differs too")


def test_what_differs_behind_the_same_cell_is_found(finished: Run, other: Path, say: Callable[..., str]) -> None:
    """The student's own environment is the same; the teacher below it was trained with other threads."""
    finished.rewritten(other, "teacher-digits", environment={"threads": "9"}, final=1)
    ids = {"teacher-digits", "prepare-rded-digits-s0", "rded-digits-ipc2-s0"}
    for start in ("prepare-rded-digits-s0", "rded-digits-ipc2-s0", "rded-hard-digits-ipc2-convnet2-w8-s0"):
        record = finished.record(start, other)
        inputs = {
            parent: finished.record(parent, other).content if any(map(parent.startswith, ids)) else content
            for parent, content in record.inputs.items()
        }
        changed = record.model_copy(update={"inputs": inputs, "result": {**record.result, "odd": 1}})
        (other / "cells" / record.id / "record.json").write_text(changed.text)
    said = say("rded-hard-digits-ipc2-convnet2-w8-s0", "--store", finished.store.root, "--store-b", other)
    assert said.splitlines()[0] == "the same configuration, computed with another number of threads (1, 9)"
    assert "images › prepared › teacher" in said or "images › teacher" in said


def test_other_rows_are_told_by_their_words() -> None:
    said = reason(entry(), entry("b", method="hello", labels="projector"))
    assert said == "they are in different rows: the method (rded, hello) and the labels (teacher, projector)"


def test_seeds_of_boards() -> None:
    assert reason(entry(), entry("b", seed=1)) == "the student's seed differs (0, 1)"  # images of one identity, or none
    apart = [entry(c, seed=s, parents={"images": f"images-{s}"}) for c, s in (("a", 0), ("b", 1))]
    assert reason(*apart) == "the seed of distillation and student differs (0, 1)"
    students = [entry(c, student_seed=s, parents={"images": "i"}) for c, s in (("a", 4), ("b", 5))]
    assert reason(*students) == "the student's seed differs (4, 5)"
    sets = [entry(c, seed=s, student_seed=7, parents={"images": f"i{s}"}) for c, s in (("a", 0), ("b", 1))]
    assert reason(*sets) == "the seed of distillation differs (0, 1)"


def test_a_setting_that_was_changed_and_a_missing_number() -> None:
    said = reason(entry(), entry("b", changed={"set": ["rded.pool=9"]}))
    assert "rded.pool=9" in said and said.endswith("differs")
    assert reason(entry(), entry("b", state="failed", top1=None)) == "b is failed, so it has no number"


def test_a_cell_and_the_boards_entry_of_it(finished: Run, say: Callable[..., str], tmp_path: Path) -> None:
    cell = finished.cell(STUDENT)
    board = finished.place / "results" / "digits.records.jsonl"
    said = say(cell, f"{board}:{cell}", "--store", finished.store.root).splitlines()
    assert said[0] == "the same cell with the same number"
    lines = [json.loads(line) for line in board.read_text().splitlines()]
    for line in lines:
        del line["digest"]  # as of earlier releases
        line["environment"]["torch"], line["top1"] = "1.0", 0.01
    changed = tmp_path / "x.records.jsonl"
    changed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = say(cell, f"{changed}:{cell}", "--store", finished.store.root).splitlines()
    assert "computed with other versions of torch" in said[0]


def test_json_has_everything(finished: Run, say: Callable[..., str]) -> None:
    found = json.loads(say(STUDENT, STUDENT.replace("s0", "s1"), "--store", finished.store.root, "--json"))
    assert found["reason"].startswith("the seed of distillation")
    paths = [tuple(level["path"]) for level in found["levels"]]
    assert paths[0] == () and ("images",) in paths and len(paths) == len(set(paths))


def test_a_damaged_parent_is_said_not_guessed(finished: Run, other: Path, say: Callable[..., str]) -> None:
    (other / "cells" / finished.cell("rded-digits-ipc2-s1") / "record.json").write_text("{")
    said = say(STUDENT, STUDENT.replace("s0", "s1"), "--store", other)
    assert "rded-digits-ipc2-s1" in said and "not in the store" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x"], "needs two cells"),
        (["x", "y"], "unknown cell 'x'"),
        (["x.records.jsonl", "y"], "name one"),
        (["x.records.jsonl:y", "y"], "x.records.jsonl is no regular file"),
        (["rded-digits", "y"], "is the beginning of"),
    ],
)
def test_bad_input_is_one_line(
    finished: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["diff", *arguments, "--store", str(finished.store.root)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and words in printed


def test_flat_keeps_every_leaf() -> None:
    nested = {"a": {"b": 1, "c": [2, {"d": 3}]}, "e": None}
    assert flat(nested) == {"a.b": 1, "a.c[0]": 2, "a.c[1].d": 3, "e": None}
