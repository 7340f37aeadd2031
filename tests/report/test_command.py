"""The command of a row is what a person would type, and plans every cell of the row."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.report.collect import collect
from bench.report.command import command
from bench.report.results import to_frame
from bench.report.rows import pool, records
from bench.store.entries import Entry, in_order
from tests.report.board_data import entry, grid
from tests.report.test_results import filled


def said(entries: list[Entry]) -> list[str]:
    rows = pool(to_frame(in_order(entries)))
    return [line.strip() for line in command(records(rows)).replace(" \\\n   ", "").split("\n")]


def test_the_command_makes_the_grid_again() -> None:
    assert said(grid()) == [
        "python -m bench run --methods hello,rded,sre2l --ipc 1,10 --dataset digits --students convnet3 --seeds 0,1,2 "
        "--protocol common --labels hard,native,teacher"
    ]


def test_a_command_says_all_that_was_asked_for() -> None:
    changed = {"set": ["hello.conv_rank=4", "teacher.arch=it's"], "clip": "RN50:openai", "teacher": "r18.pth"}
    facts: dict[str, Any] = {"changed": changed, "asked": "stored:topk10", "via": "hello", "student_seed": 3}
    assert said([entry(seed=seed, **facts) for seed in (0, 1)]) == [
        "python -m bench run --methods hello --ipc 10 --dataset digits --students convnet3 --seeds 0,1 "
        "--student-seeds 3 --protocol common --labels stored:topk10 --set hello.conv_rank=4 "
        "--set 'teacher.arch=it'\"'\"'s' --clip RN50:openai --teacher r18.pth --no-baselines"
    ]


def test_other_settings_and_data_sets_take_a_command_of_their_own() -> None:
    entries = [entry(via="hello"), entry(method="hello[conv_rank=4]", changed={"set": ["hello.conv_rank=4"]})]
    plain, other = said(entries)
    assert "--set" not in plain and "--set hello.conv_rank=4" in other
    folder = [entry(via="hello"), entry(dataset="folder-pets", changed={"dataset": "folder:/data/my pets"})]
    assert ["'folder:/data/my pets'" in line for line in said(folder)] == [False, True]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"asked": "native", "via": "hello"}, "--methods hello --ipc 10"),
        ({"labels": "hard", "method": "rded", "via": "hello"}, "--methods hello"),
        ({"labels": "hard", "method": "rded"}, "--labels hard --no-baselines"),
        ({"labels": "static:fp16 of projector", "via": "hello"}, "--labels static:fp16 --no-baselines"),
        ({"labels": "teacher:int8"}, "--labels teacher:int8 --no-baselines"),
        ({"method": "random_real", "asked": "native", "via": "hello"}, "--methods hello"),
        ({"method": "random_real", "labels": "hard"}, "--methods random_real --ipc 10"),
        ({"method": "full_data", "labels": "hard", "ipc": None}, "--methods random_real --ipc 1"),
    ],
)
def test_the_command_of_one_row(facts: dict[str, Any], words: str) -> None:
    (line,) = said([entry(**facts)])
    assert words in line
    beside = facts.get("ipc", 10) is None or (facts.get("method") == "random_real" and "via" in facts)
    assert ("--no-baselines" not in line) == beside


def test_the_command_of_a_row_plans_its_cells(tmp_path: Path) -> None:
    """What is read off a row is parsed as a person's own command is, and holds every cell of that row."""
    from bench.cli import options, parse

    made = plan(
        Request(
            methods=("sre2l", "hello"), ipc=(1,), seeds=(0, 1), student_seeds=(1, 2),
            labels=("native", "stored:topk4", "teacher:int8"),
            overrides={"hello": {"conv_rank": 4}, "teacher": {"epochs": 7}},
        )
    )  # fmt: skip
    rows = pool(to_frame(collect(filled(tmp_path, made))[""]))
    assert len(rows) > 15
    for row in records(rows):
        text = command([row])
        again = plan(options.request(parse(shlex.split(text.replace("\\\n", ""))[3:])))
        assert set(row.cells) <= {cell.id for cell in again.cells}, text
