"""Publishing merges, loses nothing without being told to, and checks itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.errors import UserError
from bench.planning import manifest
from bench.report.publish import Change, check, merge, texts, update, write
from bench.report.results import Board, present
from bench.store.entries import Entry, read_jsonl
from bench.store.predictions import FILE, save
from tests.report.board_data import entry, grid, three
from tests.report.test_results import filled, small


def board(entries: list[Entry], suite: str = "") -> Board:
    return Board("digits", suite, entries)


def lines(out: Path) -> list[Entry]:
    return read_jsonl(out / "digits.records.jsonl").entries


# -- merging


def test_a_fresh_store_adds_to_a_board_and_takes_nothing_away(tmp_path: Path) -> None:
    published = three((0.9, 0.91, 0.92)) + three((0.5, 0.6, 0.7), method="rded")
    list(update([board(published)], tmp_path))
    again = [entry(seed=0, top1=0.9), entry(seed=1, top1=0.95), entry(seed=7, top1=0.9)]
    ((path, change, merged),) = update([board(again)], tmp_path)
    assert (path.name, str(change)) == ("digits.md", "1 added, 1 changed, 5 kept")
    assert len(lines(tmp_path)) == 7 == len(merged.entries)
    assert {one.top1 for one in lines(tmp_path) if one.seed == 1 and one.method == "hello"} == {0.95}
    ((_, change, _),) = update([board(again)], tmp_path, replace=True)
    assert change == Change(0, 0, 3, 4) and str(change) == "0 added, 0 changed, 3 kept, 4 dropped"
    assert len(lines(tmp_path)) == 3


def test_a_new_cell_stands_for_the_same_seed_of_the_same_row_only() -> None:
    old = board([entry(cell="old", top1=0.1)])
    assert merge(old, board([entry(cell="new", top1=0.2)]))[1] == Change(0, 1, 0, 0)
    for other in ({"data_digest": "d"}, {"protocol_digest": "p"}, {"plugin_digests": {"hello": "x"}}, {"seed": 1},
                  {"changed": {"teacher": "r18.pth"}}, {"labels": "hard"}):  # fmt: skip
        assert merge(old, board([entry(cell="new", **other)]))[1] == Change(1, 0, 1, 0), other
    moved = entry(cell="new", changed={"dataset": "folder:/elsewhere/pets"})
    assert merge(old, board([moved]))[1] == Change(0, 1, 0, 0)


def test_what_is_not_done_never_stands_for_what_is() -> None:
    old = board([entry(top1=0.9), entry(seed=1, state="failed", reason="no")])
    new = board([entry(state="missing"), entry(seed=1, state="missing"), entry(seed=2, state="missing")])
    merged, change = merge(old, new)
    assert [one.state for one in merged.entries] == ["done", "missing", "missing"]
    assert change == Change(1, 1, 1, 0)


def test_what_a_store_lost_stays_on_the_board(tmp_path: Path) -> None:
    made, kept, cut = entry(plugin_digests={"hello": "a", "classification": "b"}), tmp_path / FILE, tmp_path / "cut"
    save(np.zeros(8, np.int64), np.zeros(8, np.int64), kept)
    cut.write_bytes(kept.read_bytes()[:-4])
    old = replace(board([made]), files={made.cell: kept})
    lost = made.model_copy(update={"plugin_digests": {"classification": "b"}, "seconds": {}})  # its parents are gone
    merged, change = merge(old, replace(board([lost]), files={made.cell: cut}))
    assert (merged.entries, merged.files, change) == ([made], old.files, Change(0, 0, 1, 0))
    other = lost.model_copy(update={"top1": 0.5})
    assert merge(old, board([other]))[0].entries == [other], "computed again"


def test_a_truncated_grid_is_named_and_its_rows_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    first, second = (filled(store, small(ipc=(ipc,))) for ipc in (1, 2))
    assert main(["report", "--store", str(store), "--out", str(out)]) == 0
    assert len(lines(out)) == 4
    torn = min((store / "grids").glob("*.json"))
    torn.write_bytes(torn.read_bytes()[:300])
    capsys.readouterr()
    assert main(["report", "--store", str(store), "--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert f"left out: grids/{torn.name}" in said and "0 added, 0 changed, 4 kept" in said
    assert len(lines(out)) == 4
    assert main(["status", "--store", str(store)]) == 1 and torn.name in capsys.readouterr().err
    assert len(manifest.newest_first(first)) == 1 == len(manifest.unreadable(second))
    for path in (store / "grids").glob("*.json"):
        path.write_bytes(b"torn")
    for words in (["report", "--store", str(store), "--out", str(out)], ["status", "--store", str(store)]):
        assert main(words) == 2 and f"grids/{torn.name}: no digest in front" in capsys.readouterr().err


@pytest.mark.parametrize("harm", [lambda line: line.replace('"top1":0.5', '"top1":0.987'), lambda line: line[:400]])
@pytest.mark.parametrize("first", [("--check",), (), ("--replace",)])
def test_an_edited_or_cut_line_is_named_and_published_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[str], str], first: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    filled(tmp_path / "store", small())
    words = ["report", "--store", str(tmp_path / "store"), "--out", str(out)]
    assert main(words) == 0
    file = out / "digits.records.jsonl"
    whole = file.read_text()
    spoilt, kept = whole.splitlines()
    file.write_text(f"{harm(spoilt)}\n{kept}\n")
    assert harm(spoilt) != spoilt and main(["report", "--out", str(out), "--check"]) == 1
    (lost,) = read_jsonl(file).left_out
    capsys.readouterr()
    assert main(["report", "--out", str(out)]) == 1 and "1 record left out" in (out / "digits.md").read_text()
    assert main([*words, *first]) == 1
    said = capsys.readouterr().out
    assert f"left out: digits.records.jsonl: {lost.cell} (not what its digest says" in said and lost.cell in spoilt
    if first != ("--check",):
        assert ("0 added, 1 changed, 1 kept" if not first else "1 added, 0 changed, 1 kept, 1 dropped") in said
        assert file.read_text() == whole and main([*words, "--check"]) == 0


def test_lines_without_a_digest_stay_so_and_new_ones_have_one(tmp_path: Path) -> None:
    file = tmp_path / "digits.records.jsonl"
    file.write_text(old := entry().line + "\n")
    list(update([board([entry(), entry(seed=1)])], tmp_path))
    assert old in file.read_text() and file.read_text().count('{"digest": "') == 1 and len(lines(tmp_path)) == 2


# -- files


def test_the_same_records_are_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    made = [*grid(), entry(method="sre2l", seed=1, state="missing")]
    write(board(made), tmp_path / "one")
    random.Random(0).shuffle(made)
    write(board([*made, *made[:7]]), tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {"digits.md", "digits.csv", "digits.records.jsonl", "digits.html"} < {str(path) for path in files}
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_check_names_what_differs_is_missing_or_belongs_to_nothing(tmp_path: Path) -> None:
    write(board(three((0.88, 0.90, 0.92))), tmp_path)
    write(board(three((0.88, 0.90, 0.92)), "ranks"), tmp_path)
    (tmp_path / "published.csv").write_text("")
    assert check(tmp_path, present(tmp_path)) == []
    table, records = tmp_path / "digits.csv", tmp_path / "digits.records.jsonl"
    table.write_text(table.read_text().replace("0.9,", "0.91,"))
    records.write_text(records.read_text() + "\n")
    (tmp_path / "digits.md").unlink()
    (tmp_path / "old.md").write_text("")
    (tmp_path / "digits/old.svg").write_text("")
    figure = next((tmp_path / "suites/ranks/digits").glob("*.svg"))
    figure.write_text("<svg/>")
    found = check(tmp_path, present(tmp_path))
    named = [line.partition(": ")[0].removeprefix(f"{tmp_path}/") for line in found]
    wanted = ["digits.records.jsonl:5", "digits.md", "digits.csv:2", "digits/old.svg", "old.md"]
    wanted.append(str(figure.relative_to(tmp_path)))
    assert sorted(named) == sorted(wanted)
    assert any("0.91," in line for line in found) and any("give '(ends)'" in line for line in found)
    write(present(tmp_path)[0], tmp_path)
    assert not (tmp_path / "digits/old.svg").exists()  # a figure that the board no longer has


def test_the_screen_names_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(board(grid()), tmp_path)
    records = tmp_path / "digits.records.jsonl"
    records.write_text(records.read_text() + "{torn [red]\u202e\n")
    assert main(["report", "--check", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "left out: digits.records.jsonl: {torn [red] (" in said and "drift: " in said and "\u202e" not in said


def test_boards_are_written_again_from_their_own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_BENCH_STORE", str(tmp_path / "none"))
    write(board(grid()), tmp_path)
    (tmp_path / "digits.md").write_text("")
    assert main(["report", "--out", str(tmp_path)]) == 0
    assert main(["report", "--check", "--out", str(tmp_path)]) == 0
    assert main(["report", "--out", str(tmp_path / "nothing")]) == 2


@pytest.mark.parametrize("state", ["missing", "done"])
def test_a_page_has_the_board_s_paragraphs_with_and_without_figures(tmp_path: Path, state: str) -> None:
    write(board([entry(state=state)]), tmp_path)
    page = (tmp_path / "digits.html").read_text()
    assert "<h1>Digits</h1>" in page and "<h2>Which method at which label budget</h2>" in page
    assert page.count("<h2>Figures</h2>") == (state == "done")


def test_publish_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        write(board([entry()]), tmp_path / "file")


def test_ten_thousand_records_are_quick() -> None:
    """Pooling, comparing and every text of a board; figures take as long as their marks are many."""
    made = [
        entry(method=method, labels=f"stored:prune{labels}" if labels else "hard", ipc=ipc, seed=seed, student=student,
              top1=((seed * 7919 + labels * 104729 + ipc * 31 + len(method)) % 9973) / 9973, label_bytes=labels * 1000)
        for method in ("random_real", "rded", "hello", "sre2l")
        for labels in range(17)
        for ipc in (1, 10, 50)
        for seed in range(10)
        for student in ("convnet3", "convnet4", "resnet18", "vgg11", "vit_b_16")
    ]  # fmt: skip
    assert len(made) > 10_000
    began = time.process_time()
    assert len(texts(board(made))) == 3
    assert time.process_time() - began < 8
