"""Every installed method passes the conformance suite; a method that doesn't is told how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.api import Distiller, registry
from bench.cli import main
from bench.conformance import MethodConformance, Outcome, run
from bench.conformance.runner import members
from bench.errors import UserError
from tests.conformance import odd_methods
from tests.conformance.odd_methods import Buggy, Careless, Floats, Forgetful, Unseeded


def outcomes(method: str | type[Distiller], **more: Any) -> dict[str, Outcome]:
    """Run the suite on a method."""
    suite = type("Suite", (MethodConformance,), {"method": method, **more})
    return {outcome.title: outcome for outcome in run(suite)}


def reasons(method: str | type[Distiller]) -> dict[str, str]:
    """The titles of the tests that failed, and why."""
    return {title: outcome.reason for title, outcome in outcomes(method).items() if outcome.passed is False}


# what is imported depends on the set, see tests/methods/test_external.py
@pytest.mark.parametrize("name", [name for name in registry.method_names() if name != "external"])
def test_installed_methods_pass(name: str) -> None:
    found = outcomes(name)
    assert len(found) == len(members(MethodConformance)) == 12
    assert {title: outcome.reason for title, outcome in found.items() if outcome.passed is False} == {}


class TestRandomRealOnDigits(MethodConformance):
    """The suite as pytest runs it, on a data set by name."""

    method = "random_real"
    dataset = "digits"
    ipc = 1


def test_what_is_wrong_is_said() -> None:
    found = reasons(Careless)
    assert "odd returned 7 images" in found["images are valid"] and "expected 8" in found["images are valid"]
    assert found["progress stays within its total"] == "progress(5, 3): expected 0 <= done <= total"
    unseeded = reasons(Unseeded)
    assert "task.seed_for" in unseeded["images are the same for the same seed"]
    assert "seeds 0 and 1: see Distiller.depends_on" in unseeded["identity tells seeds apart"]
    assert "killed and run again" in reasons(Forgetful)["images resume to the same bits"]


def test_one_fault_is_told_once_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "method", lambda name: Floats)
    monkeypatch.setattr(Floats, "made", made := [])
    assert main(["check", "odd"]) == 1
    lines = capsys.readouterr().out.splitlines()
    fault = next(index for index, line in enumerate(lines) if line.startswith("✗ images are valid"))
    assert lines[fault + 1].strip() == (
        "odd returned float32 pixels, expected uint8; bench.kit.images.quantise makes it of pixels in [0, 1]"
    )
    stand_on_it = [line for line in lines if "(not run: stopped by what 'images are valid' says)" in line]
    assert len(stand_on_it) == 7 and all(line.startswith("– ") for line in stand_on_it)
    assert lines[-1] == "odd: 1 test failed" and made == [0]


def test_a_bug_is_told_with_its_line_in_the_own_file() -> None:
    line = next(
        at for at, text in enumerate(Path(odd_methods.__file__).read_text().splitlines(), 1) if "view(3)" in text
    )
    said = reasons(Buggy)["images are valid"]
    assert said.startswith("RuntimeError: ") and said.endswith(f" ({odd_methods.__file__}:{line} in distill)")


def test_a_slow_method_makes_one_set_less_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.conformance.method._SLOW", 0.0)
    found = outcomes("random_real")
    assert [one.reason for one in found.values() if one.passed is False] == []
    same = found["images are the same for the same seed"]
    assert same.passed is None and same.reason.startswith("a set takes 0 s, brackets, or quick")


def test_a_slow_set_is_made_once_and_gone_on_with_from_late_in_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.conformance.method._SLOW", 0.0)
    monkeypatch.setattr("bench.conformance.runner.EVERY", 0.0)
    monkeypatch.setattr(Forgetful, "made", made := [])
    assert "killed and run again" in reasons(Forgetful)["images resume to the same bits"]
    assert made[8:] == [2, 3], "the last two of four blocks are made again, after a set of either seed"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"method": "redd"}, "unknown method 'redd'"),
        ({"method": "rded[pol=3]"}, "did you mean 'pool'"),
        ({"method": "rded", "dataset": "digit"}, "did you mean 'digits'"),
        ({"method": "random_real", "dataset": "digits", "ipc": 500}, "the smallest class of digits has"),
        ({"method": "rded[pool=1]"}, "needs 2 patches per class"),
    ],
)
def test_what_cannot_be_tested_is_refused(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        outcomes(**chosen)
