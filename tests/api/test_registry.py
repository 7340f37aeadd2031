"""Plug-ins of other packages: found by their entry points; a broken or clashing one is named and left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.api import Student, architectures, registry
from bench.api.plugins import Group, origin
from bench.errors import UserError
from bench.kit import models
from tests.conftest import TINY_PROTOCOL, Bench
from tests.packages import install

METHOD = """
from typing import ClassVar

from bench.api import Distiller, MethodInfo


class Mine(Distiller):
    info: ClassVar[MethodInfo] = MethodInfo(name="mine", title="Mine", version=1, paper="", labels="teacher")

    def distill(self, task):
        raise NotImplementedError


class Unfinished(Distiller):
    pass
"""
STUDENT = """
from bench.api import Student


def build(classes, image_size):
    from torch import nn

    return nn.Sequential(nn.AvgPool2d(image_size // 4), nn.Flatten(), nn.Linear(48, classes))


LINEAR = Student(title="a linear classifier of 4 x 4 means", build=build)
"""
OUTSIDE = {"PYTHONPATH": "outside"}


@pytest.fixture(autouse=True)
def installed() -> None:
    """Look up what is installed before a test adds to it, since that is done once per process."""
    assert registry.METHODS.usable and registry.EVALUATORS.usable


def distiller(*distributions: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Group[object]:
    """The group of methods where each distribution brings one called ``mine``."""
    for name in distributions:
        install(folder, name, {f"{name}.py": METHOD}, {"bench.methods": {"mine": f"{name}:Mine"}})
    monkeypatch.syspath_prepend(folder)
    return Group("bench.methods", "method", registry.Distiller, ["info"])


def test_a_plug_in_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group = distiller("one", folder=tmp_path, monkeypatch=monkeypatch)
    assert [*group.usable] == [*registry.method_names(), "mine"]  # ours first
    assert origin(group.point("mine")) == "one 1.0" and origin(group.point("rded")).startswith("distill-bench ")
    assert capsys.readouterr().err == ""


def test_two_that_claim_a_name_are_both_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group = distiller("one", "two", folder=tmp_path, monkeypatch=monkeypatch)
    assert "mine" not in group.usable and "rded" in group.usable
    (line,) = capsys.readouterr().err.splitlines()
    assert "'mine' (one:Mine) of one 1.0" in line and "two 1.0" in line
    with pytest.raises(UserError, match="two 1.0 has one of the same name"):
        group.get("mine")


def test_our_own_names_are_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "aaa", {"aaa.py": METHOD}, {"bench.methods": {"rded": "aaa:Mine"}})
    monkeypatch.syspath_prepend(tmp_path)
    group: Group[object] = Group("bench.methods", "method", registry.Distiller, ["info"])
    assert group.usable["rded"] is registry.method("rded")
    (line,) = capsys.readouterr().err.splitlines()
    assert "'rded' (aaa:Mine) of aaa 1.0 is left out: distill-bench" in line


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("odd:Unfinished", "it does not define info"),
        ("odd:METHOD", "AttributeError"),
        ("odd:ClassVar", "it is not a subclass of Distiller"),
        ("nowhere:Mine", "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_broken_one_is_named_with_its_distribution_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, reason: str
) -> None:
    install(tmp_path, "odd", {"odd.py": METHOD}, {"bench.methods": {"mine": target}})
    monkeypatch.syspath_prepend(tmp_path)
    group: Group[object] = Group("bench.methods", "method", registry.Distiller, ["info"])
    with pytest.raises(UserError, match=r"'mine' \(.*\) of odd 1.0 is left out: ") as raised:
        group.get("mine")
    assert reason in str(raised.value) and "\n" not in str(raised.value)


def test_everything_else_goes_on(bench: Bench, tmp_path: Path) -> None:
    """A method and an evaluator that cannot be imported."""
    broken = "from bench.api import NameOfAnotherRelease\n"
    points = {"bench.methods": {"old": "old:Old"}, "bench.evaluators": {"aged": "old:Aged"}}
    install(tmp_path / "outside", "old-plugin", {"old.py": broken}, points)
    listed = bench("list", "methods", env=OUTSIDE)
    assert listed.returncode == 0 and "rded" in listed.stdout and "old" not in listed.stdout.split()
    (line,) = listed.stderr.splitlines()
    assert "'old' (old:Old) of old-plugin 1.0" in line and "NameOfAnotherRelease" in line
    asked = bench("run", "--methods", "old", "--dry-run", env=OUTSIDE)
    assert asked.returncode == 2 and line in asked.stderr.splitlines() and "Traceback" not in asked.stderr
    evaluator = bench("run", "--methods", "rded", "--set", "protocol.evaluator=aged", "--dry-run", env=OUTSIDE)
    assert evaluator.returncode == 2 and "evaluator 'aged' (old:Aged) of old-plugin 1.0" in evaluator.stderr
    chosen = ("--labels", "hard", "--ipc", "1", "--seeds", "0", "--no-baselines", "--set", "protocol.epochs=1")
    run = bench(
        "run", "--methods", "random_real", *chosen, "--cluster", "inline", "--store", "s", "--out", "b", env=OUTSIDE
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "b" / "digits.md").is_file()


def test_students_and_protocols_of_other_packages(bench: Bench, tmp_path: Path) -> None:
    files = {
        "mine/__init__.py": STUDENT,
        "mine/protocols/__init__.py": "",
        "mine/protocols/tiny.toml": TINY_PROTOCOL.replace('"common"', '"named"'),
        "mine/protocols/common.toml": TINY_PROTOCOL.replace('"tiny"', '"common"'),
    }
    points = {"bench.students": {"linear": "mine:LINEAR"}, "bench.protocols": {"mine": "mine.protocols"}}
    install(tmp_path / "outside", "mine", files, points)
    listed = bench("list", "students", env=OUTSIDE)
    assert "a linear classifier of 4 x 4 means" in listed.stdout and listed.stderr == ""
    protocols = bench("list", "protocols", env=OUTSIDE)
    assert "two epochs, for tests" in protocols.stdout
    assert protocols.stderr.splitlines() == [
        "bench: protocol common.toml of mine 1.0 is left out: another has the same name"
    ]
    run = bench("run", "--methods", "random_real", "--labels", "hard", "--ipc", "1", "--seeds", "0", "--no-baselines",
                "--students", "linear", "--protocol", "tiny", "--cluster", "inline", "--store", "s", "--out", "b",
                env=OUTSIDE)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "linear" in (tmp_path / "b" / "digits.md").read_text()
    near = bench("run", "--methods", "random_real", "--students", "lineal", "--dry-run", env=OUTSIDE)
    assert near.returncode == 2 and "did you mean 'linear'?" in near.stderr


def test_a_student_that_cannot_take_the_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(classes: int, image_size: int) -> object:
        from torch import nn

        return nn.Conv2d(3, classes, image_size + 1)

    group: Group[Student] = Group("bench.students", "student", Student)
    monkeypatch.setattr(group, "_points", {"big": []})
    monkeypatch.setattr(group, "get", lambda name: Student(title="Too big", build=build))  # type: ignore[arg-type]
    monkeypatch.setattr(architectures, "STUDENTS", group)
    with pytest.raises(UserError, match="big can't take images of 16 px"):
        models.build("big", 10, 16, (0.5,) * 3, (0.5,) * 3)
