"""Boards: the numbers on them, what they must never hide or mix, and that they are always the same bytes."""

from __future__ import annotations

import argparse
import csv
import html
import io
import json
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from pydantic import ValidationError

from bench.cli import main
from bench.errors import UserError
from bench.planning import manifest
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan
from bench.report_legacy import wording
from bench.report_legacy.board import Row, make_rows
from bench.report_legacy.collect import collect
from bench.report_legacy.command import command
from bench.report_legacy.csv_table import render_csv
from bench.report_legacy.entries import Entry, read_jsonl, render_jsonl
from bench.report_legacy.markdown import render_markdown
from bench.report_legacy.publish import drift, publish, render
from bench.report_legacy.scores import score
from bench.report_legacy.stems import file_stem
from bench.report_legacy.winners import ALL, hypervolumes, winners
from bench.store import upgrades
from bench.store.artifacts import Store
from bench.store.cell import Cell
from bench.store.record import Record, RunFacts

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
    rows = make_rows(entries)
    return render_markdown("Digits", rows, score(rows), **options)


def table_csv(entries: list[Entry]) -> list[dict[str, str]]:
    rows = make_rows(entries)
    return list(csv.DictReader(io.StringIO(render_csv(rows, score(rows)))))


def main_tables(text: str) -> list[list[list[str]]]:
    """Those of one IPC each, without what is folded away behind them."""
    return [table for table in tables(text) if "n" in table[0]]


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


# -- the table


def test_a_row_shows_what_was_measured() -> None:
    text = board(three((0.88, 0.90, 0.92), public=(ICON_CLIP,)))
    _, _, (header, rule, row), (more, _, details) = tables(text)
    assert dict(zip(header, row, strict=True)) == {
        "Method": "hello",
        "Labels": "projector (a)",
        "n": "3",
        "Top-1 %": "**90.0 ± 2.0**",
        "95 % CI": "±5.0",
        "Label bytes": "39.1 KiB + 9.3 MiB",
        "Front": "●",
    }
    assert [cell.strip("-") for cell in rule] == [":"] * len(header)
    assert [cell.endswith(":") for cell in rule] == [False, False] + [True] * 5
    assert dict(zip(more, details, strict=True)) == {
        "Method": "hello",
        "Labels": "projector (a)",
        "p": "1",
        "Oracle %": "92.0",
        "Images": "2.0 KiB",
        "Label ratio": "0.067",  # 40,000 / (300 · 100 · 10 · 2)
        "Seconds": "26",
    }


def test_one_seed_has_neither_deviation_nor_interval() -> None:
    row = main_tables(board([entry(top1=0.625)]))[0][2]
    assert row[2:5] == ["1", "**62.5**", "—"]


def test_numbers_keep_their_trailing_zero() -> None:
    assert "62.0 ± 0.0" in board(three((0.62, 0.62, 0.62))).replace(wording.JOINED, " ")


def test_best_comes_first_and_full_data_closes_every_table() -> None:
    text = board(grid(), titles={"hello": "HeLlO", "full_data": "Full data"}, baselines=RANDOM)
    for table in main_tables(text):
        methods = [row[0] for row in table[2:]]
        assert methods == ["HeLlO", "rded", "*random_real*", "Full data (ref.)"]
        # 0.5, 0.61 and 0.52 are told from 0.9, 0.91 and 0.92: t = 14.4, so p = 0.005 · 2
        assert [row[3].startswith("**") for row in table[2:]] == [True, False, False, False]
        assert table[-1][-1] == ""  # full data is no rival on the front


def test_what_cannot_be_told_from_the_best_is_bold_too() -> None:
    entries = three((0.90, 0.91, 0.92)) + three((0.90, 0.91, 0.90), method="rded") + three((0.5,) * 3, method="sre2l")
    text = board(entries)
    assert [row[3].startswith("**") for row in main_tables(text)[0][2:]] == [True, True, False]
    assert "From 3 sets 1 of the 2 other rows can't be told from the best (bold)." in text
    alone = board([entry(top1=0.9), entry(method="rded", top1=0.899), entry(method="sre2l", top1=0.9)])
    assert [row[3].startswith("**") for row in main_tables(alone)[0][2:]] == [True, True, False]
    assert "One set a row tells nothing apart" in alone and tables(alone)[0][2][4] == "—"


def test_dominated_rows_are_marked() -> None:
    entries = three((0.9,) * 3) + three((0.8,) * 3, method="rded", label_bytes=100)
    entries += three((0.7,) * 3, method="sre2l", label_bytes=100) + three(
        (0.9,) * 3, method="g_vbsm", label_bytes=50_000
    )
    marks = {row[0]: row[-1] for row in main_tables(board(entries))[0][2:]}
    assert marks == {"hello": "●", "rded": "●", "sre2l": "○", "g_vbsm": "○"}


def test_students_have_tables_of_their_own() -> None:
    entries = three((0.7, 0.7, 0.7)) + three((0.6, 0.6, 0.6), method="rded")
    entries += three((0.8, 0.8, 0.8), student="resnet18")
    entries += three((0.9, 0.9, 0.9), student="resnet18", method="rded")
    text = board(entries)
    one, other = main_tables(text)
    assert [(row[0], row[3].startswith("**")) for row in one[2:]] == [("hello", True), ("rded", False)]
    assert [(row[0], row[3].startswith("**")) for row in other[2:]] == [("rded", True), ("hello", False)]
    assert text.index("### 10 images per class, student convnet3") < text.index(
        "### 10 images per class, student resnet18"
    )


def test_protocols_and_their_versions_never_share_a_table() -> None:
    entries = three((0.9, 0.9, 0.9)) + three((0.5, 0.5, 0.5), protocol="official")
    entries += three((0.1, 0.1, 0.1), protocol_version=2, cell="x")[:1]
    text = board(entries)
    assert [len(table) for table in main_tables(text)] == [3, 3, 3]
    for protocol in ("common, version 1", "common, version 2", "official, version 1"):
        assert f"## Protocol {protocol}\n" in text


def test_full_data_alone_is_a_table_of_its_own() -> None:
    text = board(three((0.9, 0.9, 0.9), method="full_data", labels="hard", ipc=None))
    assert "### Full data" in text
    assert main_tables(text)[0][2][0] == "full_data (ref.)"
    assert "Who wins" not in text


def test_missing_and_failed_cells_are_seen() -> None:
    entries = [
        *three((0.9, 0.9, 0.9))[:2],
        entry(seed=2, state="failed", reason="out of memory\nat step 3", cell="broken-cell"),
        *(entry(method="rded", seed=seed, state="missing") for seed in range(3)),
        *(entry(method="sre2l", seed=seed, state="failed", reason="loss is NaN") for seed in range(3)),
    ]
    text = board(entries)
    rows = {row[0]: row for row in main_tables(text)[0][2:]}
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
    assert [(row[1], row[5]) for row in main_tables(text)[0][2:]] == [
        ("projector (a)", "39.1 KiB + 9.3 MiB"),
        ("projector (a,b)", "39.1 KiB + 155 MiB"),
    ]


def test_settings_move_to_a_footnote() -> None:
    entries = three((0.9,) * 3, method="hello[conv_rank=4,clip=RN50:openai]") + three((0.8,) * 3, method="rded[pool=9]")
    text = board(entries + three((0.7,) * 3, method="rded"), titles={"hello": "HeLlO"})
    assert [row[0] for row in main_tables(text)[0][2:]] == ["HeLlO \\[A\\]", "rded \\[B\\]", "rded"]
    assert "- \\[A\\] `conv_rank=4,clip=RN50:openai`\n- \\[B\\] `pool=9`" in text


# -- several students a set


def crossed(values: dict[tuple[int, int], float], **facts: Any) -> list[Entry]:
    """(distillation seed, student seed) -> top-1."""
    return [
        entry(seed=seed, student_seed=k, top1=value, cell=f"{facts.get('method', 'hello')}-{seed}-{k}", **facts)
        for (seed, k), value in values.items()
    ]


def test_students_and_sets_are_counted_and_spread_apart() -> None:
    values = {(0, 0): 0.90, (0, 1): 0.92, (1, 0): 0.94, (1, 1): 0.96, (2, 0): 0.86, (2, 1): 0.88}  # means 91, 95, 87
    text = board(crossed(values))
    _, _, (header, _, row), (more, _, details) = tables(text)
    shown = dict(zip(header, row, strict=True)) | dict(zip(more, details, strict=True))
    assert (shown["n"], shown["Top-1 %"]) == ("3 × 2", "**91.0 ± 4.0**")
    assert shown["95 % CI"] == "±9.9"  # 4.302653 · 4 / √3: three sets, not six students
    # MSW = 3 · 2 / 3 = 2, MSB = 2 · 32 / 2 = 32: √((32 - 2) / 2) = 3.87 and √2
    assert shown["σ sets, students"] == "3.9, 1.4"
    (line,) = table_csv(crossed(values))
    assert (line["n"], line["n_expected"], line["students"]) == ("3", "3", "6")
    assert float(line["top1_std_students"]) == pytest.approx(0.02 / 2**0.5)


def test_unequal_students_are_said() -> None:
    rows = main_tables(board(crossed({(0, 0): 0.9, (0, 1): 0.92, (1, 0): 0.94})))
    assert rows[0][2][2] == "2 × 1–2"
    assert "σ sets, students" not in tables(board(three((0.9, 0.91, 0.92))))[3][0]


# -- who wins


def test_who_wins_at_which_budget() -> None:
    entries = three((0.5,) * 3, method="rded", labels="hard", label_bytes=0)
    entries += three((0.6,) * 3, method="random_real", labels="hard", label_bytes=0)
    entries += three((0.7,) * 3, method="hello", label_bytes=300_000)
    entries += three((0.9,) * 3, method="random_real", labels="teacher", label_bytes=2_000_000)
    found = [
        (one.least, one.most, one.row.method, one.distilled and one.distilled.method)
        for one in winners(make_rows(entries), RANDOM)
    ]
    assert found == [
        (0, 100 * 1024, "random_real", "rded"),
        (1 << 20, 1 << 20, "hello", "hello"),
        (10 << 20, None, "random_real", "hello"),
    ]
    first = tables(board(entries, baselines=RANDOM))[0]
    assert [row[:3] for row in first[2:]] == [
        ["10", "0 B to 100 KiB", "*random_real*, hard"],
        ["", "1 MiB", "hello, projector"],
        ["", "10 MiB or more", "*random_real*, teacher"],
    ]
    assert [row[5] for row in first[2:]] == ["rded, hard: 50.0 ± 0.0", "the same", "hello, projector: 70.0 ± 0.0"]


def test_labels_of_any_weight_find_their_budget() -> None:
    (one,) = winners(make_rows([entry(label_bytes=1_285 << 30)]), RANDOM)  # ImageNet-21K's, IPC 20
    assert (one.row.label_bytes, one.most) == (1_285 << 30, None)


def test_hypervolumes_count_what_a_method_needs_no_labels_for() -> None:
    shared = {"images": "rded-images"}
    entries = [entry(method="rded", labels="hard", label_bytes=0, top1=0.4, parents=shared)]
    entries += [entry(method="hello", label_bytes=1 << 10, top1=0.8, parents={**shared, "labels": "x"})]
    entries += [entry(method="sre2l", label_bytes=1 << 20, top1=0.9, parents={"images": "others"})]
    budget, found = hypervolumes(make_rows(entries))
    assert budget == 1 << 20
    # HeLlO: 0.4 for ten doublings, then 0.8 for ten more
    assert found == {
        ALL: {10: pytest.approx(0.6)},
        "hello": {10: pytest.approx(0.6)},
        "rded": {10: pytest.approx(0.4)},
        "sre2l": {10: 0.0},
    }


# -- DD-Ranking's scores


def scored(**changed: Any) -> list[Entry]:
    images = {"images": "hello-images"}
    return [
        entry(top1=0.8, parents={**images, "labels": "p"}, **changed),
        entry(method="hello", labels="hard", top1=0.5, parents=images, **changed),
        entry(method="random_real", top1=0.7, parents={"images": "random", "labels": "p"}, **changed),
        entry(method="full_data", labels="hard", ipc=None, top1=0.9, **changed),
    ]


def row_of(rows: list[Row], method: str, labels: str, protocol: str = "common") -> Row:
    return next(row for row in rows if (row.method, row.labels, row.protocol) == (method, labels, protocol))


def test_scores_come_from_the_rows_they_need() -> None:
    rows = make_rows(scored())
    found = score(rows)[row_of(rows, "hello", "projector").key]
    assert (found.hlr, found.ior) == (pytest.approx(0.4), pytest.approx(0.1))
    assert found.lrs == pytest.approx(0.209679, abs=1e-6)
    assert found.ars is None
    assert "0.210" in board(scored()) and "LRS" in tables(board(scored()))[3][0]
    assert "LRS" not in tables(board(three((0.9,) * 3)))[3][0]


@pytest.mark.parametrize("absent", [("hello", "hard"), ("random_real", "projector"), ("full_data", "hard")])
def test_no_score_without_the_runs_behind_it(absent: tuple[str, str]) -> None:
    rows = make_rows(one for one in scored() if (one.method, one.labels) != absent)
    assert score(rows)[row_of(rows, "hello", "projector").key].lrs is None


def test_random_images_under_other_labels_of_the_same_name_do_not_count() -> None:
    entries = scored()
    entries[2] = entries[2].model_copy(
        update={"parents": {"images": "random", "labels": "q"}, "changed": {"set": ["hello.conv_rank=4"]}}
    )
    rows = make_rows(entries)
    assert score(rows)[row_of(rows, "hello", "projector").key].ior is None


def test_augmentation_robustness_takes_the_same_recipe_without_augmentation() -> None:
    plain = [
        one.model_copy(update={"top1": value})
        for one, value in zip(scored(protocol="plain", recipe="r", augmented=False), (0.7, 0.5, 0.4, 0.9), strict=True)
    ]
    rows = make_rows([*scored(recipe="r"), *plain])
    found = score(rows)
    assert found[row_of(rows, "hello", "projector").key].ars == pytest.approx(0.363140, abs=1e-6)
    assert found[row_of(rows, "hello", "projector", "plain").key].ars is None
    rows = make_rows([*scored(recipe="other"), *plain])
    assert score(rows)[row_of(rows, "hello", "projector").key].ars is None


# -- commands


def test_the_command_makes_the_grid_again() -> None:
    text = board(grid(), baselines=RANDOM)
    assert "python -m bench run --methods hello,rded --ipc 1,10,50 --dataset digits" in text
    assert "--students convnet3 --seeds 0,1,2" in text.replace(" \\\n   ", "")
    assert "--protocol official" in text


def said(entries: list[Entry]) -> list[str]:
    return [line.strip() for line in command(make_rows(entries), RANDOM).replace(" \\\n   ", "").split("\n")]


def test_a_command_says_all_that_was_asked_for() -> None:
    changed = {"set": ["hello.conv_rank=4", "teacher.arch=it's"], "clip": "RN50:openai", "teacher": "r18.pth"}
    entries = crossed({(0, 3): 0.9, (1, 3): 0.8}, changed=changed, asked="stored:topk10", via="hello")
    assert said(entries) == [
        "python -m bench run --methods hello --ipc 10 --dataset digits --students convnet3 --seeds 0,1 "
        "--student-seeds 3 --protocol common --labels stored:topk10 --set hello.conv_rank=4 "
        "--set 'teacher.arch=it'\"'\"'s' --clip RN50:openai --teacher r18.pth --no-baselines"
    ]


def test_other_settings_take_a_command_of_their_own() -> None:
    entries = [entry(via="hello"), entry(method="hello[conv_rank=4]", changed={"set": ["hello.conv_rank=4"]})]
    plain, other = said(entries)
    assert "--set" not in plain and "--set hello.conv_rank=4" in other


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
    rides = facts.get("ipc", 10) is None or (facts.get("method") == "random_real" and "via" in facts)
    assert ("--no-baselines" not in line) == rides


def test_the_command_of_a_row_plans_its_cells(tmp_path: Path) -> None:
    """What is read off a row is parsed as a person's own command is, and holds every cell of that row."""
    from bench.cli import options
    from bench.cli.run import arguments

    store = Store(tmp_path)
    request = Request(
        methods=("sre2l", "hello"),
        ipc=(1,),
        seeds=(0, 1),
        student_seeds=(1, 2),
        labels=("native", "stored:topk4", "teacher:int8"),
        overrides={"hello": {"conv_rank": 4}, "teacher": {"epochs": 7}},
    )
    manifest.keep(store, plan(request))
    rows = make_rows(collect(store))
    assert len(rows) > 15
    for row in rows:
        parser = argparse.ArgumentParser()
        arguments(parser)
        asked = parser.parse_args(shlex.split(command([row], (*RANDOM, "full_data")).replace("\\\n", ""))[4:])
        again = plan(options.request(asked))
        assert {one.cell for one in row.entries} <= {cell.id for cell in again.cells}, command([row])


def test_what_is_measured_has_its_name() -> None:
    """Of another metric than top-1 neither headings nor notes say top-1."""
    usual, masks = ([entry(metric=metric)] for metric in ("top-1", "mean IoU"))
    text = board(usual)
    assert "Top-1 %" in text and "IoU" not in text and "- **Top-1 %**: accuracy on the whole test set" in text
    text = board(masks)
    assert "top-1" not in text.lower() and "- **Mean IoU %**: intersection over union" in text
    assert [line for line in text.splitlines() if line.startswith("| Method") and "Mean IoU %" in line]
    assert "the mean of the best mean IoU % that a budget affords" in text
    both = [entry(protocol="a"), entry(protocol="b", metric="mean\nof |x|")]
    assert "- **Mean of \\|x\\| %**: mean of \\|x\\|; mean" in board(both)


# -- hostile text


HOSTILE = [
    "a|b`c\n<script>*d*</script>[x](y)\u202e\\",
    "=cmd|' /C calc'!A0",
    "@" + "x" * 300,
    "+1\t-2\r\n",
    "<img src=x onerror=alert(1)>" * 12,
    "\u2067\u05d0\u05d1\u2069 " * 40,
    "``` </details> ```",
]


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_names_break_nothing(evil: str) -> None:
    names = dict.fromkeys(("method", "labels", "title", "dataset", "protocol", "student", "asked", "via"), evil)
    changed = {"set": [evil], "clip": evil, "teacher": evil}
    done = entry(**names, environment={evil: evil}, changed=changed, damaged=(evil,))
    others = [entry(**names, seed=1, state="failed", reason=evil), entry(**{**names, "method": f"a[{evil}]"})]
    files = render([done, *others], titles={evil: evil})
    (markdown,) = (text for name, text in files.items() if name.endswith(".md"))
    assert [{len(row) for row in table} for table in tables(markdown)] == [{6}, {2}, {7}, {7}]
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    assert "<script" not in page and "<img" not in page and "<em>d" not in page and "<a " not in page
    assert not {"\u202e", "\u2067", "\u2069"} & set(page)
    assert (page.count("<th "), page.count("<details>"), page.count("</details>")) == (6 + 2 + 7 + 7, 1, 1)
    words = [word for cell in re.findall(r"<td[^>]*>(.*?)</td>", page) for word in re.split(r"<[^>]*>|\s", cell)]
    assert max(len(html.unescape(word)) for word in words) <= 24  # so that a table is never wider than a page
    cells = [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page)]
    assert max(map(len, cells)) <= 2 * wording.LONGEST + 10  # nor taller than one
    assert all(name.isascii() and "/" not in name and not name.startswith(".") for name in files)


@pytest.mark.parametrize("evil", HOSTILE)
def test_no_cell_of_a_csv_is_a_formula_or_two_lines(evil: str) -> None:
    entries = [entry(method=evil, labels=evil, public=({"name": evil, "sha256": "a" * 64, "bytes": 1},))]
    rows = make_rows(entries)
    text = render_csv(rows, score(rows))
    assert len(text.splitlines()) == 2
    for cell in next(csv.reader(io.StringIO(text.splitlines()[1]))):
        assert not cell.startswith(("=", "+", "-", "@", "\t"))


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
    first, last = table_csv(entries)
    assert (first["n"], first["n_expected"], first["states"]) == ("3", "3", "done=3")
    assert float(first["top1_ci95"]) == pytest.approx(4.302653 * 0.02 / 3**0.5, rel=1e-6)
    assert (first["image_bytes"], first["label_bytes"], first["public_bytes"]) == ("2001", "40000", "9712345")
    assert (first["public_names"], first["full_label_bytes"]) == ("icon-clip", "600000")
    assert float(first["label_ratio"]) == pytest.approx(1 / 15)
    assert (first["seconds_teacher"], first["seconds_distill"], first["seconds_total"]) == ("20", "", "25.5")
    assert (last["ipc"], last["states"], last["top1_mean"], last["image_bytes"]) == ("", "failed=1", "", "")
    (third,) = table_csv([entry(method="a,b", top1=1 / 3)])
    assert (third["method"], third["top1_mean"]) == ("a,b", "0.333333333")


RESULT = {
    "top1": 0.5,
    "oracle_top1": 0.6,
    "image_bytes": 10,
    "label_bytes": 20,
    "epochs": 3,
    "images": 10,
    "curve": [[1, 0.6], [3, 0.5]],
}


def filled(root: Path, grid: Grid, fails: Cell | None = None) -> Store:
    """A store in which every cell of a grid is done, but one that failed and what stands on it."""
    store = Store(root)
    manifest.keep(store, grid)
    for seconds, cell in enumerate(grid.cells, start=1):
        run = RunFacts(started="", seconds=seconds, peak_memory=1 << 30, environment={"cpu": "made up"})
        if cell == fails:
            store.fail(Record(id=cell.id, cell=cell, state="failed", run=run, error="ValueError: no"))
        elif fails is None or fails.id not in cell.parents.values():
            with store.draft(cell.id) as draft:
                store.commit(draft, Record(id=cell.id, cell=cell, state="done", result=RESULT, run=run))
    return store


def test_a_store_gives_an_entry_for_every_student(tmp_path: Path) -> None:
    """Seconds are those of all cells behind it, by stage; a failure is told of what stands on the failed cell too."""
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0, 1), baselines=False))
    failed = next(cell for cell in grid.stage("distill") if cell.fields["seed"] == 1)
    done, other = sorted(collect(filled(tmp_path, grid, failed)), key=lambda entry: entry.seed)
    assert (done.state, done.top1, done.full_label_bytes) == ("done", 0.5, 3 * 10 * 10 * 2)
    assert (done.curve, done.epochs, done.images) == (((1, 0.6), (3, 0.5)), 3, 10)
    assert (done.peak_memory, done.via, done.changed, done.augmented) == (1 << 30, "rded", {}, True)
    assert done.parents == grid.stage("evaluate")[0].parents
    # the cells in their order: teacher, scores of two seeds, images of two, labels, students
    assert done.seconds == {"teacher": 1.0, "prepare": 2.0, "distill": 4.0, "label": 6.0, "evaluate": 7.0}
    assert (other.state, other.reason) == ("failed", f"{failed.id}: ValueError: no")


def test_what_was_asked_beyond_the_names_is_kept_where_it_matters(tmp_path: Path) -> None:
    checkpoint = tmp_path / "r18.pth"
    checkpoint.write_bytes(b"weights")
    request = Request(
        methods=("hello", "rded"),
        ipc=(1,),
        seeds=(0,),
        clip="RN50:openai",
        teacher=checkpoint,
        overrides={"hello": {"conv_rank": 4}, "teacher": {"accuracy": 0.5}},
    )
    changed = {(one.method, one.via): one.changed for one in collect(filled(tmp_path / "store", plan(request)))}
    usual = {"clip": "RN50:openai", "teacher": "r18.pth"}  # where the file lay says nothing elsewhere
    for (method, via), found in changed.items():
        settings = ["hello.conv_rank=4", "teacher.accuracy=0.5"] if via == "hello" else ["teacher.accuracy=0.5"]
        assert found == ({} if method == "full_data" else {**usual, "set": settings})


def test_student_seeds_stand_beside_those_of_distillation(tmp_path: Path) -> None:
    """A grid with student seeds and one without share the cells that both ask for, and fill the same rows."""
    usual: dict[str, Any] = {"methods": ("rded",), "ipc": (1,), "seeds": (0, 1)}
    store = filled(tmp_path, plan(Request(**usual)))
    again = plan(Request(**usual, student_seeds=(0, 5)))
    manifest.keep(store, again)
    entries = collect(store)
    seeds = sorted(one.seeds for one in entries if (one.method, one.labels) == ("rded", "teacher"))
    assert seeds == [(0, 0), (0, 5), (1, 0), (1, 1), (1, 5)]
    assert {one.seeds for one in entries if one.state == "done" and one.method == "rded"} == {(0, 0), (1, 1)}
    assert [row.done for row in make_rows(entries) if row.method == "rded"] == [2, 2]


def test_the_same_recipe_without_augmentation_is_known_as_such(tmp_path: Path) -> None:
    text = Path("evaluators/protocols/common-digits-cpu.toml").read_text()
    plain = tmp_path / "plain.toml"
    plain.write_text(
        text.replace('"common-digits-cpu"', '"plain"')
        .replace('crop = "rrc"', 'crop = "none"\nflip = false')
        .replace('mix = "cutmix"', 'mix = "none"')
    )
    other = tmp_path / "other.toml"
    other.write_text(plain.read_text().replace('"plain"', '"other"').replace("lr = 2e-3", "lr = 1e-3"))
    request = Request(
        methods=("rded",), ipc=(1,), seeds=(0,), baselines=False, protocols=("common", str(plain), str(other))
    )
    found = {one.protocol: one for one in collect(filled(tmp_path / "store", plan(request)))}
    assert [found[name].augmented for name in ("common-digits-cpu", "plain", "other")] == [True, False, False]
    assert found["plain"].recipe == found["common-digits-cpu"].recipe != found["other"].recipe


def test_damaged_records_are_named_on_the_board_and_in_its_file(tmp_path: Path) -> None:
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0, 1), baselines=False))
    store = filled(tmp_path / "store", grid)
    torn, later = grid.stage("evaluate")[0], grid.stage("distill")[1]
    (store.folder(torn.id) / "record.json").write_text('{"schema_version": 1, "id":')
    record = store.folder(later.id) / "record.json"
    record.write_text(record.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    entries = collect(store)
    assert sorted(one.state for one in entries) == ["done", "missing"]
    files = publish(entries, tmp_path / "out")
    head = files[0].read_text().partition("## Who wins")[0]
    assert "Left out, because 2 records can't be read" in head
    assert f"cells/{torn.id}/record.json: " in head
    assert f"cells/{later.id}/record.json: schema version 7 is not known to this release, which writes 1" in head
    assert drift(read_jsonl(files[2]).entries, tmp_path / "out") == []  # without the store it says the same


def test_the_screen_names_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(grid(), tmp_path)
    records = tmp_path / "digits.records.jsonl"
    records.write_text(records.read_text() + "{torn [red]\u202e\n")
    assert main(["report", "--check", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "left out: {torn [red] (" in said and "drift: " in said and "\u202e" not in said


def test_a_damaged_failure_is_named(tmp_path: Path) -> None:
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0,), baselines=False))
    failed = grid.stage("evaluate")[0]
    store = filled(tmp_path, grid, failed)
    (store.root / "failures" / f"{failed.id}.json").write_text("{")
    (one,) = collect(store)
    assert (one.state, one.damaged) == ("missing", (f"failures/{failed.id}.json: it can't be read",))


def test_a_record_of_an_older_version_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up version -1 gave accuracies in percent; version 0 kept seconds apart from how a cell ran."""
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0,), baselines=False))
    store = filled(tmp_path, grid)
    (expected,) = collect(store)
    path = store.folder(grid.stage("evaluate")[0].id) / "record.json"
    old = json.loads(path.read_text())
    old["seconds"] = old["run"].pop("seconds")
    old["result"] = {**old["result"], "top1": 50.0}
    path.write_text(json.dumps(old | {"schema_version": -1}))
    assert "schema version -1 is not known" in collect(store)[0].damaged[0]

    def fraction(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "result": {**record["result"], "top1": record["result"]["top1"] / 100}}

    def timed(record: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in record.items() if key != "seconds"}
        return {**rest, "run": {**record["run"], "seconds": record["seconds"]}}

    monkeypatch.setitem(upgrades.RECORDS, -1, fraction)
    monkeypatch.setitem(upgrades.RECORDS, 0, timed)
    assert collect(store) == [expected]


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
    entries = [*grid(), entry(method="sre2l", state="missing")]
    entries += crossed(
        {(0, 0): 0.9, (0, 1): 0.8}, dataset="other", curve=((1, 0.5), (2, 0.8)), changed={"set": ["a.b=1"]}
    )
    (tmp_path / "x.records.jsonl").write_text(render_jsonl(reversed(entries)))
    found = read_jsonl(tmp_path / "x.records.jsonl")
    assert found.left_out == []
    assert render(found.entries) == render(entries)
    with pytest.raises(UserError, match="can't be read"):
        read_jsonl(tmp_path / "nothing")


def test_lines_that_are_no_entries_are_kept_and_named_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "digits.records.jsonl"
    later = '{"schema_version":99,"cell":"from the future"}'
    bad = {later: "schema version 99", '{"cell": 3}': "cell: ", "{torn": "line 1", "[1]": "no JSON object"}
    lines = [*bad, *render_jsonl(three((0.9, 0.91, 0.92))).splitlines()]
    path.write_text("\n".join(lines))
    found = read_jsonl(path)
    assert len(found.entries) == 3
    assert {one.line for one in found.left_out} == set(bad)
    for one in found.left_out:
        assert bad[one.line] in one.why and "\n" not in str(one)
    files = render(found.entries, left_out={"digits": found.left_out})
    head = files["digits.md"].partition("## Who wins")[0]
    assert "Left out, because 4 records can't be read" in head
    assert "schema version 99 is not known" in head and "from the future" in head
    # written out and read again they are the same: nothing is lost, and a second report changes nothing
    path.write_text(files["digits.records.jsonl"])
    again = read_jsonl(path)
    assert later in files["digits.records.jsonl"]
    assert render(again.entries, left_out={"digits": again.left_out}) == files


def test_an_entry_of_an_older_version_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up version 0 called the method "algorithm" and gave accuracies in percent."""
    path = tmp_path / "digits.records.jsonl"
    old = json.loads(entry().line) | {"schema_version": 0, "algorithm": "hello", "top1": 90.0}
    del old["method"]
    path.write_text(json.dumps(old))
    assert "schema version 0 is not known" in str(read_jsonl(path).left_out[0])
    monkeypatch.setitem(
        upgrades.ENTRIES,
        0,
        lambda old: {
            **{key: value for key, value in old.items() if key != "algorithm"},
            "method": old["algorithm"],
            "top1": old["top1"] / 100,
        },
    )
    assert read_jsonl(path).entries == [entry()]


def test_entries_without_the_fields_of_later_releases_are_read(tmp_path: Path) -> None:
    path = tmp_path / "digits.records.jsonl"
    old = {key: value for key, value in json.loads(entry().line).items() if key != "schema_version"}
    path.write_text(json.dumps(old | {"reason": None, "asked": ""}))
    assert read_jsonl(path).entries == [entry()]


def test_publish_writes_board_figures_and_page_of_each_data_set_and_nothing_else(tmp_path: Path) -> None:
    entries = grid() + three((0.5, 0.5, 0.5), dataset="folder:/home/me/birds")
    paths = publish(entries, tmp_path / "out")
    assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == sorted(paths)
    assert {"digits.html", "accuracy-labels.svg", "accuracy-labels.png"} <= {path.name for path in paths}
    assert [path.name for path in paths[:3]] == ["digits.md", "digits.csv", "digits.records.jsonl"]
    assert drift(entries, tmp_path / "out") == []


def test_publish_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        publish([entry()], tmp_path / "file")


def test_drift_names_the_file_and_the_line(tmp_path: Path) -> None:
    entries = three((0.88, 0.90, 0.92))
    markdown, table, records, *beside = publish(entries, tmp_path)
    table.write_text(table.read_text().replace("0.9,", "0.91,"))
    records.write_text(records.read_text() + "\n")
    markdown.unlink()
    found = drift(entries, tmp_path)
    assert [line.split(": ")[0] for line in found] == [str(markdown), f"{table}:2", f"{records}:5"]
    assert "0.91," in found[1]
    assert found[2].endswith("goes on too long")
    publish(entries, tmp_path)
    page = next(path for path in beside if path.suffix == ".html")
    page.write_text(page.read_text().replace("90.0", "91.0"))
    assert drift(entries, tmp_path) == [f"{page}: the records give another"]
    figure = next(path for path in beside if path.suffix == ".svg")
    figure.unlink()
    assert drift(entries, tmp_path) == [f"{figure}: the records give another"]


def test_file_names_stay_apart() -> None:
    assert file_stem("tiny-imagenet") == "tiny-imagenet"
    assert file_stem("folder:/a/b") != file_stem("folder:/a-b")
    assert file_stem("../..").isalnum()


def test_entries_import_without_tables_or_torch() -> None:
    program = "import sys, bench.report_legacy.entries; print({'tabulate', 'scipy', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"
