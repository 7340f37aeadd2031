"""Boards: the numbers on them, what they must never hide or mix, and that they are always the same bytes."""

from __future__ import annotations

import csv
import html
import io
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from pydantic import ValidationError

from bench.errors import UserError
from bench.harness import manifest
from bench.harness.grid import Request
from bench.harness.plan import plan
from bench.harness.record import Record, RunFacts
from bench.harness.report import wording
from bench.harness.report.board import make_rows, render_csv
from bench.harness.report.collect import collect
from bench.harness.report.entries import Entry, read_jsonl, render_jsonl, write_jsonl
from bench.harness.report.markdown import render_markdown
from bench.harness.report.publish import drift, file_stem, publish, render
from bench.harness.report.statistics import summarize
from bench.harness.store import Store

ICON_CLIP = {"name": "icon-clip", "sha256": "3fa9" * 16, "bytes": 9_712_345}
RANDOM = {"random_real"}


def entry(**facts: Any) -> Entry:
    usual: dict[str, Any] = {
        "dataset": "digits",
        "title": "Digits",
        "method": "hello",
        "labels": "projector",
        "ipc": 10,
        "student": "convnet3",
        "protocol": "common",
        "protocol_version": 1,
        "seed": 0,
        "state": "done",
    }
    if facts.get("state", "done") == "done":
        usual |= {"top1": 0.9, "oracle_top1": 0.92, "image_bytes": 2000, "label_bytes": 40_000}
        usual |= {"full_label_bytes": 300 * 100 * 10 * 2, "seconds": {"teacher": 20.0, "evaluate": 5.5}}
        usual |= {"environment": {"device": "cpu", "torch": "2.5.1"}}
    usual |= facts
    place = [str(usual[key]) for key in ("method", "labels", "ipc", "protocol", "seed")]
    usual.setdefault("cell", "-".join(place))
    return Entry(**usual)


def three(top1: tuple[float, float, float], **facts: Any) -> list[Entry]:
    return [entry(seed=seed, top1=value, **facts) for seed, value in enumerate(top1)]


def grid() -> list[Entry]:
    entries = []
    for protocol in ("common", "official"):
        for ipc in (1, 10, 50):
            shared: dict[str, Any] = {"ipc": ipc, "protocol": protocol}
            entries += three((0.9, 0.91, 0.92), public=(ICON_CLIP,), **shared)
            entries += three((0.8, 0.82, 0.81), method="rded", labels="teacher", **shared)
            entries += three((0.5, 0.61, 0.52), method="random_real", labels="hard", label_bytes=0, **shared)
        entries += three((0.97, 0.98, 0.99), method="full_data", labels="hard", ipc=None, protocol=protocol)
    return entries


def board(entries: list[Entry], **options: Any) -> str:
    return render_markdown("Digits", make_rows(entries), **options)


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table of a Markdown text, read as GitHub does: an escaped pipe is no border."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            cells = line.replace("\\|", "\0").strip("|").split("|")
            found[-1].append([cell.replace("\0", "|").strip().replace(wording.JOINED, " ") for cell in cells])
        inside = line.startswith("|")
    return found


# -- statistics


def test_three_seeds_by_hand() -> None:
    # Deviations -0.02, 0, 0.02: s = sqrt(0.0008 / 2) = 0.02; t(0.975, 2) = 4.30265.
    summary = summarize([0.88, 0.90, 0.92])
    assert summary.mean == pytest.approx(0.90)
    assert summary.std == pytest.approx(0.02)
    assert summary.ci95 == pytest.approx(4.302653 * 0.02 / 3**0.5, rel=1e-6)


def test_two_and_five_seeds_use_their_own_quantile() -> None:
    assert summarize([0.0, 1.0]).ci95 == pytest.approx(12.706205 * 0.5**0.5 / 2**0.5, rel=1e-6)
    five = summarize([1.0, 2.0, 3.0, 4.0, 5.0])
    assert five.ci95 == pytest.approx(2.776445 * 2.5**0.5 / 5**0.5, rel=1e-6)


def test_one_or_no_seed_has_no_spread() -> None:
    assert (summarize([0.7]).mean, summarize([0.7]).std, summarize([0.7]).ci95) == (0.7, None, None)
    assert (summarize([]).n, summarize([]).mean) == (0, None)


# -- the table


def test_a_row_shows_what_was_measured() -> None:
    header, rule, row = tables(board(three((0.88, 0.90, 0.92), public=(ICON_CLIP,))))[0]
    assert dict(zip(header, row, strict=True)) == {
        "Method": "hello",
        "Labels": "projector",
        "n": "3",
        "Top-1 %": "**90.0 ± 2.0**",
        "95 % CI": "±5.0",
        "Oracle %": "92.0",
        "Images": "2.0 KiB",
        "Label bytes": "39.1 KiB",
        "Public": "9.3 MiB (a)",
        "Label ratio": "0.067",  # 40,000 / (300 · 100 · 10 · 2)
        "Seconds": "26",
    }
    assert [cell.strip("-") for cell in rule] == [":"] * len(header)
    assert [cell.endswith(":") for cell in rule] == [False, False] + [True] * 9


def test_one_seed_has_neither_deviation_nor_interval() -> None:
    row = tables(board([entry(top1=0.625)]))[0][2]
    assert row[2:5] == ["1", "**62.5**", "—"]


def test_numbers_keep_their_trailing_zero() -> None:
    assert "62.0 ± 0.0" in board(three((0.62, 0.62, 0.62))).replace(wording.JOINED, " ")


def test_best_comes_first_and_alone_is_bold_and_full_data_closes_every_table() -> None:
    for table in tables(board(grid(), titles={"hello": "HeLlO", "full_data": "Full data"}, baselines=RANDOM)):
        methods = [row[0] for row in table[2:]]
        assert methods == ["HeLlO", "rded", "*random_real*", "Full data (ref.)"]
        assert [row[3].startswith("**") for row in table[2:]] == [True, False, False, False]


def test_several_students_stand_side_by_side_and_are_ranked_each() -> None:
    entries = three((0.7, 0.7, 0.7)) + three((0.6, 0.6, 0.6), method="rded")
    entries += three((0.8, 0.8, 0.8), student="resnet18")
    entries += three((0.9, 0.9, 0.9), student="resnet18", method="rded")
    table = tables(board(entries))[0]
    assert table[0][1] == "Student"
    assert [(row[0], row[1], row[4].startswith("**")) for row in table[2:]] == [
        ("hello", "convnet3", True),
        ("rded", "convnet3", False),
        ("rded", "resnet18", True),
        ("hello", "resnet18", False),
    ]


def test_protocols_and_their_versions_never_share_a_table() -> None:
    entries = three((0.9, 0.9, 0.9)) + three((0.5, 0.5, 0.5), protocol="official")
    entries += three((0.1, 0.1, 0.1), protocol_version=2, cell="x")[:1]
    text = board(entries)
    assert [len(table) for table in tables(text)] == [3, 3, 3]
    for protocol in ("common, version 1", "common, version 2", "official, version 1"):
        assert f"## Protocol {protocol}\n" in text


def test_full_data_alone_is_a_table_of_its_own() -> None:
    text = board(three((0.9, 0.9, 0.9), method="full_data", labels="hard", ipc=None))
    assert "### Full data" in text
    assert tables(text)[0][2][0] == "full_data (ref.)"
    assert "--ipc" not in text


def test_missing_and_failed_cells_are_seen() -> None:
    entries = [
        *three((0.9, 0.9, 0.9))[:2],
        entry(seed=2, state="failed", reason="out of memory\nat step 3", cell="broken-cell"),
        *(entry(method="rded", seed=seed, state="missing") for seed in range(3)),
        *(entry(method="sre2l", seed=seed, state="failed", reason="loss is NaN") for seed in range(3)),
    ]
    text = board(entries)
    rows = {row[0]: row for row in tables(text)[0][2:]}
    assert rows["hello"][2:4] == ["2/3", "**90.0 ± 0.0** fail¹"]
    assert rows["rded"][2:6] == ["0/3", "—", "—", "—"]
    assert rows["sre2l"][2:4] == ["0/3", "fail²"]
    assert "- ¹ out of memory at step 3: `broken-cell`" in text
    assert "- ² loss is NaN: `sre2l-" in text
    assert "2 of 9 cells done (4 failed, 3 missing)" in text


def test_many_failures_are_named_in_part_and_counted() -> None:
    text = board([entry(seed=seed, state="failed", reason="no") for seed in range(40)])
    assert " and 35 more" in text


def test_public_bases_are_named_with_digest_and_bytes() -> None:
    other = {"name": "RN50", "sha256": "ab" * 32, "bytes": 153_000_000}
    better = entry(public=(ICON_CLIP,), top1=0.5)
    text = board([better, entry(method="rded", public=(other, ICON_CLIP), top1=0.4)])
    assert "- (a) `icon-clip`, sha256 `3fa93fa93fa93fa9`, 9,712,345 bytes" in text
    assert "- (b) `RN50`" in text
    assert [row[8] for row in tables(text)[0][2:]] == ["9.3 MiB (a)", "155 MiB (a,b)"]


def test_the_command_makes_the_grid_again() -> None:
    text = board(grid(), baselines=RANDOM)
    assert "python -m bench run --methods hello,rded --ipc 1,10,50 --dataset digits" in text
    assert "--students convnet3 --seeds 0,1,2 --protocol official" in text


def test_hostile_names_break_nothing() -> None:
    evil = "a|b`c\n<script>*d*</script>[x](y)\u202e\\"
    names = dict.fromkeys(("method", "labels", "title", "dataset", "protocol"), evil)
    done = entry(**names, environment={evil: evil})
    files = render([done, entry(**names, seed=1, state="failed", reason=evil)], titles={evil: evil})
    (markdown,) = (text for name, text in files.items() if name.endswith(".md"))
    assert {len(row) for row in tables(markdown)[0]} == {11}
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    assert "<script" not in page and "<em>d" not in page and "<a " not in page and "\u202e" not in page
    assert page.count("<th ") == page.count("<td ") == 11
    assert all(name.isascii() and "/" not in name and not name.startswith(".") for name in files)


@pytest.mark.parametrize(
    "text", ["a|b", "_x_ ~~y~~ random_real", "1 < 2 & 3 > 2", "`z` **b** [l](u) \\", "$a$ # !", "![i](u)"]
)
def test_escaped_text_shows_itself(text: str) -> None:
    shown = MarkdownIt("commonmark").enable("strikethrough").renderInline(wording.escape(text))
    assert html.unescape(shown) == text


# -- wording


def test_sizes_and_ratios() -> None:
    sizes = {0: "0 B", 1023: "1,023 B", 1024: "1.0 KiB", 1_048_064: "1.0 MiB", 600_000_000: "572 MiB"}
    assert {count: wording.size(count) for count in sizes} == sizes
    # HeLlO's 572 MB and 110 GB (arXiv 2408.08201) are epochs · images · classes · 2 in binary units.
    assert wording.size(300 * 200_000 * 1000 * 2) == "112 GiB"
    ratios = {0.0: "0", 5.4e-5: "5.4e-5", 0.00543: "5.4e-3", 0.068: "0.068", 0.5: "0.50", 733.3: "733"}
    assert {value: wording.ratio(value) for value in ratios} == ratios
    assert [wording.letter(index) for index in (0, 25, 26, 52)] == ["a", "z", "aa", "ba"]


# -- CSV, records and files


def test_csv_keeps_integers_and_precision() -> None:
    entries = three((0.88, 0.90, 0.92), public=(ICON_CLIP,))
    entries[0] = entries[0].model_copy(update={"image_bytes": 2002})
    entries += [entry(method="full_data", labels="hard", ipc=None, state="failed", reason="no", seed=0)]
    first, last = csv.DictReader(io.StringIO(render_csv(make_rows(entries))))
    assert (first["n"], first["n_expected"], first["states"]) == ("3", "3", "done=3")
    assert float(first["top1_ci95"]) == pytest.approx(4.302653 * 0.02 / 3**0.5, rel=1e-6)
    assert (first["image_bytes"], first["label_bytes"], first["public_bytes"]) == ("2001", "40000", "9712345")
    assert (first["public_names"], first["full_label_bytes"]) == ("icon-clip", "600000")
    assert float(first["label_ratio"]) == pytest.approx(1 / 15)
    assert (first["seconds_teacher"], first["seconds_distill"], first["seconds_total"]) == ("20", "", "25.5")
    assert (last["ipc"], last["states"], last["top1_mean"], last["image_bytes"]) == ("", "failed=1", "", "")
    (third,) = csv.DictReader(io.StringIO(render_csv(make_rows([entry(method="a,b", top1=1 / 3)]))))
    assert (third["method"], third["top1_mean"]) == ("a,b", "0.333333333")


def test_a_store_gives_an_entry_for_every_student(tmp_path: Path) -> None:
    """Seconds are those of all cells behind it, by stage; a failure is told of what stands on the failed cell too."""
    store = Store(tmp_path)
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0, 1), baselines=False))
    manifest.keep(store, grid)
    result = {"top1": 0.5, "oracle_top1": 0.6, "image_bytes": 10, "label_bytes": 20, "epochs": 3, "images": 10}
    failed = next(cell for cell in grid.stage("distill") if cell.fields["seed"] == 1)
    for seconds, cell in enumerate(grid.cells, start=1):
        run = RunFacts(started="", seconds=seconds, peak_memory=1, environment={"cpu": "made up"})
        if cell == failed:
            store.fail(Record(id=cell.id, cell=cell, state="failed", run=run, error="ValueError: no"))
        elif failed.id not in cell.parents.values():
            with store.draft(cell.id) as draft:
                store.commit(draft, Record(id=cell.id, cell=cell, state="done", result=result, run=run))
    done, other = sorted(collect(store), key=lambda entry: entry.seed)
    assert (done.state, done.top1, done.full_label_bytes) == ("done", 0.5, 3 * 10 * 10 * 2)
    # the cells in their order: teacher, scores of two seeds, images of two, labels, students
    assert done.seconds == {"teacher": 1.0, "prepare": 2.0, "distill": 4.0, "label": 6.0, "evaluate": 7.0}
    assert (other.state, other.reason) == ("failed", f"{failed.id}: ValueError: no")


def test_the_same_entries_are_the_same_bytes_in_any_order() -> None:
    failed = entry(method="sre2l", state="failed", reason="no")
    entries = [*grid(), failed, entry(method="sre2l", seed=1, state="missing")]
    expected = render(entries, baselines=RANDOM)
    for seed in range(5):
        shuffled = entries + entries[:7]  # repeats count once
        random.Random(seed).shuffle(shuffled)
        assert render(shuffled, baselines=RANDOM) == expected


def test_two_cells_for_one_seed_are_refused() -> None:
    with pytest.raises(UserError, match="both stand for seed 0 of hello"):
        make_rows([entry(cell="one"), entry(cell="two")])


def test_a_done_entry_needs_a_number_that_is_one() -> None:
    for top1 in (None, float("nan"), 90.0):
        with pytest.raises(ValidationError):
            entry(top1=top1)


def test_entries_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "digits.records.jsonl"
    entries = [*grid(), entry(method="sre2l", state="missing")]
    write_jsonl(path, reversed(entries))
    assert path.read_text() == render_jsonl(entries)
    assert render(read_jsonl(path)) == render(entries)


def test_a_bad_entry_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "digits.records.jsonl"
    path.write_text(render_jsonl([entry()]) + '{"cell": 3}\n')
    with pytest.raises(UserError, match=r"digits\.records\.jsonl:2: cell"):
        read_jsonl(path)
    with pytest.raises(UserError, match="can't be read"):
        read_jsonl(tmp_path / "nothing")


def test_publish_writes_three_files_a_data_set_and_nothing_else(tmp_path: Path) -> None:
    entries = grid() + three((0.5, 0.5, 0.5), dataset="folder:/home/me/birds")
    paths = publish(entries, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
    assert [path.name for path in paths[:3]] == ["digits.md", "digits.csv", "digits.records.jsonl"]
    assert drift(entries, tmp_path / "out") == []


def test_publish_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        publish([entry()], tmp_path / "file")


def test_drift_names_the_file_and_the_line(tmp_path: Path) -> None:
    entries = three((0.88, 0.90, 0.92))
    markdown, table, records = publish(entries, tmp_path)
    table.write_text(table.read_text().replace("0.9,", "0.91,"))
    records.write_text(records.read_text() + "\n")
    markdown.unlink()
    found = drift(entries, tmp_path)
    assert [line.split(": ")[0] for line in found] == [str(markdown), f"{table}:2", f"{records}:5"]
    assert "0.91," in found[1]
    assert found[2].endswith("goes on too long")


def test_file_names_stay_apart() -> None:
    assert file_stem("tiny-imagenet") == "tiny-imagenet"
    assert file_stem("folder:/a/b") != file_stem("folder:/a-b")
    assert file_stem("../..").isalnum()


def test_entries_import_without_tables_or_torch() -> None:
    program = "import sys, bench.harness.report.entries; print({'tabulate', 'scipy', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"
