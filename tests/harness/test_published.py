"""The papers' numbers: all there, as printed, weighed by arithmetic, beside what was measured and never among it."""

from __future__ import annotations

import html
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from bench.cli import main
from bench.errors import UserError
from bench.report_legacy.board import make_rows
from bench.report_legacy.entries import Entry
from bench.report_legacy.published import (
    NETWORKS,
    commands,
    disagreeing,
    for_dataset,
    label_bytes,
    load,
    matching,
    measured_for,
    obstacle,
    printed_bytes,
    sources,
)
from bench.report_legacy.published_file import FILE, Published
from bench.report_legacy.published_table import as_points, delta_text, measured_beside, numbers, render
from bench.report_legacy.wording import escape

MIB, GIB = 2**20, 2**30


def rows(method: str, dataset: str, ipc: int, student: str, variant: str = "") -> dict[str, Published]:
    """The sources that print a setting."""
    return {one.source: one for one in load() if one.setting == (method, variant, dataset, ipc, student)}


def printed(source: str, method: str, dataset: str, student: str, variant: str = "") -> list[str]:
    """What a source prints of a method, by IPC."""
    wanted = (source, method, dataset, student, variant)
    found = [one for one in load() if (one.source, one.method, one.dataset, one.student, one.variant) == wanted]
    return [one.printed for one in sorted(found, key=lambda one: one.ipc)]


def entry(**facts: Any) -> Entry:
    usual: dict[str, Any] = {
        "cell": f"cell-{len(facts)}-{sorted(map(str, facts.items()))}",
        "dataset": "imagenet-1k",
        "title": "ImageNet-1K",
        "method": "rded",
        "labels": "teacher",
        "ipc": 10,
        "student": "resnet18",
        "protocol": "official-rded",
        "protocol_version": 1,
        "seed": 0,
        "state": "done",
        "top1": 0.425,
    }
    return Entry(**(usual | facts))


def three(*top1: float, **facts: Any) -> list[Entry]:
    return [entry(seed=seed, top1=value, **facts) for seed, value in enumerate(top1)]


# -- the file


def test_nothing_is_missing() -> None:
    """Of each source as many numbers as it prints; a table left out or a number lost shows here."""
    assert Counter(one.source for one in load()) == {
        "sre2l": 4 + 4 + 4 + 3 * 2,
        "sre2l-tiny": 3,
        "cda": 1 + 6,
        "g_vbsm": (2 + 3 + 3) + (4 + 6 + 6 + 3 + 6 + 3),
        # SRe2L: eight rows of three but for ImageNet-100, the R101 ones; RDED: 7 sets by 3 students and ImageNet-10
        "rded": (5 * 3 + 2 + 3 + 3 * 3 + 2 + 2) + (22 * 3) + 7,
        "hello": 6 + 3 + (6 + 1 + 6) + (6 + 1 + 6) + 5,
        "edc": 5 * 3 + 6,
        "cv-dd": 6 * 3,
        "delt": 4 + 3 + 5 * 3,
        "lpld": (5 + 2 + 2) * 2,
        "lpqld": 9,
    }
    assert {one.source for one in load()} == set(sources())


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
        ("hello", "hello", "imagenet-1k", "vit_b_16", "23.3"),
        ("edc", "edc", "cifar10", "resnet18-small", "32.6 79.1 87.0"),
        ("cv-dd", "sre2l++", "imagenette", "resnet18", "29.7 62.4 80.3"),
        ("delt", "delt", "imagenet-100", "resnet18", "28.2 67.9 75.1"),
        ("lpld", "lpld", "imagenet-1k", "resnet18", "20.2 33.0 46.7 54.0 59.6"),
        ("lpld", "sre2l", "imagenet-1k", "resnet18", "20.1 33.6 46.8 52.8 57.0"),
    ],
)
def test_spot_values(source: str, method: str, dataset: str, student: str, wanted: str) -> None:
    assert printed(source, method, dataset, student) == wanted.split()


def test_hello_loses_to_rded_at_50_images_a_class_and_its_ablation_climbs() -> None:
    assert rows("hello", "imagenet-1k", 50, "resnet18")["hello"].top1 == 52.2
    assert rows("rded", "imagenet-1k", 50, "resnet18")["hello"].top1 == 56.5
    steps = [one.top1 for one in load() if one.method == "hello" and one.variant]
    assert steps == [28.2, 30.1, 43.5, 43.6, 43.7]
    first = rows("hello", "imagenet-1k", 1, "resnet18")["hello"]
    assert (first.storage, first.teacher) == ("0.8 M parameters, 1e-4 × all labels", "nine weak ResNet-18")


def test_disagreeing_sources_are_all_kept() -> None:
    found = {same[0].setting: {one.source: one.printed for one in same} for same in disagreeing(load())}
    assert found["sre2l", "", "imagenet-1k", 50, "resnet101"] == {"sre2l": "60.8", "cda": "57.6", "rded": "60.8"}
    assert found["sre2l", "", "cifar100", 10, "resnet18-small"] == {"g_vbsm": "31.6", "rded": "27.0"}
    assert found["rded", "", "imagenet-100", 100, "resnet18"] == {"hello": "75.9±0.1", "delt": "74.5"}
    assert found["rded", "", "imagenet-1k", 10, "shufflenet_v2_x0_5"] == {"rded": "19.4", "hello": "23.3"}
    assert found["sre2l", "", "imagenet-1k", 10, "resnet18"]["delt"] == "41.9"
    assert len(found) == 14
    shown = {(one.first.setting, one.first.top1) for one in numbers(load())}
    assert all({(s, float(p.partition("±")[0])) for p in by.values()} <= shown for s, by in found.items())


def test_what_is_uncertain_says_so() -> None:
    unchecked = {(one.method, one.dataset) for one in load() if one.unchecked and one.source == "rded"}
    assert unchecked == {("sre2l", "cifar100"), ("sre2l", "imagewoof")}
    assert all(
        one.unchecked and one.note for one in load() if one.source == "delt" and one.ipc == 10 and one.method != "delt"
    )
    assert "| 6.6?" in render("cifar100").replace("  ", "")


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
    one = rows(method, dataset, ipc, "resnet18")[source]
    assert label_bytes(one) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("dataset", "ipc", "mib"), [("cifar100", 10, 266), ("cifar10", 10, 7.7), ("tiny-imagenet", 50, 439)]
)
def test_label_bytes_of_small_sets(dataset: str, ipc: int, mib: float) -> None:
    """G_VBSM's files: of many small ones the container, whose size depends on torch's version, is a good part."""
    found = label_bytes(rows("g_vbsm", dataset, ipc, "resnet18-small")["g_vbsm"])
    assert found is not None and found / MIB == pytest.approx(mib, rel=5e-3, abs=0.05)


def test_what_lpld_prints_is_what_we_compute() -> None:
    """To the digits it prints; its list of Tiny-ImageNet is a twentieth off."""
    for one in load():
        if one.source == "lpld" and one.dataset != "imagenet-21k":
            computed, listed = label_bytes(one), printed_bytes(one)
            assert computed is not None and listed is not None
            rel = 6e-2 if one.dataset == "tiny-imagenet" else 2e-3 if one.method == "sre2l" else 3e-2
            assert computed == pytest.approx(listed, rel=rel), one


def test_unknown_recipes_have_no_label_bytes() -> None:
    for method in ("edc", "delt", "cda", "lpqld", "cv-dd", "sre2l++"):
        assert {label_bytes(one) for one in load() if one.method == method} == {None}
    assert label_bytes(rows("rded", "cifar10", 10, "convnet3")["rded"]) is None  # whose teacher is unknown
    assert label_bytes(rows("hello", "imagenet-100", 100, "resnet18")["hello"]) is None  # whose ranks are unknown
    assert printed_bytes(rows("hello", "imagenet-100", 100, "resnet18")["hello"]) == round(10.20 * MIB)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 224), ("resnet18-small", 32)])
def test_parameters_of_networks(name: str, size: int) -> None:
    from bench.kit.models.classifier import build

    for classes in (10, 100):
        model = build(name, classes, size, (0.5,) * 3, (0.5,) * 3)
        body, each = NETWORKS[name]
        assert sum(weight.numel() for weight in model.parameters()) == body + each * classes


def test_points_for_plots() -> None:
    points = as_points("imagenet-1k", "resnet18")
    assert ("rded", 10, 4 * 11_689_512, 0.42) in points
    assert (
        "lpqld (40 times less, 100 logits)",
        200,
        2_540_000_000,
        0.599,
    ) in points  # printed: nothing to compute from
    assert not any(method == "edc" for method, *_ in points)
    assert len(as_points("imagenet-1k")) > len(points) and as_points("digits") == []


# -- beside what was measured


def test_a_measured_row_and_its_published_numbers() -> None:
    (row,) = make_rows(three(0.42, 0.425, 0.43))
    assert {(one.source, one.printed) for one in matching(row)} == {
        ("rded", "42.0±0.1"), ("hello", "42.0"), ("delt", "42.3"), ("edc", "42.3"),
    }  # fmt: skip
    assert matching(row.entries[0]) == matching(row)
    for other in (
        {"ipc": 11}, {"student": "resnet50-small"}, {"dataset": "digits"}, {"method": "rded[pool=20]"},
        {"labels": "hard"}, {"labels": "teacher:int8"}, {"protocol": "official-hello"},
    ):  # fmt: skip
        assert matching(entry(**other)) == [], other
    assert len(matching(entry(protocol="common"))) == 4


def test_only_a_papers_own_recipe_is_compared() -> None:
    one = rows("rded", "imagenet-1k", 10, "resnet18")["rded"]
    official, common = three(0.42, 0.425, 0.43), three(0.5, 0.51, 0.52, protocol="common")
    missing = entry(seed=7, state="missing", top1=None)
    assert measured_for(one, make_rows(common)) is None and measured_for(one, make_rows([missing])) is None
    row = measured_for(one, make_rows([*official, *common, missing]))
    assert row is not None and row.protocol == "official-rded" and row.top1.n == 3
    newer = make_rows([*official, entry(protocol_version=2, top1=0.3)])
    chosen = measured_for(one, newer)
    assert chosen is not None and chosen.protocol_version == 2


def test_sre2l_on_tiny_is_compared_with_labels_given_online() -> None:
    one = rows("sre2l", "tiny-imagenet", 50, "resnet18-small")["sre2l"]
    facts = {"method": "sre2l", "dataset": "tiny-imagenet", "ipc": 50, "student": "resnet18-small"}
    facts |= {"protocol": "official-sre2l-tiny"}
    assert measured_for(one, make_rows([entry(**facts, labels="stored:fp16")])) is None
    assert measured_for(one, make_rows([entry(**facts)])) is not None
    assert commands([one])[0][0].endswith("--protocol official-sre2l-tiny --labels online")


def test_delta_in_points_with_its_interval() -> None:
    found = [one for one in numbers(load()) if one.first.setting == ("rded", "", "imagenet-1k", 10, "resnet18")]
    by_value = {one.first.top1: one for one in found}
    measured = make_rows(three(0.42, 0.425, 0.43))
    row = measured_beside(by_value[42.0], measured)
    assert row is not None
    assert delta_text(by_value[42.0], row) == "+0.5 ±\u00a01.2"  # t(.975, 2) · .5 / √3
    assert delta_text(by_value[42.0], make_rows([entry(top1=0.41)])[0]) == "-1.0"
    unknown = next(one for one in numbers(load()) if one.first.printed == "41.9" and one.first.source == "delt")
    assert delta_text(unknown, row).endswith(" ‡")


def test_what_the_benchmark_cannot_measure_says_why() -> None:
    reasons = {obstacle(one) for one in load()}
    assert {"", "a changed method", "no plug-in edc", "no data set imagenet-10", "no student resnet101-small"} < reasons
    assert sum(not obstacle(one) for one in load()) > 150


@pytest.mark.parametrize("command", [command for command, _ in commands(load())])
def test_every_command_is_one_that_runs(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command.split()
    assert words[:4] == ["python", "-m", "bench", "run"]
    assert main([*words[3:], "--dry-run", "--store", str(tmp_path)]) == 0, capsys.readouterr().err
    assert "evaluate" in capsys.readouterr().out


def test_commands_ask_for_published_settings_alone() -> None:
    for command, own in commands(load()):
        words = command.split()
        asked = {words[at]: words[at + 1] for at in range(4, len(words), 2)}
        grid = {(int(ipc), student) for ipc in asked["--ipc"].split(",") for student in asked["--students"].split(",")}
        assert grid == {(one.ipc, one.student) for one in own}
    measurable = [one for one in load() if not obstacle(one)]
    assert sum(len(own) for _, own in commands(load())) == len(measurable)


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
    text = render(dataset)
    table = cells(text)
    assert len(table) == 1 + len(numbers(for_dataset(dataset)))
    assert {len(row) for row in table} == {7} and "†" in table[0][3]
    assert render(dataset) == text and not any("**" in line for line in text.splitlines() if line.startswith("|"))
    for name in {one.source for one in for_dataset(dataset)}:
        assert f"- {escape(sources()[name].title)}: {escape(sources()[name].where)}." in text


def test_nothing_where_nothing_is_published() -> None:
    assert render("digits") == "" and for_dataset("digits") == []


def test_measured_beside_published() -> None:
    measured = make_rows([*three(0.42, 0.425, 0.43), *three(0.9, 0.9, 0.9, protocol="common")])
    table = cells(render("imagenet-1k", measured))
    assert table[0][4:6] == ["Measured", "Δ"]
    shown = {(row[0], row[3]): row[4:6] for row in table if row[4] not in ("—", "Measured")}
    assert shown[("RDED", "42.0 ±\u00a00.1")] == ["42.5 ±\u00a00.5 (3)", "+0.5 ±\u00a01.2"]
    assert len(shown) == 2  # the other is 42.3, by DELT and EDC
    assert "Measured" not in cells(render("imagenet-100", measured))[0]


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a | b", "**x** `y` $z$", "‮evil", "w" * 500, "[a](b)"])
def test_hostile_text_breaks_nothing(text: str) -> None:
    usual = rows("rded", "imagenet-1k", 10, "resnet18")["rded"]
    hostile = usual.model_copy(update=dict.fromkeys(("method", "student", "variant", "storage", "note"), text))
    made = render("imagenet-1k", published=[usual, hostile])
    table = cells(made)
    assert [len(row) for row in table] == [7, 7, 7] and "<script" not in made and "‮" not in made
    assert [row[2] for row in table] == ["IPC", "10", "10"]


# -- broken files


GOOD = FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("46.8±0.2 52.8±0.3 57.0", "46.8±0.2 52.8±0.3", r"0 \(sre2l of sre2l on imagenet-1k, resnet18\).*one word"),
        ("46.8±0.2 52.8", "468±0.2 52.8", "'468±0.2' is no top-1"),
        ("46.8±0.2 52.8", "46,8 52.8", "'46,8' is no top-1"),
        ("46.8±0.2 52.8", "nan 52.8", "'nan' is no top-1"),
        ('protocol = "sre2l", top1 = "28.4', 'protocol = "srel", top1 = "28.4', "there is no protocol 'srel'"),
        ('dataset = "imagenet-1k", student = "resnet50"', 'dataset = "imagenet", student = "resnet50"',
         "there is no dataset 'imagenet'"),
        ('source = "sre2l"\n', 'source = "sre"\n', "there is no source 'sre'"),
        ('student = "resnet50", protocol = "sre2l"', 'student = "resnet18", protocol = "sre2l"', "IPC 10 .* twice"),
        ("epochs = 300", "epochs = 0", r"protocols\.sre2l\.stored\.epochs"),
        ('labels = "stored"\nepochs', 'labels = "shelved"\nepochs', r"protocols\.sre2l"),
        ("ipc = [10, 50, 100, 200]", "ipc = [0, 50, 100, 200]", r"tables\.0"),
        ("rows = [", "rowz = [", "table 1 has no rows"),
        ("[sources.sre2l]", "[sources.sre2l", "can't be read"),
        ("binary_units = true", 'binary = "yes"', "sources.*binary"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_in_one_line(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert old in GOOD
    path = tmp_path / "published.toml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=says) as error:
        load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_missing_file_or_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there; expected beside"):
        load(tmp_path / "published.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="can't be read"):
        load(tmp_path / "bytes.toml")


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys; from bench.report_legacy.published_table import render; from bench.cli import published;"
        "print(len(render('imagenet-1k')) > 1000, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
