"""Accelerator hours of a grid: against numbers worked out by hand from what is printed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.api import registry
from bench.api.architectures import LARGE, network_hours
from bench.cli import main
from bench.planning import cost_estimate
from bench.planning.cost_estimate import Estimate, LikeCells, Measured, measured_on
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan
from bench.store.artifacts import Store
from bench.store.record import Record, RunFacts

PASS = 0.75 / 1024  # seconds: a training step of ResNet-18 for an image (HeLlO, supplement Table 6, SRe2L's row)
TRAIN = 1_281_167
NOTHING = Measured()


def grid(**request: Any) -> Grid:
    usual = {"dataset": "imagenet-1k", "ipc": (50,), "seeds": (0,), "protocols": ("official",), "baselines": False}
    return plan(Request(**{**usual, **request}))


def estimate(
    grid: Grid, done: tuple[str, ...] = (), store: Store | None = None, measured: Measured = NOTHING
) -> Estimate | None:
    todo = {cell.id for cell in grid.cells if cell.stage not in done}
    return cost_estimate.estimate(grid, todo, store, measured)


def found(measured: Measured = NOTHING, **request: Any) -> dict[str, float]:
    estimated = estimate(grid(**request), measured=measured)
    assert estimated is not None and not estimated.unknown and not estimated.like
    return {str(stage): value for stage, value in estimated.hours.items()}


def test_sre2l_by_hand() -> None:
    by_stage = found(methods=("sre2l",))
    assert by_stage["distill"] == pytest.approx(29.0)
    assert by_stage["teacher"] == pytest.approx(90 * TRAIN * PASS / 3600) == pytest.approx(23.46, abs=0.01)
    stored = 300 * 50_000 * PASS / 3  # a forward pass is a third of a step
    assert by_stage["label"] == pytest.approx(stored / 3600)
    assert by_stage["evaluate"] == pytest.approx(300 * 50_000 * PASS / 3600) == pytest.approx(3.05, abs=0.01)


def test_g_vbsm_by_hand() -> None:
    by_stage = found(methods=("g_vbsm",), ipc=(50, 10))
    assert by_stage["distill"] == pytest.approx(114.1 * 60 / 50)
    assert by_stage["teacher"] == pytest.approx(4 * 90 * TRAIN * PASS / 3600)  # none is cheaper than ResNet-18
    assert by_stage["prepare"] == pytest.approx(4 * TRAIN * PASS / 3 / 3600)
    assert by_stage["label"] == pytest.approx(300 * 60_000 * 4 * PASS / 3 / 3600)
    assert by_stage["evaluate"] == pytest.approx(300 * 60_000 * 0.77 / 1024 / 3600)


def test_rded_and_hello_by_hand() -> None:
    rded = found(methods=("rded",), ipc=(10,))
    assert rded["prepare"] == pytest.approx(7 / 60, rel=1e-3) and rded["distill"] == 0
    assert rded["evaluate"] == pytest.approx(300 * 10_000 * 0.12 / 100 / 3600) == pytest.approx(1.0)
    hello = found(methods=("hello",), ipc=(10,))
    assert hello["prepare"] == rded["prepare"] and hello["teacher"] == rded["teacher"]
    assert hello["evaluate"] == pytest.approx(300 * 10_000 * 0.21 / 100 / 3600) == pytest.approx(1.75)
    assert hello["label"] == pytest.approx(20 * TRAIN * PASS * 6.111 / 1.814 / 3600)


def test_settings_count() -> None:
    few = found(methods=("sre2l[iterations=1000]",))
    assert few["distill"] == pytest.approx(29.0 / 4)
    assert found(methods=("rded",), ipc=(10,), overrides={"rded": {"crops": 10}})["prepare"] == pytest.approx(
        2 * 7 / 60, rel=1e-3
    )
    short = found(methods=("sre2l",), overrides={"protocol": {"epochs": 30}, "teacher": {"epochs": 9}})
    usual = found(methods=("sre2l",))
    assert short["evaluate"] == pytest.approx(usual["evaluate"] / 10)
    assert short["teacher"] == pytest.approx(usual["teacher"] / 10)
    pruned = found(methods=("sre2l",), labels=("stored:prune10+fp16",))
    assert pruned["label"] == pytest.approx(usual["label"] / 10)


def test_other_students_cost_as_they_multiply() -> None:
    usual = found(methods=("rded",), ipc=(10,))["evaluate"]
    extra = usual - 3e6 * PASS / 3600  # of the teacher, which stays the same
    assert found(methods=("rded",), ipc=(10,), students=("vit_b_16",))["evaluate"] == pytest.approx(
        3e6 * PASS / 3600 * 17.564 / 1.814 + extra
    )
    assert found(methods=("rded",), ipc=(10,), students=("shufflenet_v2_x0_5",))["evaluate"] == pytest.approx(usual)


def test_an_ensemble_that_labels_online_costs_every_network() -> None:
    online = found(methods=("g_vbsm",), ipc=(10,), labels=("online",))["evaluate"]
    assert online == pytest.approx(3e6 * PASS / 3600 * (1 + 4 / 3))


def test_time_grows_with_classes_and_pixels() -> None:
    hundred = found(methods=("sre2l",), dataset="imagenet-100")
    assert hundred["distill"] == pytest.approx(2.9)
    whole = grid(methods=("sre2l",))
    half = whole.model_copy(update={"dataset": whole.dataset.model_copy(update={"image_size": 158})})
    smaller, larger = estimate(half), estimate(whole)
    assert smaller is not None and larger is not None
    for stage, hours in larger.hours.items():
        assert smaller.hours[stage] == pytest.approx(hours * (158 / 224) ** 2)


def test_full_data_and_hard_labels() -> None:
    both = found(methods=("random_real",), ipc=(10,), labels=("hard",), baselines=True, protocols=("common",))
    assert both["distill"] == 0
    assert both["evaluate"] == pytest.approx((300 * 10_000 + 90 * TRAIN) * PASS / 3600)


def test_what_is_done_is_not_counted() -> None:
    rest = estimate(grid(methods=("sre2l",)), done=("teacher", "distill"))
    assert rest is not None and set(rest.hours) == {"label", "evaluate"}
    assert estimate(grid(methods=("sre2l",)), done=("teacher", "prepare", "distill", "label", "evaluate")) is None


def test_of_small_images_finished_cells_alone_tell() -> None:
    assert estimate(grid(methods=("rded",), dataset="cifar10", ipc=(10,), protocols=("common",))) is None
    known = Estimate(small=True, hours={"distill": 0.05}, unknown=Counter({"evaluate of classification": 2}), like=3)
    assert known.lines(NOTHING) == ["about 3 min of computing for 3 of 5 cells, as others like them took here"]


def test_what_nobody_knows_is_left_out_and_said() -> None:
    updated = estimate(grid(methods=("hello",), ipc=(10,), students=("resnet18", "timm:xcit_nano")))
    assert updated is not None and updated.unknown == {"evaluate of classification": 1}
    assert updated.lines(NOTHING)[-1] == "without 1 cells of which nothing is known: 1 evaluate of classification"
    shown = 2 * 300 * 10 * 1000 * 6.111 / 1.814  # twice in each of 300 steps, through RN50
    assert updated.hours["distill"] == pytest.approx(shown * PASS / 3600)


def test_cells_like_others_take_as_long(tmp_path: Path) -> None:
    """Another seed of the same settings is alike; other settings, IPC or methods are not."""
    store, both = Store(tmp_path), grid(methods=("sre2l",), seeds=(0, 1))
    first, second = both.stage("distill")
    (other,) = grid(methods=("sre2l[iterations=9]",)).stage("distill")
    for cell, seconds in ((first, 7200.0), (other, 1.0)):
        run = RunFacts(seconds=seconds, peak_memory=0, environment={}, started="")
        record = Record(id=cell.id, state="done", cell=cell, run=run)
        (tmp_path / "cells" / cell.id).mkdir()
        (tmp_path / "cells" / cell.id / "record.json").write_text(record.text)
    assert LikeCells(store).seconds(second) == 7200.0 and LikeCells(store).seconds(other) == 1.0
    assert all(LikeCells(store).seconds(cell) is None for cell in grid(methods=("sre2l",), ipc=(10,)).cells)
    one = estimate(both, done=("teacher", "label", "evaluate"), store=store)
    assert one is not None and one.like == 2 and one.hours["distill"] == 4.0
    assert "of which 2 cells as long as others like them took here" in one.lines(NOTHING)


def entry(method: str, milliseconds: float, **facts: Any) -> str:
    cost = {
        "batch_size": 100, "iterations": 50, "seconds_per_iteration": milliseconds / 10, "fastest": milliseconds,
        "slowest": milliseconds, "milliseconds_per_image": milliseconds, "times_bare": 1.1, "accelerator_bytes": 5,
        "host_bytes": 9,
    }  # fmt: skip
    usual = {
        "schema_version": 1, "cell": f"{method}-{milliseconds}-{facts}", "dataset": "made-up-imagenet-1k", "title": "t",
        "method": f"{method}[crops=1]", "labels": "x", "asked": "native", "ipc": 10, "student": "resnet18",
        "protocol": f"official-{method}[evaluator=efficiency]", "protocol_version": 1, "seed": 0, "state": "done",
        "metric": "cost", "cost": cost, "environment": {"accelerator": "NVIDIA H200", "cpu": "EPYC"},
    }  # fmt: skip
    return json.dumps(usual | facts)


def test_what_was_measured_on_an_accelerator_is_better_than_what_is_printed(tmp_path: Path) -> None:
    lines = [
        entry("sre2l", 0.2), entry("rded", 0.3, seed=0), entry("rded", 0.5, seed=1), entry("rded", 0.4, seed=2),
        entry("rded", 9.0, protocol="common[evaluator=efficiency]"), entry("rded", 8.0, asked="hard"),
        entry("hello", 7.0, environment={"cpu": "EPYC"}), entry("rded", 3.0, student="vit_b_16"),
    ]  # fmt: skip
    assert measured_on(tmp_path) == NOTHING
    (tmp_path / "made-up-imagenet-1k.nvidia-h200.records.jsonl").write_text("\n".join(lines))
    (tmp_path / "made-up.nvidia-h200.records.jsonl").write_text(entry("rded", 0.001))
    measured = measured_on(tmp_path)
    assert measured == Measured(
        "NVIDIA H200", {("resnet18", "sre2l"): 0.2, ("resnet18", "rded"): 0.4, ("vit_b_16", "rded"): 3.0}
    )
    assert found(measured, methods=("rded",), ipc=(10,))["evaluate"] == pytest.approx(3e6 * 0.4e-3 / 3600)
    vit = found(measured, methods=("rded",), ipc=(10,), students=("vit_b_16",))
    assert vit["evaluate"] == pytest.approx(3e6 * 3e-3 / 3600)
    estimated = estimate(grid(methods=("rded",)), measured=measured)
    assert estimated is not None and "students as measured on NVIDIA H200" in estimated.lines(measured)[0]


def test_every_network_a_default_asks_for_is_known() -> None:
    assert all(network_hours(1, (network,)) for network in LARGE)
    costs = {name: registry.method(name).info.student_cost for name in registry.method_names()}
    assert {name for name, cost in costs.items() if cost} == {"sre2l", "g_vbsm", "rded", "hello"}


def test_a_method_from_elsewhere_is_estimated_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it states of itself is all there is to know: its name means nothing."""
    own = found(methods=("sre2l",))
    plugin = registry.method("sre2l")
    renamed: Any = type("Theirs", (plugin,), {"info": replace(plugin.info, name="theirs")})
    plain = registry.method
    monkeypatch.setattr(registry, "method", lambda name: renamed if name == "theirs" else plain(name))
    monkeypatch.setattr(registry, "method_names", lambda: ("theirs",))
    theirs = found(methods=("theirs",), protocols=("official-sre2l",))
    assert theirs == pytest.approx(own)


def test_the_dry_run_says_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--ipc", "50", "--seeds", "0", "--protocol", "official", "--no-baselines", "--dry-run"]
    where = ["--store", str(tmp_path / "none"), "--out", str(tmp_path)]
    assert main(["run", "--methods", "sre2l", "--dataset", "imagenet-1k", *arguments, *where]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "about 57 accelerator hours (RTX 4090 and A5000, as printed): teacher 23, distill 29, label 1.0," in text
    assert main(["run", "--methods", "sre2l", "--dataset", "cifar10", *arguments, *where]) == 0
    assert "accelerator hours" not in capsys.readouterr().out


def test_estimating_asks_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocols and schedules are read once for all the cells they stand in."""
    read: list[str] = []
    plain = cost_estimate.read_settings
    monkeypatch.setattr(cost_estimate, "read_settings", lambda *args: read.append(args[2]) or plain(*args))
    estimate(grid(methods=("rded", "hello"), ipc=(1, 10), seeds=tuple(range(20)), labels=("native", "hard")))
    assert len(read) == 4
