"""Hostile input: command lines, profiles and records at random end with 0, 1 or 2, in lines that a terminal can show.

``DISTILL_BENCH_FUZZ=5000`` tries as many of each.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.api.catalogue import own_folder
from bench.cli import command_line, main
from bench.errors import UserError
from bench.slurm.profile import Profile, load
from bench.store.artifacts import Damaged, Store
from bench.store.entries import read_jsonl
from tests.cli.conftest import Run
from tests.conftest import FUZZ

NASTY = (
    "", "0", "-1", "1e999", "NaN", "null", "true", "[]", "{}", '"', "[" * 3000, "a" * 5000, "\x1b[2J", "\x00", "\n",
    "\udce9", "../../x", "/", "/dev/null", "/proc/self/mem", "~nobody/x", "a,b", "digits", "rded", "rded[", "]",
    "hello[conv_rank=4]", "common", "1,10", "s0", "*", "[!", "teacher", "stored:int8", "folder:.", "folder:",
    "RN50:openai@x", "protocol.epochs=1", "hello.x=1", "=", ".=", "٣", "１", "9" * 400, "--", "-h", "%s", "{x}",
)  # fmt: skip
COMPUTING = {"run", "check", "doctor", "reproduce"}  # of these only the plan, or nothing


@pytest.fixture
def draw() -> random.Random:
    return random.Random(0)


@pytest.fixture
def parsers() -> dict[str, Any]:
    """The parser of each verb."""
    (verbs,) = [action for action in command_line()._actions if isinstance(action.choices, dict)]
    assert isinstance(verbs.choices, dict)
    return verbs.choices


def lines(draw: random.Random, parsers: dict[str, Any], count: int) -> Iterator[list[str]]:
    """Words of command lines, mostly flags that there are with values of some kind."""
    safe = [name for name in parsers if name not in COMPUTING] + ["run", "nosuch"]
    for _ in range(count):
        verb = draw.choice(safe)
        flags = [flag for action in parsers[verb]._actions for flag in action.option_strings] if verb in parsers else []
        flags = [flag for flag in flags if flag not in ("--watch", "--follow")] or ["--x"]  # these wait
        words = [verb]
        for _ in range(draw.randrange(5)):
            words.append(draw.choice([draw.choice(flags), draw.choice(NASTY), draw.choice(NASTY)]))
        yield [*words, "--dry-run", "--no-preflight"] if verb == "run" else words


def test_command_lines(
    draw: random.Random, parsers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("work", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for words in lines(draw, parsers, FUZZ // 2):
        try:
            code = main(words)
        except SystemExit as end:  # --help and --version
            code = end.code if isinstance(end.code, int) else 0
        out, err = capsys.readouterr()
        assert code in (0, 1, 2), words
        assert all(letter.isprintable() or letter in "\n\t" or letter.isspace() for letter in out + err), words
        assert code != 2 or len(err.splitlines()) <= 1 or "--help" in words, (words, err)
    assert {path.name for path in tmp_path.iterdir()} == {"work", "home"}
    left = {path.relative_to(tmp_path / "work").parts[0] for path in (tmp_path / "work").rglob("*")}
    assert left <= {".bench", "results", "leaderboards", *NASTY}, left


def value(draw: random.Random, depth: int = 0) -> str:
    """A TOML value."""
    if depth < 3 and draw.random() < 0.2:
        return f"[{', '.join(value(draw, depth + 1) for _ in range(draw.randrange(3)))}]"
    words = (
        "2-00:00:00",
        "1:00",
        "x:y",
        "64G",
        "gpu:1",
        "teacher",
        "distill:rded",
        "a\\nb",
        "\\u001b",
        "0",
        "-1",
        "report",
    )
    return draw.choice([f'"{draw.choice(words)}"', str(draw.randrange(-2, 100)), "1.5", "nan", "true", "{a = 1}", "x"])


def test_profiles(draw: random.Random, tmp_path: Path) -> None:
    keys = [
        *Profile.model_fields,
        "time",
        "mem",
        "gpus",
        "gpus-per-node",
        "nodes",
        "ntasks",
        "mem-per-cpu",
        "x",
        "--time",
    ]
    for _ in range(FUZZ):
        text = "".join(
            draw.choice(["", "", "", "[resources.a]\n", "[resources]\n"]) + f"{draw.choice(keys)} = {value(draw)}\n"
            for _ in range(draw.randrange(6))
        )
        (tmp_path / "p.toml").write_text(text[: draw.choice([None, None, draw.randrange(1, 99)])])
        try:
            profile = load(str(tmp_path / "p.toml"))
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 1000
        else:
            for resources in profile.classes().values():
                texts = [one for one in resources.model_dump().values() if isinstance(one, str)]
                assert all(map(str.isprintable, texts)), text


def mutated(draw: random.Random, facts: Any) -> Any:
    """A JSON value with something else in one place, or text that is none."""
    blob = json.dumps(facts)
    if draw.random() < 0.3:
        return blob[: draw.randrange(len(blob))] + draw.choice(["", "}", "\x00", "[" * 2000])
    copy = json.loads(blob)
    at = copy
    while isinstance(at, dict) and at:
        key = draw.choice(list(at))
        if not isinstance(at[key], dict) or draw.random() < 0.4:
            at[draw.choice([key, "x"])] = draw.choice([None, -1, 1e308, "\x1b[31m", [], {}, [[[]]], True, "x" * 99])
            break
        at = at[key]
    return json.dumps(copy)


def test_records(draw: random.Random, finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = finished.cell("rded-stored-fp16-digits-ipc2-convnet2-w8-s0")
    record = json.loads((finished.store.folder(cell) / "record.json").read_text())
    boards = finished.place / "results"
    entries = [json.loads(line) for line in next(boards.glob("*.records.jsonl")).read_text().splitlines()]
    shutil.copytree(finished.place / ".bench", tmp_path / "store")
    store = Store(tmp_path / "store")
    for _ in range(FUZZ):
        (store.folder(record["id"]) / "record.json").write_text(mutated(draw, record))
        try:
            store.record(record["id"])
        except Damaged as damage:
            assert record["id"] in str(damage)
        (tmp_path / "x.records.jsonl").write_text(mutated(draw, draw.choice(entries)) + "\n")
        loaded = read_jsonl(tmp_path / "x.records.jsonl")
        assert len(loaded.entries) + len(loaded.left_out) <= 1
    for _ in range(FUZZ // 40):
        (store.folder(record["id"]) / "record.json").write_text(mutated(draw, record))
        for verb in (["status"], ["show", record["id"]], ["diff", cell, cell[:-1]]):
            assert main([*verb, "--store", str(store.root)]) in (0, 1, 2)
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err


def test_the_folders_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the specification makes invalid
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "etc"))
    assert own_folder("cache") == tmp_path / ".cache" / "distill-bench"
    assert own_folder("config") == tmp_path / "etc" / "distill-bench"
