"""Whole runs on a tiny data set, through the command line: done once, killed, corrupted, side by side."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bench, command, environment
from tests.processes import run_command

TEACHER = ("teacher.arch=convnet2-w8", "teacher.epochs=6", "teacher.batch_size=8", "teacher.schedule=cosine")


def grid(colours: Path, protocol: Path, *more: str, methods: str = "rded,hello,sre2l") -> list[str | Path]:
    """The arguments of a run that takes seconds: one IPC, one seed, a small teacher and projector."""
    settings = [*TEACHER, "teacher.lr=0.05"]
    if "hello" in methods:
        settings += ["hello.epochs=2", "hello.batch_size=8"]
    if "sre2l" in methods:
        settings += ["sre2l.iterations=8"]
        more = ("--labels", "native,stored:prune2+topk1", *more)
    flags = [part for setting in settings for part in ("--set", setting)]
    return [
        "run", "--methods", methods, "--ipc", "2", "--seeds", "0", "--dataset", f"folder:{colours}",
        "--students", "convnet2-w8", "--protocol", protocol, "--out", "boards", *flags, *more,
    ]  # fmt: skip


def outcome(store: Path) -> dict[str, Any]:
    """What must be the same in every run: results and digests of all cells."""
    found = {}
    for path in store.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        found[record["id"]] = (record["state"], record["result"], record["files"], record["inputs"])
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run: its folder (data, protocol, store ``.bench``) and its outcome."""
    from tests.conftest import TINY_PROTOCOL, draw_classes

    place = tmp_path_factory.mktemp("undisturbed")
    colours = draw_classes(place / "colours")
    protocol = place / "tiny.toml"
    protocol.write_text(TINY_PROTOCOL)
    arguments = grid(colours, protocol, "--cluster", "local", "--jobs", "2")
    done = run_command(list(map(str, arguments)), place, environment(), figures=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "where the time went" in done.stdout
    return place, outcome(place / ".bench")


def test_every_cell_is_done_and_the_board_is_whole(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    place, cells = undisturbed
    # teacher; scores; images; online teacher, projector, static and stored labels; students
    assert len(cells) == 1 + 1 + 3 + (1 + 1 + 3 + 7) + 18
    assert all(state == "done" for state, *_ in cells.values())
    board = (place / "boards" / "folder-colours.md").read_text()
    assert "18 of 18 students done" in board
    board = board.replace("<wbr>", "")
    for name in ("HeLlO", "RDED", "SRe2L", "stored:prune2+topk1+fp16", "of projector", "Full data", "icon-clip"):
        assert name in board


def test_a_second_run_does_no_work(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    place, cells = undisturbed
    stamps = {path: path.stat().st_mtime_ns for path in (place / ".bench" / "cells").rglob("*")}
    board = (place / "boards" / "folder-colours.md").read_bytes()
    arguments = grid(place / "colours", place / "tiny.toml")
    done = run_command(list(map(str, arguments)), place, environment(), figures=True)
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert stamps == {path: path.stat().st_mtime_ns for path in (place / ".bench" / "cells").rglob("*")}
    assert (place / "boards" / "folder-colours.md").read_bytes() == board
    check = run_command(
        ["report", "--check", "--store", ".bench", "--out", "boards"], place, environment(), figures=True
    )
    assert check.returncode == 0
    assert outcome(place / ".bench") == cells


@pytest.mark.campaign
def test_killed_at_random_moments_a_run_ends_the_same(undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    place, cells = undisturbed
    arguments = grid(place / "colours", place / "tiny.toml", "--cluster", "local", "--jobs", "2")
    moments = random.Random(7)
    for _ in range(4):
        run = subprocess.Popen(
            command(arguments), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(2, 5))
        run.send_signal(signal.SIGKILL)
        run.wait()
        wait_for_orphans(tmp_path)
    done = run_command(list(map(str, arguments)), tmp_path, environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcome(tmp_path / ".bench") == cells
    left = list((tmp_path / ".bench" / "drafts").iterdir())
    assert left == [], "drafts of killed workers are swept up"


def wait_for_orphans(place: Path) -> None:
    """Workers end by themselves when the run that started them is killed."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(_works_in(process, place) for process in Path("/proc").glob("[0-9]*")):
            return
        time.sleep(0.2)
    raise AssertionError("a worker outlived the run that started it by 20 seconds")


def _works_in(process: Path, place: Path) -> bool:
    try:
        return (process / "cwd").resolve() == place and "multiprocessing" in (process / "cmdline").read_text()
    except OSError:
        return False


def test_two_runs_on_one_store_compute_no_cell_twice(undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    place, cells = undisturbed
    arguments = grid(place / "colours", place / "tiny.toml", "--cluster", "inline")
    words = list(map(str, arguments))
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: run_command(words, tmp_path, environment()), range(2)))
    assert [run.returncode for run in runs] == [0, 0]
    assert outcome(tmp_path / ".bench") == cells
    computed = [int(line.split()[1]) for run in runs for line in run.stdout.splitlines() if line.startswith("all ")]
    assert sum(computed) == len(cells)


def test_a_corrupted_artifact_is_noticed_and_made_again(
    undisturbed: tuple[Path, dict[str, Any]], bench: Bench, tmp_path: Path
) -> None:
    place, cells = undisturbed
    subprocess.run(["cp", "-r", place / ".bench", tmp_path / ".bench"], check=True)
    weights = next((tmp_path / ".bench" / "cells").glob("teacher-*/epoch-006.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    half = next((tmp_path / ".bench" / "cells").glob("rded-hard-*"))
    (half / "record.json").write_text('{"schema_version": 1, "id"')
    done = bench(*grid(place / "colours", place / "tiny.toml", "--cluster", "inline"))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("damaged: ")]
    assert len(lines) == 2
    assert "epoch-006.safetensors" in done.stdout and "it is made again" in done.stdout
    assert outcome(tmp_path / ".bench") == cells


def test_forcing_a_stage_computes_it_again(
    undisturbed: tuple[Path, dict[str, Any]], bench: Bench, tmp_path: Path
) -> None:
    place, cells = undisturbed
    subprocess.run(["cp", "-r", place / ".bench", tmp_path / ".bench"], check=True)
    done = bench(*grid(place / "colours", place / "tiny.toml", "--cluster", "inline", "--force", "distill"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("all ")] == ["3"]
    assert outcome(tmp_path / ".bench") == cells


def test_status_and_show_read_what_a_run_left(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    place, cells = undisturbed

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(arguments, place, environment())

    status = ask("status")
    assert status.returncode == 0
    assert any(line.split()[:1] == ["evaluate"] and "18" in line.split() for line in status.stdout.splitlines())
    name = next(name for name in cells if name.startswith("hello-projector"))
    shown, whole = ask("show", name), ask("show", name, "--json")
    assert shown.returncode == whole.returncode == 0 and "oracle_top1 " in shown.stdout
    assert json.loads(whole.stdout)["id"] == name
    several = ask("show", "rded")
    assert several.returncode == 0 and {line.split()[0] for line in several.stdout.splitlines()} > {
        cell for cell in cells if cell.startswith("rded-stored")
    }
    one = ask("show", "rded", "--json")
    assert one.returncode == 2 and one.stderr.count("\n") == 1
    none = ask("show", "helo")
    assert none.returncode == 2 and none.stderr.count("\n") == 1
