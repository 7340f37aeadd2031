"""The papers' numbers: all of them, as printed, and beside the rows they belong to."""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from bench.api.stored.size import fkd_bytes
from bench.cli import parse
from bench.cli.published import commands, obstacle
from bench.cli.run import requests
from bench.planning.plan import plan
from bench.report.papers.published import (
    FILE,
    SETTING,
    beside,
    board_labels,
    load,
    numbers,
    render,
    texts,
)
from bench.report.results import to_frame
from bench.report.rows import pool, records
from bench.store.entries import Entry, in_order

MIB, GIB = 2**20, 2**30


def one(source: str, method: str, dataset: str, ipc: int, student: str = "resnet18", variant: str = "") -> Any:
    """What a source prints of a setting."""
    frame = load()
    place = (frame["source"] == source) & (frame["method"] == method) & (frame["dataset"] == dataset)
    (found,) = records(
        frame[place & (frame["ipc"] == ipc) & (frame["student"] == student) & (frame["variant"] == variant)]
    )
    return found


def entry(**facts: Any) -> Entry:
    usual: dict[str, Any] = {
        "dataset": "imagenet-1k", "title": "ImageNet-1K", "method": "rded", "labels": "teacher", "ipc": 10,
        "student": "resnet18", "protocol": "official-rded", "protocol_version": 1, "seed": 0, "state": "done",
        "top1": 0.425,
    }  # fmt: skip
    return Entry(**{"cell": str(sorted(map(str, facts.items()))), **usual, **facts})


def three(*top1: float, **facts: Any) -> list[Entry]:
    return [entry(seed=seed, top1=value, **facts) for seed, value in enumerate(top1)]


def rows_of(entries: list[Entry]) -> pd.DataFrame:
    return pool(to_frame(in_order(entries)))


def matched(entries: list[Entry]) -> list[Any]:
    """The published numbers that have a measured row beside them."""
    return [found for found in records(beside(load(), rows_of(entries))) if found.measured_protocol is not None]


# -- the file


def test_nothing_is_missing() -> None:
    """Of each source as many numbers as it prints; a table left out or a number lost shows here."""
    assert Counter(load()["source"]) == {
        "sre2l": 4 + 4 + 4 + 3 * 2,
        "sre2l-tiny": 3,
        "cda": 1 + 6,
        "g_vbsm": (2 + 3 + 3) + (4 + 6 + 6 + 3 + 6 + 3),
        # SRe2L: eight rows of three but for ImageNet-100, the R101 ones; RDED: 7 sets by 3 students and ImageNet-10
        "rded": (5 * 3 + 2 + 3 + 3 * 3 + 2 + 2) + (22 * 3) + 7,
        "hello": 6 + 3 + (6 + 1 + 6) + (6 + 1 + 6) + 5 + 2 + 1 + 2,  # hard against soft, a gain, Table 7
        "edc": 5 * 3 + 6,
        "cv-dd": 6 * 3,
        "delt": 4 + 3 + 5 * 3,
        "lpld": (5 + 2 + 2) * 2,
        "lpqld": 9,
    }
    assert len(load()) == 303 and (load()["where"] != "").all()


@pytest.mark.parametrize(
    ("source", "method", "dataset", "student", "wanted"),
    [
        ("sre2l", "sre2l", "imagenet-1k", "resnet18", "21.3±0.6 46.8±0.2 52.8±0.3 57.0"),
        ("sre2l", "sre2l", "tiny-imagenet", "resnet101-small", "42.5 51.5"),
        ("cda", "cda", "imagenet-1k", "resnet18", "33.6 53.5 58.0 63.3"),
        ("g_vbsm", "g_vbsm", "cifar100", "convnet3", "16.4 38.7 45.7"),
        ("g_vbsm", "g_vbsm", "imagenet-1k", "resnet18", "31.4±0.5 51.8±0.4 55.7"),
        ("g_vbsm", "sre2l", "imagenet-1k", "torchvision:swin_t", "39.23"),
        ("rded", "rded", "imagenet-1k", "resnet18", "6.6±0.2 42.0±0.1 56.5±0.1"),
        ("rded", "rded", "imagenet-1k", "convnet4, 64 pixels", "6.4 20.4 38.4"),
        ("rded", "rded", "imagenette", "convnet5", "33.8 63.2 83.8"),
        ("rded", "rded", "imagenet-10", "resnet18", "24.9 53.3 75.5"),
        ("rded", "sre2l", "imagenet-100", "resnet101", "6.4 25.7"),
        ("hello", "hello", "imagenet-1k", "resnet18", "12.9 43.7 52.2"),
        ("hello", "hello", "imagenet-100", "resnet18", "12.5 48.9 69.4 76.2±0.2"),
        ("hello", "rded", "imagenet-100", "resnet18", "8.1 36.0 61.6 75.9±0.1"),
        ("hello", "hello", "imagenet-1k", "vit_b_16", "23.3±0.3"),
        ("hello", "hello", "imagenet-1k", "swin_v2_t", "29.5±0.1"),
        ("hello", "rded", "imagenet-1k", "vit_b_16", "19.1±0.4"),
        ("hello", "rded", "imagenet-1k", "swin_v2_t", "17.8±0.1"),
        ("hello", "promptable_lora", "sa-1b", "sam", "50.75"),
        ("edc", "edc", "cifar10", "resnet18-small", "32.6 79.1 87.0"),
        ("cv-dd", "sre2l++", "imagenette", "resnet18", "29.7 62.4 80.3"),
        ("delt", "delt", "imagenet-100", "resnet18", "28.2 67.9 75.1"),
        ("lpld", "lpld", "imagenet-1k", "resnet18", "20.2 33.0 46.7 54.0 59.6"),
        ("lpld", "sre2l", "imagenet-1k", "resnet18", "20.1 33.6 46.8 52.8 57.0"),
    ],
)
def test_spot_values(source: str, method: str, dataset: str, student: str, wanted: str) -> None:
    frame = load()
    place = frame[["source", "method", "dataset", "student", "variant"]].apply(tuple, axis=1)
    found = frame[place == (source, method, dataset, student, "")].sort_values("ipc")
    assert found["printed"].tolist() == wanted.split()


def test_hello_loses_to_rded_at_50_images_per_class_and_its_ablation_climbs() -> None:
    assert one("hello", "hello", "imagenet-1k", 50).value == 52.2
    assert one("hello", "rded", "imagenet-1k", 50).value == 56.5
    frame = load()
    parts = (frame["method"] == "hello") & (frame["variant"] != "") & (frame["dataset"] == "imagenet-1k")
    assert frame.loc[parts, "value"].tolist() == [
        28.2, 30.1, 43.5, 43.6, 43.7,
    ]  # fmt: skip
    first = one("hello", "hello", "imagenet-1k", 1)
    assert (first.storage, first.teacher) == ("0.8 M parameters, 1e-4 × all labels", "nine weak ResNet-18")


def test_disagreeing_sources_are_all_kept() -> None:
    frame = load()
    setting = ["method", "variant", "dataset", "ipc", "student"]
    apart = frame[frame.groupby(setting)["value"].transform("nunique") > 1]
    assert apart.groupby(setting).ngroups == 14
    for (method, dataset, ipc, student), wanted in {
        ("sre2l", "imagenet-1k", 50, "resnet101"): {"sre2l": "60.8", "cda": "57.6", "rded": "60.8"},
        ("sre2l", "cifar100", 10, "resnet18-small"): {"g_vbsm": "31.6", "rded": "27.0"},
        ("rded", "imagenet-100", 100, "resnet18"): {"hello": "75.9±0.1", "delt": "74.5"},
        ("rded", "imagenet-1k", 10, "shufflenet_v2_x0_5"): {"rded": "19.4", "hello": "23.3"},
    }.items():
        place = (apart["method"] == method) & (apart["dataset"] == dataset) & (apart["ipc"] == ipc)
        found = apart[place & (apart["student"] == student)]
        assert dict(zip(found["source"], found["printed"], strict=True)) == wanted
    shown = set(numbers(frame)[[*setting, "value"]].apply(tuple, axis=1))
    assert set(frame[[*setting, "value"]].apply(tuple, axis=1)) == shown


def test_what_is_uncertain_says_so() -> None:
    frame = load()
    unchecked = frame[(frame["unchecked"] == 1) & (frame["source"] == "rded")]
    assert set(zip(unchecked["method"], unchecked["dataset"], strict=True)) == {
        ("sre2l", "cifar100"),
        ("sre2l", "imagewoof"),
    }
    delt = frame[(frame["source"] == "delt") & (frame["ipc"] == 10) & (frame["method"] != "delt")]
    assert (delt["unchecked"] == 1).all() and (delt["note"] != "").all()
    assert "| 6.6?" in render("cifar100", rows_of([])).replace("  ", "")


# -- label bytes


@pytest.mark.parametrize(
    ("source", "method", "dataset", "ipc", "wanted"),
    [
        ("hello", "sre2l", "imagenet-1k", 1, 580.1 * MIB),
        ("sre2l", "sre2l", "imagenet-1k", 10, 5.665 * GIB),
        ("sre2l", "sre2l", "imagenet-1k", 50, 28.326 * GIB),
        ("sre2l", "sre2l", "imagenet-1k", 100, 56.652 * GIB),
        ("sre2l", "sre2l", "imagenet-1k", 200, 113.303 * GIB),
        ("lpld", "lpld", "imagenet-1k", 200, 114.33 * GIB / 40),
        ("hello", "sre2l", "imagenet-100", 10, 71.8 * MIB),
        ("hello", "sre2l", "imagenet-100", 50, 359 * MIB),
        ("g_vbsm", "g_vbsm", "imagenet-1k", 10, 5.688 * GIB),
        ("hello", "rded", "imagenet-100", 100, 42.83 * MIB),
        ("rded", "rded", "imagenet-1k", 10, 4 * 11_689_512),
        ("hello", "hello", "imagenet-1k", 10, 4 * 816_856),
        ("hello", "hello", "imagenet-100", 10, 4 * 629_720),
    ],
)
def test_label_bytes(source: str, method: str, dataset: str, ipc: int, wanted: float) -> None:
    """Against sizes counted on SRe2L's files, LPLD's list, the 42.83 MB that HeLlO prints of RDED's teacher, and counts
    of parameters."""
    assert one(source, method, dataset, ipc).label_bytes == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("dataset", "ipc", "mib"), [("cifar100", 10, 266), ("cifar10", 10, 7.7), ("tiny-imagenet", 50, 439)]
)
def test_label_bytes_of_small_sets(dataset: str, ipc: int, mib: float) -> None:
    """G_VBSM's files: of many small ones the container, whose size depends on torch's version, is a good part."""
    found = one("g_vbsm", "g_vbsm", dataset, ipc, "resnet18-small").label_bytes
    assert found / MIB == pytest.approx(mib, rel=5e-3, abs=0.05)


def test_what_lpld_prints_is_what_we_compute() -> None:
    """To the digits it prints; its list of Tiny-ImageNet is a twentieth off."""
    frame = load()
    for found in records(frame[(frame["source"] == "lpld") & (frame["dataset"] != "imagenet-21k")]):
        rel = 6e-2 if found.dataset == "tiny-imagenet" else 2e-3 if found.method == "sre2l" else 3e-2
        assert found.label_bytes == pytest.approx(found.printed_bytes, rel=rel), found


def test_unknown_recipes_have_no_label_bytes() -> None:
    frame = load()
    unknown = frame[frame["method"].isin(("edc", "delt", "cda", "lpqld", "cv-dd", "sre2l++"))]
    assert len(unknown) and unknown["label_bytes"].isna().all()
    assert one("rded", "rded", "cifar10", 10, "convnet3").label_bytes is None  # whose teacher is unknown
    larger = one("hello", "hello", "imagenet-100", 100)  # whose ranks are unknown
    assert larger.label_bytes is None and larger.printed_bytes == round(10.20 * MIB)


@pytest.mark.parametrize(("teacher", "size"), [("resnet18", 224), ("resnet18-small", 32)])
def test_parameters_of_teachers(teacher: str, size: int) -> None:
    from bench.kit.models.classifier import build

    frame = load()
    taught = frame[(frame["teacher"] == teacher) & (frame["labels"] == "online") & frame["label_parameters"].notna()]
    assert len(taught) > 20
    for classes, parameters in taught[["classes", "label_parameters"]].drop_duplicates().itertuples(index=False):
        if int(classes) <= 100:
            model = build(teacher, int(classes), size, (0.5,) * 3, (0.5,) * 3)
            assert sum(weight.numel() for weight in model.parameters()) == int(parameters)


# -- beside what was measured


def test_a_measured_row_and_its_published_numbers() -> None:
    assert {found.printed: found.source for found in matched(three(0.42, 0.425, 0.43))} == {
        "42.0±0.1": ("rded", "hello"), "42.3": ("delt", "edc"),
    }  # fmt: skip
    for other in (
        {"ipc": 11}, {"student": "resnet50-small"}, {"dataset": "digits"}, {"method": "rded[pool=20]"},
        {"labels": "hard"}, {"labels": "teacher:int8"}, {"protocol": "official-hello"}, {"protocol": "common"},
        {"protocol": "official-rded[epochs=3]"}, {"state": "missing", "top1": None},
    ):  # fmt: skip
        assert matched([entry(**other)]) == [], other


def test_of_several_versions_the_newest_is_compared() -> None:
    found = matched([*three(0.42, 0.425, 0.43), entry(protocol_version=2, top1=0.3)])
    assert {found.measured_protocol_version for found in found} == {2}


def test_sre2l_on_tiny_is_compared_with_labels_given_online() -> None:
    facts = {"method": "sre2l", "dataset": "tiny-imagenet", "ipc": 50, "student": "resnet18-small"}
    facts |= {"protocol": "official-sre2l-tiny"}
    own = [("sre2l" in found.source) for found in matched([entry(**facts)])]
    assert any(own) and board_labels("sre2l", "online") == "teacher" and board_labels("edc", "online") is None
    frame = load()
    tiny = frame[(frame["method"] == "sre2l") & (frame["dataset"] == "tiny-imagenet") & (frame["ipc"] == 50)]
    assert commands(tiny)[0].endswith("--protocol official-sre2l-tiny --labels online")


def test_delta_in_points_with_its_interval() -> None:
    by_value = {found.value: found for found in matched(three(0.42, 0.425, 0.43))}
    # t(.975, 2) · .5 / √3 = 1.24
    assert texts(by_value[42.0])[2] == "+0.5 (−0.7 to +1.7)"
    assert texts(by_value[42.0])[1] == "42.5\u00a0±\u00a00.5 (3)"
    (single, *_) = (found for found in matched([entry(top1=0.41)]) if found.value == 42.0)
    assert texts(single)[1:3] == ("41.0 (1)", "−1.0")
    unknown = [found for found in records(beside(load(), rows_of(three(0.42, 0.425, 0.43)))) if found.delta is None]
    assert texts(unknown[0])[1:3] == ("—", "—")
    assert texts(by_value[42.0])[0] == "42.0\u00a0±\u00a00.1"


def test_what_the_benchmark_cannot_measure_says_why() -> None:
    reasons = [obstacle(found) for found in load().itertuples()]
    wanted = {"", "a changed method", "no plug-in edc", "no data set imagenet-10", "no student resnet101-small"}
    assert wanted < set(reasons) and reasons.count("") > 150


@pytest.mark.parametrize("command", commands(load()))
def test_every_command_is_one_that_is_planned(command: str, tmp_path: Path) -> None:
    """Disk and weights of CLIP, which a dry run asks of its machine, aside."""
    words = command.split()
    assert words[:4] == ["python", "-m", "bench", "run"]
    for request in requests(parse([*words[3:], "--store", str(tmp_path)])):
        assert plan(request).stage("evaluate")


def test_commands_ask_for_published_settings_alone() -> None:
    frame = load()
    measurable = frame[[not obstacle(found) for found in frame.itertuples()]]
    known = set(measurable[["method", "dataset", "runs_as", "ipc", "student"]].apply(tuple, axis=1))
    asked = set()
    for command in commands(frame):
        words = command.split()
        said = {words[at].removeprefix("--"): words[at + 1] for at in range(4, len(words), 2)}
        for ipc in said["ipc"].split(","):
            for student in said["students"].split(","):
                asked.add((said["methods"], said["dataset"], said["protocol"], int(ipc), student))
    assert asked == known


# -- the block on a board


def cells(text: str) -> list[list[str]]:
    """The table's cells as a reader sees them."""
    table: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            table.append([])
        elif token.type == "inline" and table:
            table[-1].append("".join(html.unescape(child.content) for child in token.children or ()))
    return table


@pytest.mark.parametrize("dataset", ["imagenet-1k", "imagenet-100", "tiny-imagenet", "cifar10", "imagenet-21k"])
def test_the_block_shows_every_number(dataset: str) -> None:
    frame, empty = load(), rows_of([])
    text = render(dataset, empty)
    table, own = cells(text), frame[frame["dataset"] == dataset]
    assert len(table) == 1 + len(numbers(own)) and {len(row) for row in table} == {7} and "†" in table[0][3]
    assert render(dataset, empty) == text and not any(
        "**" in line for line in text.splitlines() if line.startswith("|")
    )
    for title in set(own["source_title"]):
        assert f"- {title}: " in text.replace("\\", "")


def test_nothing_where_nothing_is_published() -> None:
    assert render("digits", rows_of([])) == ""


def test_measured_beside_published() -> None:
    measured = rows_of([*three(0.42, 0.425, 0.43), *three(0.9, 0.9, 0.9, protocol="common")])
    table = cells(render("imagenet-1k", measured))
    assert table[0][4:6] == ["Measured", "Δ"]
    shown = {(row[0], row[3]): row[4:6] for row in table if row[4] not in ("—", "Measured")}
    assert shown["RDED", "42.0\u00a0±\u00a00.1"] == ["42.5\u00a0±\u00a00.5 (3)", "+0.5 (−0.7 to +1.7)"]
    assert len(shown) == 2  # the other is 42.3, by DELT and EDC
    assert "Measured" not in cells(render("imagenet-100", measured))[0]


# -- the file itself


def test_the_file_is_whole() -> None:
    frame = load()
    assert not frame.duplicated([*SETTING, "source"]).any()
    assert frame["value"].between(0, 100).all() and (frame["std"].fillna(0).between(0, 10)).all()
    assert frame["ipc"].gt(0).all() and frame[["can_run", "unchecked", "recipe_known", "label_assumed"]].isin(
        [0, 1]
    ).all(axis=None)


def test_label_bytes_are_what_the_recipes_make_and_printed_bytes_what_is_printed() -> None:
    frame = pd.read_csv(FILE, keep_default_na=False)
    units = {"K": 1, "M": 2, "G": 3, "T": 4}
    for row in frame.astype(str).to_dict("records"):
        wanted = ""
        if row["labels"] == "stored" and row["classes"]:
            classes = int(row["classes"])
            images, epochs, batch = int(row["ipc"]) * classes, int(row["label_epochs"]), int(row["label_batch_size"])
            every = fkd_bytes(images, classes, epochs, batch, index=row["label_index"] == "1")
            wanted = str(every // int(row["label_prune"]))
        elif row["label_parameters"]:
            wanted = str(4 * int(row["label_parameters"]))
        assert row["label_bytes"] == wanted, row
        found = re.search(r"(\d+(?:\.\d+)?) ([KMGT])B", row["storage"])
        printed = found and round(
            float(found[1]) * float(1024 if row["binary_units"] == "1" else 1000) ** units[found[2]]
        )
        assert row["printed_bytes"] == (str(printed) if found else ""), row
