"""``bench reproduce``: the row that was meant, made again to the same bits, and honest where it isn't."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli import main, reproduce
from bench.errors import UserError
from bench.exchange.reproduction import Again, choose, verdict
from bench.execution.environment import PORTABLE
from bench.kit.models import build
from bench.report.results import to_frame
from bench.report.rows import pool, records
from bench.store.entries import Entry, write_jsonl
from tests.cli.conftest import Run
from tests.conftest import TINY_PROTOCOL, command, environment

CPU = Path("/proc/cpuinfo")


def entry(seed: int = 0, **facts: Any) -> Entry:
    usual: dict[str, Any] = {
        "dataset": "digits", "title": "Digits", "method": "rded", "labels": "teacher", "ipc": 10,
        "student": "convnet3", "protocol": "common", "protocol_version": 1, "seed": seed, "state": "done",
        "top1": 0.5 + 0.01 * seed, "environment": {"cpu": "A", "threads": "1", "torch": "2"},
    }  # fmt: skip
    found = {**usual, **facts}
    return Entry(cell=f"{found['method']}-{found['labels']}-ipc{found['ipc']}-s{seed}", **found)


ENTRIES = [
    *(entry(seed) for seed in range(3)),
    *(entry(seed, ipc=50) for seed in range(2)),
    entry(labels="hard"),
    entry(method="rded[pool=9]"),
    entry(method="full_data", labels="hard", ipc=None),
]


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        (["rded", "teacher", "ipc10"], ["rded-teacher-ipc10-s0", "rded-teacher-ipc10-s1", "rded-teacher-ipc10-s2"]),
        (["rded", "teacher", "ipc10", "s1"], ["rded-teacher-ipc10-s1"]),
        (["ipc50", "seed0"], ["rded-teacher-ipc50-s0"]),
        (["rded[pool=9]"], ["rded[pool=9]-teacher-ipc10-s0"]),
        (["ipcfull"], ["full_data-hard-ipcNone-s0"]),
        (["rded-teacher-ipc10-s2"], ["rded-teacher-ipc10-s2"]),
        (["rded-hard"], ["rded-hard-ipc10-s0"]),
    ],
)
def test_words_name_a_row(words: list[str], cells: list[str]) -> None:
    assert [one.cell for one in choose(words, to_frame(ENTRIES))[1]] == cells


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rded"], "names 3 rows"),
        (["rded", "ipc10"], "; name one, as bench reproduce rded ipc10 hard"),
        (["rded", "techer"], "did you mean 'teacher'?"),
        (["rded", "hard", "ipc50"], "no row of the boards"),
    ],
)
def test_words_that_name_no_row_or_several(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        choose(words, to_frame(ENTRIES))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_results_are_looked_at_where_the_leaderboards_have_no_number_of_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unfinished = entry(7, state="failed", top1=None, ipc=50)
    for folder, entries in (("leaderboards", [entry(0), unfinished]), ("results", [entry(1), entry(7, ipc=50)])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "digits.records.jsonl").write_text(write_jsonl(entries))
    assert [one.seed for one in reproduce._choose(["rded", "ipc10"], None)[1]] == [0]
    assert [one.seed for one in reproduce._choose(["rded", "ipc50"], None)[1]] == [7]
    with pytest.raises(UserError, match="did you mean 'teacher'"):
        reproduce._choose(["techer"], None)
    (tmp_path / "leaderboards" / "digits.records.jsonl").unlink()
    assert [one.seed for one in reproduce._choose(["rded", "ipc10"], None)[1]] == [1]
    with pytest.raises(UserError, match="there are no boards in nowhere"):
        reproduce._choose(["rded"], Path("nowhere"))


def test_a_row_without_a_number_is_refused() -> None:
    with pytest.raises(UserError, match="no number to reproduce: failed=1"):
        choose(["rded"], to_frame([entry(state="failed", top1=None)]))


def test_the_verdict_asks_for_bits_or_for_the_interval_of_both() -> None:
    here = {"cpu": "A", "instructions": "AVX2", "threads": "1", "torch": "2", "kernels": "portable"}
    frame = to_frame([entry(0, top1=0.50, environment=here), entry(1, top1=0.52, environment=here)])
    (row,), (first, second) = records(pool(frame)), records(frame)
    half = 4.302652729911275 * (2 * 0.02**2 / 4) ** 0.5  # t of 2 degrees of freedom; variances .02²/2 over 2 each
    assert verdict(row, [Again(first, 0.5, True)], here) == ("reproduced to the last bit", True)
    for elsewhere in (
        here,
        {**here, "cpu": "B", "instructions": "AVX512"},
    ):  # portable kernels give these the same bits
        said, fine = verdict(row, [Again(first, 0.5, False)], elsewhere)
        assert not fine and "so the code or the data is another" in said
    for shift, expected in ((half - 1e-4, True), (half + 1e-4, False)):
        again = [Again(one, one.top1 + shift, False) for one in (first, second)]
        said, fine = verdict(row, again, {**here, "kernels": "native", "cpu": "B"})
        assert fine is expected and "95 % interval of both runs (n = 2, 2)" in said
        assert said.endswith("computed elsewhere: cpu A → B, kernels portable → native")


def test_a_row_is_run_again_to_the_same_bits(finished: Run) -> None:
    done = finished.bench(
        "reproduce", "rded", "stored:fp16", "--boards", "results", "--protocol", "tiny.toml", "--cluster", "inline"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    for seed in ("0", "1"):
        (line,) = [words for words in lines if words[:1] == [seed]]
        assert line[3:] == ["+0.00", "the", "same"]
    assert done.stdout.splitlines()[-1] == "reproduced to the last bit"
    assert ["evaluate", "2", "0", "2"] in lines  # its students alone, in a store of their own
    assert done.stdout.splitlines()[0].endswith("--store DIR keeps it for bench diff")
    assert not any(said in done.stdout for said in ("also holds", "wrote", "records are in"))
    assert [path.name for path in (finished.place / "results").glob("*.md")] == ["digits.md"]


@pytest.mark.skipif(not CPU.exists() or "avx2" not in CPU.read_text(), reason="portable kernels are those of AVX2")
def test_an_inline_run_that_goes_on_computes_with_the_same_kernels(tmp_path: Path) -> None:
    run, settings = Run(tmp_path), ("--labels", "hard", "--no-baselines", "--dataset", "synthetic")
    (tmp_path / "tiny.toml").write_text(TINY_PROTOCOL)
    run.grid("random_real", *settings, "--seeds", "0").check_returncode()
    # this one looks at the data of the cells that are there before it computes, and has not inherited the kernels
    free = {name: value for name, value in environment().items() if name not in PORTABLE}
    words = run.words("random_real", *settings, "--seeds", "0,1")
    subprocess.run(command(words), cwd=tmp_path, env=free, capture_output=True, check=True)
    facts = [run.record(f"random_real-hard-synthetic-ipc2-convnet2-w8-s{seed}").run.environment for seed in (0, 1)]
    assert [each["kernels"] for each in facts] == ["portable"] * 2


@pytest.mark.skipif(not CPU.exists() or "avx2" not in CPU.read_text(), reason="portable kernels are those of AVX2")
def test_kernels_are_chosen_before_a_teacher_file_is_looked_at(tmp_path: Path) -> None:
    torch.save(build("convnet2-w8", 10, 16, (0.5,) * 3, (0.5,) * 3).net.state_dict(), tmp_path / "mine.pth")
    words = ["run", "--methods", "rded", "--ipc", "1", "--teacher", "convnet2-w8=mine.pth", "--dry-run"]
    lines = (
        f"import torch; from bench.cli import main; assert main({words}) == 0",
        "print(torch.backends.cpu.get_cpu_capability())",
    )
    free = {name: value for name, value in environment().items() if name not in PORTABLE}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, env=free, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "AVX2"


def test_a_number_that_was_another_is_told(finished: Run, tmp_path: Path) -> None:
    board = tmp_path / "digits.records.jsonl"
    lines = [json.loads(line) for line in (finished.place / "results" / board.name).read_text().splitlines()]
    for line in lines:
        del line["digest"]  # as of earlier releases
        line["top1"] = line.get("top1", 0) / 2 + 0.5
    board.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = finished.bench(
        "reproduce", "rded", "hard", "s0", "--boards", tmp_path, "--protocol", "tiny.toml", "--store", tmp_path / "s",
        "--cluster", "inline",
    )  # fmt: skip
    assert "Δ -" in done.stdout and "others" in done.stdout
    assert done.returncode == 1 and done.stdout.rstrip().endswith("so the code or the data is another")
    assert (tmp_path / "s" / "cells").is_dir()  # the store that was named is kept
    assert f"records are in {tmp_path / 's'}" in done.stdout and "--store DIR" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rded", "hard", "--boards", "results"], "name it with --protocol FILE.toml"),
        (["rded", "hard", "--boards", "nowhere"], "there are no boards in nowhere"),
        (["rded", "hrad", "--boards", "results"], "did you mean 'hard'?"),
    ],
)
def test_bad_input_is_one_line(
    finished: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(finished.place)
    assert main(["reproduce", *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and words in printed
