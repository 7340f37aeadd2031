"""Suites: which requests their two forms make, that each plans, their trends, and one run end to end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli import main, parse
from bench.cli.options import request
from bench.errors import UserError
from bench.kit.models import build
from bench.planning import manifest, suites
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan
from bench.planning.protocols import read_settings, unchanged
from bench.planning.suites import Suite, suite
from bench.report.collect import collect
from bench.report.command import command
from bench.report.results import to_frame
from bench.report.rows import pool, records
from bench.store.artifacts import Store
from tests.conftest import Bench

NAMES = suites.names()
OURS = ("baselines", "higher-ipc", "places365", "cross-architecture", "ablation", "ranks", "teacher-stage")


def requests(name: str, *, small: bool = False, **given: Any) -> list[Request]:
    return suite(name).requests(name, small=small, given=given)


def grids(name: str, *, small: bool = False, **given: Any) -> list[Grid]:
    return [plan(one) for one in requests(name, small=small, **given)]


def protocols(found: list[Grid]) -> set[str]:
    return {cell.row["protocol"] for grid in found for cell in grid.stage("evaluate")}


# -- what the files ask for


def test_all_are_there() -> None:
    assert set(OURS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_suite_reads_and_plans_in_both_forms(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without data on disk, at full scale too; the small form marks every protocol, the full one none."""
    monkeypatch.setenv("DISTILL_BENCH_DATA", str(tmp_path))
    full, small = grids(name), grids(name, small=True)
    assert {grid.request.suite for grid in (*full, *small)} == {name}
    assert all("[small" in protocol for protocol in protocols(small))
    assert not any("small" in protocol.partition("[")[2] for protocol in protocols(full))
    assert len({grid.dataset.name for grid in small}) == 1
    assert small[0].dataset.classes <= 100 and small[0].dataset.image_size <= 64
    for cell in (cell for grid in small for cell in grid.stage("evaluate")):
        assert cell.fields["protocol"]["form"] == "small"


@pytest.mark.parametrize("name", OURS)
def test_at_the_scale_of_imagenet(name: str) -> None:
    found = grids(name)
    assert {grid.dataset.name for grid in found} <= {"imagenet-100", "imagenet-1k", "places365"}
    assert all(protocol.startswith("official-") for protocol in protocols(found))
    assert all(grid.request.seeds == (0, 1, 2) for grid in found)


@pytest.mark.parametrize("name", OURS)
def test_trends_are_of_rows_that_the_suite_asks_for(name: str) -> None:
    whole = suite(name)
    for trend in whole.trends:
        for which in (trend.more, trend.less):
            assert which.method in (whole.full.methods or ()), trend.claim
            assert which.method in (whole.small.methods or whole.full.methods or ()), trend.claim
        assert trend.dataset in (None, *(whole.full.datasets or ()))
        assert trend.ipc in (None, *(whole.full.ipc or ()))
        assert trend.student in (None, *(whole.full.students or ()))
        assert not (set(trend.kin) & set(whole.full.students or ()))
        if trend.printed:
            assert trend.printed[0] > trend.printed[1], trend.claim


PRINTED = {  # HeLlO's Tables 1 to 3, and Table 4 of its supplement
    "baselines": [
        (12.9, 6.6), (43.7, 42.0), (56.5, 52.2), (12.5, 8.1), (48.9, 36.0), (69.4, 61.6), (6.6, 0.1), (42.0, 21.3),
        (56.5, 46.8), (8.1, 3.0), (36.0, 9.5), (61.6, 27.0), (1.7, 0.1), (31.4, 21.3), (51.8, 46.8),
    ],
    "higher-ipc": [(76.2, 75.9)],
    "cross-architecture": [
        (43.7, 42.0), (26.5, 23.3), (38.1, 34.4), (44.4, 42.8), (29.5, 17.8), (24.2, 22.7), (23.3, 19.1),
        None,
    ],
    "ablation": [(30.1, 28.2), (43.5, 30.1), (43.6, 43.5), (43.7, 43.6)],
    "ranks": [None], "places365": [], "teacher-stage": [None, None, None],
}  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_printed_numbers(name: str) -> None:
    assert [trend.printed for trend in suite(name).trends] == PRINTED[name]


def test_each_student_of_the_cross_architecture_table_has_its_rate() -> None:
    grid, _ = grids("cross-architecture")
    rates = {}
    for cell in grid.stage("evaluate"):
        rules = cell.fields["protocol"]
        rates[cell.row["protocol"], cell.fields["student"]] = rules.get("lr_by_student", {}).get(
            cell.fields["student"], 1e-3
        )
    wanted = {
        "resnet18": 1e-3, "shufflenet_v2_x0_5": 1e-3, "mobilenet_v2": 2.5e-3, "efficientnet_b0": 2e-3,
        "swin_v2_t": 1e-4, "vgg11": 5e-4, "vit_b_16": 1e-4,
    }  # fmt: skip
    one_for_all = {("official-hello", student): 1e-3 for student in wanted}
    assert rates == {("official-rded", student): rate for student, rate in wanted.items()} | one_for_all


@pytest.mark.parametrize("small", [False, True])
def test_codecs_at_equal_bytes_weigh_the_same_within_five_percent(
    small: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    codecs, projector, _ = grids("equal-bytes", small=small)
    rules = codecs.stage("evaluate")[0].fields["protocol"]
    epochs, batch = (
        rules[name]["10"] if isinstance(rules[name], dict) else rules[name] for name in ("epochs", "batch_size")
    )
    labels = ",".join((*codecs.request.labels, "online"))
    recipe = ["--dataset", codecs.dataset.name, "--ipc", "10", "--epochs", str(epochs), "--batch-size", str(batch)]
    assert main(["storage", *recipe, "--methods", "rded,hello", "--labels", labels, "--json"]) == 0
    sizes = json.loads(capsys.readouterr().out)["sizes"]
    weights = [one["label_bytes"] for one in sizes if one["labels"] == "projector"]
    weights += [one["label_bytes"] for one in sizes if one["method"] == "rded" and one["labels"] != "teacher"]
    assert projector.request.labels[0] == "online" and len(weights) == len(codecs.request.labels) + 1
    assert max(weights) / min(weights) <= 1.1, "five percent above and below a middle"


@pytest.mark.parametrize("dataset", ["cifar10", "tiny-imagenet", "icons-100"])
def test_small_images_have_students_of_their_size(dataset: str) -> None:
    (grid,) = grids("cross-architecture", dataset=dataset)
    assert {cell.fields["student"] for cell in grid.stage("evaluate")} == {
        "resnet18-small", "shufflenetv2-small", "mobilenetv2-small", "swin-small", "convnet3", "vit-small",
    }  # fmt: skip
    assert all(protocol.startswith("official-") for protocol in protocols([grid]))
    rates = {cell.fields["protocol"]["lr_by_student"]["vit-small"] for cell in grid.stage("evaluate")}
    assert rates == {1.5e-3}
    (own,) = grids("cross-architecture", dataset=dataset, students=("convnet4",))
    assert {cell.fields["student"] for cell in own.stage("evaluate")} == {"convnet4"}
    (large,) = grids("cross-architecture", dataset="imagenette")
    assert "vgg11" in {cell.fields["student"] for cell in large.stage("evaluate")}


def test_ablation_and_stages_share_what_is_the_same() -> None:
    (ablation,), (stages,) = grids("ablation"), grids("teacher-stage", dataset="imagenet-1k")
    # a projector less than rows: updated images have the labels of those that are not
    assert len({cell.id for cell in ablation.stage("label")}) == 4 * 3
    taught_by = {cell.fields["stage"] for cell in stages.stage("label")}
    assert taught_by == {"early", "all", "late", "last"} and len(stages.stage("label")) == 4 * 3
    assert len(stages.stage("evaluate")) == 4 * 3 * 3


@pytest.mark.parametrize("side", [16, 32, 64])
@pytest.mark.parametrize("student", suite("cross-architecture").small.students or ())
def test_small_students_train_at_other_sizes(student: str, side: int) -> None:
    torch.manual_seed(0)
    net = build(student, 10, side, (0.5,) * 3, (0.25,) * 3)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    images, labels = torch.rand(4, 3, side, side), torch.arange(4)
    loss = torch.nn.functional.cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)
    assert any(not torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True))
    assert net.eval()(images).shape == (4, 10)


# -- flags beside a suite


def test_flags_hold_instead() -> None:
    found = requests(
        "baselines", small=True, dataset="icons-100", ipc=(5,), methods=("rded", "hello"), seeds=(7,),
        overrides={"protocol": {"epochs": 3}, "rded": {"crops": 2}},
    )  # fmt: skip
    (one,) = found
    assert (one.dataset, one.ipc, one.methods, one.seeds) == ("icons-100", (5,), ("rded", "hello"), (7,))
    # settings of methods that are not asked for are not asked for either
    assert one.overrides == {"protocol": {"epochs": 3, "form": "small"}, "rded": {"crops": 2}}
    assert protocols([plan(one)]) == {"common-icons-100-cpu[small,epochs=3]"}
    assert [one.dataset for one in requests("baselines")] == ["imagenet-100", "imagenet-1k"]
    assert [one.dataset for one in requests("baselines", dataset="digits")] == ["digits"]


def test_flags_add_to_the_settings_of_a_suite() -> None:
    (one,) = requests("places365", small=True, overrides={"sre2l": {"lr": 0.1}})
    assert one.overrides["sre2l"] == {"iterations": 20, "lr": 0.1}
    assert one.overrides["g_vbsm"] == {"iterations": 20}


def test_nothing_takes_the_mark_off_a_small_form() -> None:
    found = grids("ranks", small=True, overrides={"protocol": {"form": "full"}})
    assert all("[small" in protocol for protocol in protocols(found))


def test_the_forms_never_share_a_student() -> None:
    """The same data set and settings in both forms: images and labels are the same cells, students are not."""
    (full,), (small,) = (
        grids("teacher-stage", small=small, dataset="digits", protocols=("common",), methods=("hello",))
        for small in (False, True)
    )
    for stage in ("teacher", "distill", "label"):
        assert {cell.id for cell in full.stage(stage)} == {cell.id for cell in small.stage(stage)}
    assert not {cell.id for cell in full.stage("evaluate")} & {cell.id for cell in small.stage("evaluate")}
    assert not protocols([full]) & protocols([small])
    assert {unchanged(name) for name in protocols([small])} == protocols([full])


def test_a_user_s_unknown_setting_is_still_refused() -> None:
    with pytest.raises(UserError, match="unknown method in --set 'sre2l'"):
        grids("ranks", small=True, overrides={"sre2l": {"iterations": 3}})


def test_unknown_names_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"unknown suite 'baseline'.*did you mean 'baselines'") as raised:
        suite("baseline")
    assert "\n" not in str(raised.value)
    for values, words in (
        ({"title": "x", "source": "y", "about": "z", "full": {}, "small": {}, "trend": []}, "did you mean 'trends'"),
        ({"title": "x", "source": "y", "about": "z", "full": {"dataset": []}, "small": {}}, "'full.datasets'"),
        ({"title": "x", "source": "y", "about": "z", "full": {}, "small": {"ipc": ["much"]}}, "small.ipc"),
    ):
        with pytest.raises(UserError, match=words) as raised:
            read_settings(Suite, values, "x.toml")
        assert "\n" not in str(raised.value)


def test_a_suite_by_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('title = "Mine"\n[full]\ndatasets = ["digits"]\nmethods = ["rded"]\nipc = [3]\n')
    (one,) = suite(str(file)).requests(suites.name_of(str(file)), small=False, given={})
    assert (one.suite, one.dataset, one.methods, one.ipc) == ("mine", "digits", ("rded",), (3,))
    assert all(
        "[small" in protocol
        for protocol in protocols([plan(suite(str(file)).requests("mine", small=True, given={})[0])])
    )


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("none.toml", None, "none.toml can't be read: No such file or directory"),
        ("cut.toml", b'title = "', "cut.toml can't be read"),
        ("odd.toml", b"\xff\xfe", "odd.toml can't be read"),
        ("bare.toml", b"about = 'x'", "title is missing"),
        ("key.toml", b"title = 'x'\n[full]\nmethod = ['rded']", "did you mean 'full.methods'"),
        ("baselines.toml", b"title = 'x'\n[full]", "is the name of an installed suite"),
        ("empty.toml", b"title = 'x'\n[full]", "suite empty names no datasets; add full.datasets, or --dataset"),
    ],
)
def test_a_broken_suite_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content)
    assert main(["run", "--suite", str(tmp_path / file), "--dry-run", "--store", str(tmp_path / "none")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and words in printed


# -- variants: their rows, and the commands that make them again


def variants(**given: Any) -> Grid:
    methods = ("hello[adapt=head]", "hello", "rded")
    return plan(Request(methods=methods, ipc=(2,), seeds=(0, 1), suite="ablation", **given))


def test_variants_keep_their_own_labels_and_random_rows() -> None:
    grid = variants()
    by_row: dict[tuple[str, str], list[Any]] = {}
    for cell in grid.stage("evaluate"):
        by_row.setdefault((cell.row["method"], cell.row["labels"]), []).append(cell)
    assert set(by_row) == {
        ("hello[adapt=head]", "projector"), ("hello", "projector"), ("rded", "teacher"), ("rded", "hard"),
        ("random_real", "projector[adapt=head]"), ("random_real", "projector"), ("random_real", "teacher"),
        ("random_real", "hard"), ("full_data", "hard"),
    }  # fmt: skip
    assert all(len(cells) == 2 for cells in by_row.values())
    one, other = by_row["hello[adapt=head]", "projector"], by_row["hello", "projector"]
    for mine, its in zip(one, other, strict=True):
        assert mine.parents["images"] == its.parents["images"] and mine.parents["labels"] != its.parents["labels"]
    labels = {cell.id: cell for cell in grid.stage("label")}
    for row in (("hello[adapt=head]", "projector"), ("random_real", "projector[adapt=head]")):
        assert all(labels[cell.parents["labels"]].fields["config"]["adapt"] == "head" for cell in by_row[row])
    for row in (("hello", "projector"), ("random_real", "projector")):
        assert all("adapt" not in labels[cell.parents["labels"]].fields["config"] for cell in by_row[row])


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("small", [False, True])
def test_the_command_of_every_row_plans_its_cells(name: str, small: bool, tmp_path: Path) -> None:
    """Variants and changed protocols included."""
    grid = grids(name, small=small)[0]
    manifest.keep(Store(tmp_path), grid)
    for row in records(pool(to_frame(collect(Store(tmp_path))[name]))):
        text = command([row]).replace("\\\n", "")
        again = plan(request(parse(shlex.split(text)[3:])))
        assert set(row.cells) <= {cell.id for cell in again.cells}, text
        names = {(cell.row["method"], cell.row["protocol"]) for cell in again.stage("evaluate")}
        assert (row.method, row.protocol) in names, text


# -- end to end


TINY = {  # suite -> methods to make brief, its rows, how many kinds of label models these have (none is one)
    "ablation": (("hello",), 5, 3),
    "baselines": (("sre2l", "g_vbsm", "hello"), 4, 3),
    "cross-architecture": (("hello",), 2, 2),
    "higher-ipc": (("hello",), 3, 3),
    "places365": (("sre2l", "g_vbsm", "hello"), 4, 3),
    "ranks": (("hello",), 6, 5),
    "teacher-stage": (("hello",), 4, 1),
}
BRIEF = {
    "hello": ("epochs=1", "update_steps=2"),
    "sre2l": ("iterations=2",),
    "g_vbsm": ("iterations=2", 'pool=["convnet2-w8","convnet2-w4"]'),
}


@pytest.mark.parametrize(
    "name",
    [name if name in ("ablation", "baselines") else pytest.param(name, marks=pytest.mark.campaign) for name in OURS],
)
def test_a_tiny_run(name: str, bench: Bench, colours: Path, tmp_path: Path) -> None:
    """The small form with flags that make it tiny; its board lies apart and holds the trends and the parameters."""
    methods, count, sizes = TINY[name]
    settings = ["teacher.arch=convnet2-w8", "teacher.epochs=2", "protocol.epochs=2", "protocol.tests=1"]
    settings += [f"{method}.{setting}" for method in methods for setting in BRIEF[method]]
    chosen = [part for setting in settings for part in ("--set", setting)]
    done = bench(
        "run", "--suite", name, "--small", "--dataset", f"folder:{colours}", "--ipc", "2", "--seeds", "0",
        "--students", "convnet2-w8", "--no-baselines", "--cluster", "inline", "--out", "boards", *chosen,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "boards" / "folder-colours.md").exists()
    board = (tmp_path / "boards" / "suites" / name / "folder-colours.md").read_text().replace("<wbr>", "")
    assert f"{count} of {count} students done" in board
    assert "## Beside the paper" in board and "common\\[small,epochs=2," in board
    heads = [line for line in board.splitlines() if line.startswith("| Method") and "Parameters" in line]
    assert len(heads) == 1
    column = [cell.strip() for cell in heads[0].split("|")].index("Parameters")
    start = board.splitlines().index(heads[0]) + 2
    stored = [line.split("|")[column].strip() for line in board.splitlines()[start : start + count]]
    assert len(set(stored)) == sizes and all(text == "—" or text.replace(",", "").isdigit() for text in stored)
