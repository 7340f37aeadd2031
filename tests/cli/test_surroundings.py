"""Surroundings of a command: widths that are none, outputs that are not UTF-8, users without a home folder."""

from __future__ import annotations

import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main, screen
from bench.kit.data import decoding
from bench.planning import manifest
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.artifacts import Store
from tests.conftest import command, environment

METHODS = ("external", "g_vbsm", "hello", "random_real", "rded", "sre2l")
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The command line in a folder with a store in which a grid was requested; its output in bytes."""
    manifest.keep(Store(tmp_path / ".bench"), plan(Request(methods=("rded",), ipc=(1,), seeds=(0,))))

    def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command(arguments), cwd=tmp_path, env=environment(env), capture_output=True, check=False)

    return call


@pytest.mark.parametrize("columns", ["", "0", "abc", "-5"])
def test_a_width_that_is_none_is_as_if_it_were_not_set(columns: str, run: Run) -> None:
    done = run("list", "methods", COLUMNS=columns)
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout == run("list", "methods", COLUMNS="160").stdout != b""


def test_a_narrow_screen_breaks_no_names(run: Run) -> None:
    shown = run("status", COLUMNS="40").stdout.decode().splitlines()
    assert [line.split()[0] for line in shown[1:]] == ["stage", "teacher", "prepare", "distill", "label", "evaluate"]
    assert max(map(len, shown[1:])) <= 40
    names = [line.split(" ")[0] for line in run("list", "methods", COLUMNS="40").stdout.decode().splitlines()]
    assert set(METHODS) <= set(names)


@pytest.mark.parametrize("terminal", [True, False])
def test_prose_breaks_between_words_on_a_terminal_alone_and_tables_never(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    sentence = "full_data keeps its own 15 epochs; --set changes them"
    out = screen.console()
    out.print(sentence)
    out.print(screen.table(list("abcdef"), [["nine-char"] * 6]))
    *prose, _, row = capsys.readouterr().out.splitlines()
    assert prose == (["full_data keeps its own 15 epochs; --set", "changes them"] if terminal else [sentence])
    assert row.split() == ["nine-char"] * 6


@pytest.mark.parametrize(
    ("arguments", "encoding"),
    [(["status"], "ascii"), (["published", "--dataset", "imagenet-1k"], "ascii"), (["list", "protocols"], "latin-1")],
)
def test_the_encoding_of_the_output_does_not_decide(arguments: list[str], encoding: str, run: Run) -> None:
    done = run(*arguments, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and done.stderr == b""
    replaced = done.stdout.decode(encoding).replace("-", "━")  # bars are drawn in ASCII
    whole = run(*arguments, PYTHONIOENCODING="utf-8").stdout.decode().replace("-", "━")
    expected = whole.encode(encoding, errors="replace").decode(encoding)
    assert len(replaced.split()) == len(expected.split()) > 3


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without HOME and without an entry in the password file."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CONFIG_HOME", "DISTILL_BENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("nameless")
def test_nothing_needs_a_home_folder_that_does_not_use_it(
    colours: Path, tiny_protocol: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "WORTH_A_STAMP", 0.0)
    assert main(["data", f"folder:{colours}"]) == 0
    grid = [
        "--ipc",
        "1",
        "--seeds",
        "0",
        "--no-baselines",
        "--students",
        "convnet2-w8",
        "--protocol",
        str(tiny_protocol),
    ]
    for dataset in (f"folder:{colours}", "digits"):
        plain = ["run", "--methods", "random_real", "--labels", "hard", "--dataset", dataset, "--cluster", "inline"]
        assert main([*plain, *grid]) == 0, capsys.readouterr().out


@pytest.mark.usefixtures("nameless")
@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["run", "--methods", "random_real", "--ipc", "1", "--dry-run", "--profile", "mine"], "$XDG_CONFIG_HOME"),
        (["data", "fashion-mnist"], "$DISTILL_BENCH_DATA"),
        (["run", "--methods", "random_real", "--ipc", "1", "--dataset", "fashion-mnist"], "$DISTILL_BENCH_DATA"),
    ],
)
def test_a_place_below_the_home_folder_is_named(
    arguments: list[str], variable: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and variable in error
