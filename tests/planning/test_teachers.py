"""Teachers from files: pools, trajectories, published weights, and what stands beside a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api import TeacherSpec
from bench.errors import UserError
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan

POOL = ("resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5")


def grid_of(**request: Any) -> Grid:
    usual = {"methods": ("rded",), "ipc": (1,), "seeds": (0,), "baselines": False}
    return plan(Request(**{**usual, **request}))


def teachers(grid: Grid) -> dict[str, TeacherSpec]:
    specs = [TeacherSpec(**cell.call["settings"]) for cell in grid.stage("teacher")]
    return {spec.arch: spec for spec in specs}


def file(path: Path, content: str = "weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_files_fill_a_pool(tmp_path: Path) -> None:
    files = {arch: file(tmp_path / f"{arch},V1.pth", arch) for arch in POOL}
    text = ",".join(f"{arch}={path}" for arch, path in files.items())
    grid = grid_of(methods=("g_vbsm", "rded"), dataset="imagenet-1k", protocols=("official",), teacher=text)
    found = teachers(grid)
    assert {arch: spec.files for arch, spec in found.items()} == {arch: (str(files[arch]),) for arch in POOL}
    assert {spec.file_sha256 for spec in found.values()} == {hashlib.sha256(arch.encode()).hexdigest() for arch in POOL}
    one = grid_of(dataset="imagenet-1k", teacher=f"resnet18={files['resnet18']}").stage("teacher")
    assert one[0].id in {cell.id for cell in grid.stage("teacher")}  # whoever asks for it
    part = grid_of(methods=("g_vbsm",), dataset="imagenet-1k", teacher=f"resnet18={files['resnet18']}")
    assert [arch for arch, spec in teachers(part).items() if not spec.files] == list(POOL[1:])


def test_the_first_file_is_the_data_sets_own_teacher(tmp_path: Path) -> None:
    path = file(tmp_path / "conv.pth")
    grid = grid_of(teacher=f"convnet3-w8={path}")
    assert [*teachers(grid)] == ["convnet3-w8"]
    assert {cell.parents["teacher"] for cell in grid.stage("prepare")} == {grid.stage("teacher")[0].id}


def test_what_stands_beside_a_file_counts_unless_flags_say_otherwise(tmp_path: Path) -> None:
    path = file(tmp_path / "conv.pth")
    plain = grid_of(teacher=path).stage("teacher")[0].id
    file(tmp_path / "conv.toml", 'arch = "convnet3"\nmean = [0.5, 0.5, 0.5]\nclass_order = "natural"\naccuracy = 0.9\n')
    spec = teachers(grid_of(teacher=path, overrides={"teacher": {"accuracy": 0.8}}))["convnet3"]
    assert (spec.mean, spec.accuracy, spec.class_order) == ((0.5,) * 3, 0.8, "natural")
    assert grid_of(teacher=path).stage("teacher")[0].id != plain
    shown = set()
    for said in ("", "mean = [0.5, 0.5, 0.5]", "mean = [0.4, 0.5, 0.5]"):  # one file, three teachers, three rows
        file(tmp_path / "conv.toml", f'arch = "convnet3"\n{said}\n')
        shown.add(grid_of(teacher=str(tmp_path / "conv.pth")).stage("evaluate")[0].row["method"])
    assert len(shown) == 3
    file(tmp_path / "conv.toml", "lr = 0.1")
    with pytest.raises(UserError, match=r"unknown key in \S*conv.toml 'lr'; known: accuracy, arch"):
        grid_of(teacher=path)
    file(tmp_path / "conv.toml", "accuracy = 82.24")
    with pytest.raises(UserError, match=r"conv.toml: accuracy: .*less than or equal to 1, not 82.24"):
        grid_of(teacher=path)


@pytest.mark.parametrize(
    ("names", "given", "epochs"),
    [
        ([f"model_{epoch}.pth" for epoch in range(9)] + ["checkpoint.pth", "notes.txt"], "", range(1, 10)),
        ([f"epoch={epoch}-step={99 * epoch}.ckpt" for epoch in (2, 4, 10)] + ["last.ckpt"], "", (2, 4, 10)),
        (["a_05.pt", "a_10.pt", "b_07.pt"], "a_{epoch}.pt", (5, 10)),
    ],
)
def test_a_trajectory_is_read_from_a_folder(tmp_path: Path, names: list[str], given: str, epochs: Any) -> None:
    for name in names:
        file(tmp_path / "run" / name, name)
    spec = teachers(grid_of(teacher_trajectory=tmp_path / "run" / given))["resnet10-small-w16"]
    assert spec.kept_epochs() == tuple(epochs) and [Path(one).name for one in spec.files] == names[: len(epochs)]
    before = spec.file_sha256
    file(Path(spec.files[0]), "others")
    assert teachers(grid_of(teacher_trajectory=tmp_path / "run" / given))[spec.arch].file_sha256 != before


def test_published_weights_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    asked: dict[str, Any] = {"methods": ("g_vbsm",), "dataset": "imagenet-1k", "teacher": "torchvision"}
    with pytest.raises(
        UserError, match=r"resnet18 are not in \S*resnet18-f37072fd.pth; get them by python -c \"import t"
    ):
        grid_of(**asked)
    names = (
        "resnet18-f37072fd",
        "mobilenet_v2-b0353104",
        "efficientnet_b0_rwightman-7f5810bc",
        "shufflenetv2_x0.5-f707e7126e",
    )
    for name in names:
        file(tmp_path / "checkpoints" / f"{name}.pth", name)
    found = teachers(grid_of(**asked))
    assert [Path(spec.files[0]).stem for spec in found.values()] == list(names)
    assert {(spec.mean, spec.std) for spec in found.values()} == {((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
    with pytest.raises(UserError, match="torchvision has no weights of resnet10-small-w16; give a file"):
        grid_of(teacher="torchvision")
    with pytest.raises(UserError, match="1000 classes and imagenet-100 has 100"):
        grid_of(dataset="imagenet-100", teacher="torchvision")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"teacher": "."}, "--teacher . is not a file"),
        ({"teacher": "resnet18=nowhere.pth"}, "--teacher nowhere.pth is not a file"),
        ({"teacher": "resnet81=x.pth"}, "unknown student 'resnet81'"),
        ({"teacher": "x.pth,resnet10-small-w16=x.pth"}, "a second teacher of resnet10-small-w16"),
        ({"teacher_trajectory": "x.pth"}, "expected a folder of checkpoints, or a pattern"),
        ({"teacher_trajectory": "one"}, "one has 1 checkpoints with an epoch"),
        ({"teacher_trajectory": "twice"}, "two files of one epoch"),
    ],
)
def test_what_can_not_be_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: dict[str, str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.pth", "one/model_3.pth", "twice/epoch1-2.pth", "twice/epoch1-3.pth"):
        file(Path(name))
    with pytest.raises(UserError) as caught:
        grid_of(**request_)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, ""),
        ({"overrides": {"teacher": {"epochs": 4}}}, ",weak_teachers=4,teacher.epochs=4"),
        ({"overrides": {"hello": {"weak_teachers": 3}}}, ",weak_teachers=3"),
        ({"teacher": "x.pth"}, ",weak_teachers=1,teacher=9a129038"),
    ],
)
def test_a_row_says_how_few_weak_teachers_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file(Path("x.pth"))
    grid = grid_of(methods=("hello[teachers=by-ipc]",), **settings)
    assert {cell.row["method"] for cell in grid.stage("evaluate")} == {f"hello[teachers=by-ipc{name}]"}
