"""What ``--labels`` means, and which cells it makes."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.api import MethodInfo
from bench.api.augmentation import AugmentationSchedule
from bench.errors import UserError
from bench.execution.scheduling import Schedule
from bench.planning.grid import Grid, Request
from bench.planning.label_choices import LabelChoice, parse
from bench.planning.plan import plan
from bench.planning.protocols import all_protocols
from evaluators.classification import Classification

ONLINE = MethodInfo(name="a", title="A", version=1, paper="", labels="projector")
STORING = MethodInfo(name="b", title="B", version=1, paper="", labels="teacher", stored="fp16")
HARD = MethodInfo(name="c", title="C", version=1, paper="", labels="hard")


def grid_of(*labels: str, methods: tuple[str, ...] = ("rded",), **request: object) -> Grid:
    values = {"methods": methods, "labels": labels, "ipc": (10,), "seeds": (0,), **request}
    return plan(Request(**values))  # type: ignore[arg-type]


def rows(grid: Grid) -> Counter[tuple[str, str]]:
    return Counter((cell.row["method"], cell.row["labels"]) for cell in grid.stage("evaluate"))


@pytest.mark.parametrize(
    ("text", "info", "choice", "title"),
    [
        ("native", ONLINE, LabelChoice("online"), "projector"),
        ("native", STORING, LabelChoice("stored", "fp16"), "stored:fp16"),
        ("native", HARD, LabelChoice("hard"), "hard"),
        ("online", STORING, LabelChoice("online"), "teacher"),
        ("teacher", ONLINE, LabelChoice("teacher", "fp32"), "teacher"),
        ("teacher:int8", ONLINE, LabelChoice("teacher", "int8"), "teacher:int8"),
        ("stored", STORING, LabelChoice("stored", "fp16"), "stored:fp16"),
        ("stored:topk5+prune10", STORING, LabelChoice("stored", "prune10+topk5+fp16"), "stored:prune10+topk5+fp16"),
        ("stored:int8", ONLINE, LabelChoice("stored", "int8"), "stored:int8 of projector"),
        ("static", STORING, LabelChoice("static", "fp16"), "static:fp16"),
        ("hard", STORING, LabelChoice("hard"), "hard"),
    ],
)
def test_choices(text: str, info: MethodInfo, choice: LabelChoice, title: str) -> None:
    assert parse(text, info) == choice
    assert choice.title(info.labels) == title


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("soft", ["unknown choice in --labels 'soft'", "stored:fp16"]),
        ("teacher:int3", ["teacher:int3", "teacher:int8"]),
        ("online:int3", ["online:int3", "online:int8"]),
        ("stored:fp17", ["'fp17'", "did you mean 'fp16'?"]),
        ("stored:topk11", ["digits has 10 classes"]),
        ("stored:prune101", ["less than one epoch", "prune100 is the most on digits"]),  # 100 epochs at IPC 10
        ("stored:prune2+prune3", ["prune3 says prune a second time"]),
        ("static:prune4", ["no batches to prune"]),
    ],
)
def test_what_is_refused_says_so_in_one_line(labels: str, words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        grid_of(labels)
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


def test_a_method_without_a_label_model_has_none_to_store() -> None:
    with pytest.raises(UserError, match="random_real has no label model of its own"):
        grid_of("stored:fp16", methods=("random_real",))
    assert ("random_real", "teacher:int8") in rows(grid_of("teacher:int8", methods=("random_real",)))


def test_stored_labels_stand_on_their_images_and_on_who_answers() -> None:
    grid = grid_of("stored:topk3", baselines=False)
    by_id = {cell.id: cell for cell in grid.cells}
    (student,) = grid.stage("evaluate")
    kept = by_id[student.parents["labels"]]
    assert (kept.stage, kept.by, kept.call["codec"]) == ("label", "stored", "topk3+fp16")
    assert kept.parents["images"] == student.parents["images"]
    assert by_id[kept.parents["labels"]].by == "teacher"
    assert AugmentationSchedule(**kept.call["schedule"]) == Classification().schedule(
        all_protocols()["common-digits-cpu"], grid.dataset, ipc=10, seed=0
    )


def test_baselines_of_the_label_axis_ride_along() -> None:
    found = rows(grid_of("stored:fp16"))
    assert found == {
        ("rded", "stored:fp16"): 1,
        ("random_real", "stored:fp16"): 1,
        ("rded", "static:fp16"): 1,  # one label an image
        ("rded", "hard"): 1,
        ("random_real", "hard"): 1,
        ("full_data", "hard"): 1,
    }


def test_rows_that_are_the_same_are_computed_once() -> None:
    """HeLlO's images are RDED's: with a teacher's labels there is nothing of HeLlO in them."""
    found = rows(grid_of("native", "teacher:int8", methods=("rded", "hello")))
    assert found["rded", "teacher:int8"] == 1 and ("hello", "teacher:int8") not in found
    grid = grid_of("native", "stored:int8", methods=("rded", "hello"))
    digests = [cell.id.rsplit("-", 1)[1] for cell in grid.cells]
    assert len(set(digests)) == len(digests)


def test_the_teacher_is_one_label_model_for_all_methods() -> None:
    grid = grid_of("online", "teacher:fp16", ipc=(1, 10), seeds=(0, 1))
    assert Counter(cell.fields.get("precision", "fp32") for cell in grid.stage("label")) == {"fp32": 1, "fp16": 1}


def test_other_views_are_other_stored_labels() -> None:
    one, seed, recipe = (
        {cell.id for cell in grid_of("stored:fp16", **more).stage("label") if cell.by == "stored"}
        for more in ({}, {"seeds": (1,)}, {"protocols": ("official-sre2l",)})
    )
    assert not one & seed and not one & recipe
    students = grid_of("stored:fp16", students=("convnet3-w32", "resnet10-small-w16")).stage("label")
    assert {cell.id for cell in students if cell.by == "stored"} == one  # whoever learns from them


def test_stored_labels_come_in_a_wave_after_who_answers() -> None:
    """A job array has no order inside."""
    grid = grid_of("native", "stored:int8", methods=("hello", "sre2l"))
    schedule = Schedule(grid, dict.fromkeys((cell.id for cell in grid.cells), "todo"))
    waves = schedule.waves()
    assert [stage for stage, _ in waves] == ["teacher", "prepare", "distill", "label", "label", "evaluate"]
    models, kept = (cells for stage, cells in waves if stage == "label")
    assert {cell.by for cell in models} == {"teacher", "hello"} and {cell.by for cell in kept} == {"stored", "static"}
    schedule.state.update(dict.fromkeys((cell.id for cell in models), "done"))
    assert [cells for stage, cells in schedule.waves() if stage == "label"] == [kept]
    schedule.state.update(dict.fromkeys((cell.id for cell in kept), "done"))
    assert "label" not in dict(schedule.waves())


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("stored:topk5+int8", "stores 15 bytes per label, all 10 logits are 14; keep fewer"),
        ("static:renorm10", "stores 30 bytes per label, all 10 logits are 20"),
        ("stored:prune1", "prune1 keeps every batch"),
    ],
)
def test_labels_that_weigh_more_than_all_or_change_nothing_are_refused(labels: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan(Request(methods=("rded",), ipc=(1,), seeds=(0,), labels=(labels,), baselines=False))
