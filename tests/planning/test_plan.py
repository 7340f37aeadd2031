"""The plan: which cells a request makes, what is shared, what rides along, and what is refused."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.api import registry
from bench.errors import UserError
from bench.planning import protocols
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan
from bench.store.cell import STAGES

TOPK = ("rded", "stored:topk2+fp16")


def grid_of(**request: object) -> Grid:
    return plan(Request(**{"methods": ("hello", "rded"), **request}))  # type: ignore[arg-type]


def rows(grid: Grid) -> Counter[tuple[str, str]]:
    return Counter((cell.row["method"], cell.row["labels"]) for cell in grid.stage("evaluate"))


def test_the_main_job() -> None:
    grid = grid_of(ipc=(1, 10, 50))
    assert {stage: len(grid.stage(stage)) for stage in STAGES} == {
        "teacher": 1,
        "prepare": 3,  # the scores of RDED's pool, which all IPC share
        "distill": 18,  # RDED's and random images, 3 IPC x 3 seeds
        "label": 4,  # one online teacher for all; a projector for each seed
        "evaluate": 57,
    }
    assert rows(grid) == {
        ("hello", "projector"): 9,
        ("rded", "teacher"): 9,
        ("rded", "hard"): 9,  # HeLlO's images are RDED's: so is their row under hard labels
        ("random_real", "projector"): 9,
        ("random_real", "teacher"): 9,
        ("random_real", "hard"): 9,
        ("full_data", "hard"): 3,
    }


def test_shared_cells_are_planned_once() -> None:
    both, rded = grid_of(ipc=(10,)), grid_of(methods=("rded",), ipc=(10,))
    mine = {cell.id for cell in rded.stage("distill")}
    assert mine == {cell.id for cell in both.stage("distill")}
    by_id = {cell.id: cell for cell in both.cells}
    for cell in both.stage("evaluate"):
        if cell.row["method"] == "hello":
            assert by_id[cell.parents["images"]].by == "rded"


def test_parents_come_before_children() -> None:
    grid = grid_of()
    seen: set[str] = set()
    for cell in grid.cells:
        assert set(cell.parents.values()) <= seen
        seen.add(cell.id)


def test_baselines_can_be_left_out() -> None:
    grid = grid_of(ipc=(10,), baselines=False)
    assert rows(grid) == {("hello", "projector"): 3, ("rded", "teacher"): 3}


def test_a_projector_is_shared_within_a_stage_of_the_trajectory() -> None:
    grid = grid_of(methods=("hello",), ipc=(8, 10), seeds=(0,))
    assert len([cell for cell in grid.stage("label") if cell.by == "hello"]) == 1


def test_settings_change_the_identity_and_show_on_the_board() -> None:
    usual, other = grid_of(ipc=(1,)), grid_of(ipc=(1,), overrides={"hello": {"conv_rank": 4}})
    assert {c.id for c in usual.stage("distill")} == {c.id for c in other.stage("distill")}
    assert {c.id for c in usual.stage("label")} != {c.id for c in other.stage("label")}
    assert ("hello[conv_rank=4]", "projector") in rows(other)


def test_official_protocols_are_each_methods_own() -> None:
    grid = grid_of(methods=("hello", "rded"), dataset="imagenet-1k", ipc=(10,), protocols=("official",))
    named = {(cell.row["method"], cell.row["labels"]): cell.row["protocol"] for cell in grid.stage("evaluate")}
    assert named["hello", "projector"] == "official-hello"
    assert named["rded", "teacher"] == "official-rded"


def test_identities_stay_as_they_are() -> None:
    """Pinned: a change here makes every store that is out there compute everything again."""
    labels = ("native", "online", "stored:topk3", "stored:prune10+topk3+int8", "static:fp16", "teacher:int8", "hard")
    ids = [cell.id for cell in grid_of(methods=("sre2l", "g_vbsm", "rded", "hello"), labels=labels).cells]
    assert len(ids) == 585
    assert hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16] == "7914d3f072a7b457"
    ids = [cell.id for cell in grid_of(methods=("random_real", "rded")).cells]
    assert hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16] == "417c58e6c7a35b60"


def test_every_distilled_set_has_a_student_of_every_student_seed() -> None:
    usual: dict[str, Any] = {"methods": ("rded",), "ipc": (1,), "labels": ("native", "stored:topk2")}
    one, grid = grid_of(**usual, seeds=(0, 1)), grid_of(**usual, seeds=(0, 1), student_seeds=(1, 7))
    for stage in ("teacher", "prepare", "distill"):
        assert [cell.id for cell in one.stage(stage)] == [cell.id for cell in grid.stage(stage)]
    by_id = {cell.id: cell for cell in grid.cells}
    students = [cell for cell in grid.stage("evaluate") if (cell.row["method"], cell.row["labels"]) == TOPK]
    seeds = [(cell.row["seed"], cell.row["student_seed"]) for cell in students]
    assert seeds == [(0, 1), (0, 7), (1, 1), (1, 7)]
    assert len({cell.id for cell in students}) == len({cell.parents["labels"] for cell in students}) == 4
    for cell in students:
        assert cell.fields["seed"] == cell.row["student_seed"]
        assert by_id[cell.parents["images"]].fields["seed"] == cell.row["seed"]
        # stored labels belong to the views of the student that learns from them
        views = [by_id[found.parents["labels"]].call["schedule"]["plan"]["seed"] for found in (cell, students[0])]
        assert (views[0] == views[1]) == (cell.row["student_seed"] == 1)
    # a student of its set's own seed is the one that is there without student seeds
    assert {cell.id for cell in one.cells} & {cell.id for cell in students} == {students[2].id}
    full = [cell for cell in grid.stage("evaluate") if cell.row["method"] == "full_data"]
    assert [(cell.row["seed"], cell.row["student_seed"]) for cell in full] == [(1, 1), (7, 7)]
    assert all("student_seed" not in cell.row for cell in one.stage("evaluate"))


def test_labels_of_one_answer_an_image_serve_every_student() -> None:
    grid = grid_of(methods=("rded",), ipc=(1,), seeds=(0,), student_seeds=(0, 1), labels=("static:fp16",))
    static = [cell for cell in grid.stage("evaluate") if cell.row["labels"] == "static:fp16"]
    assert len(static) == 2 and len({cell.parents["labels"] for cell in static}) == 1


def test_rows_say_which_method_brought_them() -> None:
    grid = grid_of(methods=("hello",), ipc=(1,))
    assert {cell.row["via"] for cell in grid.stage("evaluate")} == {"hello"}


def test_a_foreign_teacher_is_known_by_its_content(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one.pth", "same.pth", "other.pth"))
    one.write_bytes(b"weights")
    same.write_bytes(b"weights")
    other.write_bytes(b"others")
    ids = [grid_of(ipc=(1,), teacher=str(path)).stage("teacher")[0].id for path in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"methods": ("rdde",)}, ["unknown method 'rdde'", "did you mean 'rded'?"]),
        ({"dataset": "digit"}, ["unknown data set 'digit'", "did you mean 'digits'?"]),
        ({"students": ("resnet8",)}, ["unknown student 'resnet8'", "did you mean"]),
        ({"protocols": ("comon",)}, ["unknown protocol 'comon'", "did you mean 'common'?"]),
        ({"ipc": (0,)}, ["--ipc 0", "start at 1"]),
        ({"ipc": (-3,)}, ["--ipc -3", "start at 1"]),
        ({"ipc": (140,)}, ["--ipc 140", "smallest class of digits has 139"]),
        ({"seeds": (-1,)}, ["--seeds -1"]),
        ({"student_seeds": (-1,)}, ["--student-seeds -1"]),
        ({"seeds": (0, 10**20)}, [f"--seeds {10**20}", "to 4,294,967,295"]),
        ({"overrides": {"protocol": {"epochs": 0}}}, ["epochs: Input should be greater than or equal to 1, not 0"]),
        ({"overrides": {"protocol": {"epochs": {}}}}, ["epochs"]),
        ({"overrides": {"protocol": {"batch_size": 0}}}, ["batch_size", "not 0"]),
        ({"overrides": {"protocol": {"lr": float("nan")}}}, ["lr", "finite", "not nan"]),
        ({"overrides": {"teacher": {"epochs": 0}}}, ["the settings of teacher: epochs", "not 0"]),
        ({"overrides": {"teacher": {"augment": "flip"}}}, ["augment", "'rrc-flip'", "not 'flip'"]),
        ({"overrides": {"hello": {"lr": float("inf")}}}, ["the settings of hello: lr", "finite"]),
        ({"overrides": {"hello": {"conv_rnk": 4}}}, ["conv_rnk", "did you mean 'conv_rank'?"]),
        ({"overrides": {"helo": {"conv_rank": 4}}}, ["unknown method in --set 'helo'"]),
        ({"overrides": {"hello": {"conv_rank": "much"}}}, ["the settings of hello: conv_rank"]),
        ({"overrides": {"teacher": {"epoch": 3}}}, ["epoch", "did you mean 'epochs'?"]),
        ({"teacher": Path("nowhere.pth")}, ["--teacher nowhere.pth is not a file"]),
        ({"dataset": "imagenet-1k", "ipc": (200,), "methods": ("rded",)}, ["800 patches", "pool has 300"]),
    ],
)
def test_what_is_refused_says_so_in_one_line(request_: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        grid_of(**request_)
    text = str(raised.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_an_unknown_key_of_a_protocol_is_named(tmp_path: Path, tiny_protocol: Path) -> None:
    tiny_protocol.write_text(tiny_protocol.read_text() + "temprature = 3.0\n")
    with pytest.raises(UserError, match=r"temprature.*did you mean 'temperature'"):
        grid_of(protocols=(str(tiny_protocol),))
    tiny_protocol.write_text("epochs = [")
    with pytest.raises(UserError, match="can't be read"):
        grid_of(protocols=(str(tiny_protocol),))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"methods": ("rded",), "dataset": "icon-scenes"}, "rded makes images without prompts"),
        ({"methods": ("promptable",), "dataset": "digits"}, "needs prompts and masks, which digits has not"),
        (
            {"methods": ("promptable",), "dataset": "icon-scenes", "students": ("convnet3",)},
            "student 'convnet3' answers with classes",
        ),
        (
            {"methods": ("promptable",), "dataset": "icon-scenes", "labels": ("stored:topk5",)},
            "there are no likeliest classes to keep",
        ),
        (
            {"methods": ("rded",), "protocols": ("continual-10",), "overrides": {"protocol": {"steps": 11}}},
            "10 classes can't arrive in 11 steps",
        ),
        ({"methods": ("rded",), "protocols": ("continual-10",), "labels": ("stored:fp16",)}, "are stored labels"),
    ],
)
def test_an_evaluator_refuses_before_anything_is_computed(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as raised:
        plan(Request(**asked))
    assert "\n" not in str(raised.value)


def test_a_protocol_of_newer_code_than_was_installed_is_left_out_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = {name: points for name, points in registry.EVALUATORS._points.items() if name != "continual"}
    monkeypatch.setattr(registry.EVALUATORS, "_points", installed)
    protocols.all_protocols.cache_clear()
    try:
        assert plan(Request(methods=("rded",), ipc=(1,))).cells
        lines = capsys.readouterr().err.splitlines()
        assert all("protocol continual-" in line and "unknown evaluator" in line for line in lines)
        assert lines and all("of distill-bench" in line and "install it again" in line for line in lines)
        with pytest.raises(UserError, match="unknown protocol 'continual-10-digits'"):
            plan(Request(methods=("rded",), ipc=(1,), protocols=("continual-10-digits",)))
    finally:
        protocols.all_protocols.cache_clear()
