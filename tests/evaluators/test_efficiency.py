"""Efficiency: the arithmetic of the clock, that the students' own loop is timed, and the suite as a whole."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api import LabelSource, catalogue
from bench.errors import UserError
from bench.execution.environment import Options
from bench.execution.local import count_slots
from bench.kit import peak_memory
from bench.kit.checkpoint import Checkpoint, flush
from bench.kit.views import AugmentedBatch
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.planning.protocols import changed, choose
from evaluators import classification, efficiency
from evaluators.classification import Classification
from evaluators.efficiency import Efficiency, EfficiencyProtocol, Enough, Stopwatch, images_of_blocks
from tests.conftest import Bench
from tests.evaluators.conftest import CPU, Judge, MakeTask, dataset, protocol


def timed(**changes: Any) -> EfficiencyProtocol:
    usual = protocol(**{"evaluator": "efficiency"}).model_dump()
    return EfficiencyProtocol.model_validate(usual | {"untimed": 2, "steps": 3, "blocks": 4} | changes)


def test_the_stopwatch_times_blocks_and_nothing_before_them() -> None:
    ends, told = iter([10.0, 11.0, 13.0, 16.0, 20.0]), []
    watch = Stopwatch(timed(), lambda: next(ends), lambda done, total, **_: told.append((done, total)))
    done = 0
    with pytest.raises(Enough):
        while True:
            done += 1
            watch(done, 99)
    assert done == 2 + 3 * 4 and told[-1] == (14, 14)
    assert watch.seconds == [1.0, 2.0, 3.0, 4.0]
    assert next(ends, None) is None  # the device is waited for five times and no more


class Looking(Judge):
    """Remembers how many images it labelled at each step."""

    def soft_labels(self, views: AugmentedBatch, step: int) -> torch.Tensor:
        self.counts: list[int] = [*getattr(self, "counts", []), len(views.pixels)]
        return super().soft_labels(views, step)


class Backwards(Looking):
    """Shows the batches of every epoch from its last to its first."""

    def replayed_batches(self, epoch: int) -> list[tuple[int, int]]:
        return [(epoch, batch) for batch in reversed(range(3))]


@pytest.mark.parametrize("labels", [Looking, Backwards])
def test_what_is_counted_is_what_was_shown(make_task: MakeTask, labels: type[Looking], tmp_path: Path) -> None:
    rules, judge = timed(), labels()  # 12 images in batches of 5, 5 and 2
    result = Efficiency().evaluate(make_task(rules, labels=judge))
    assert len(judge.counts) == rules.iterations == 14
    shown = judge.counts[2:]
    schedule = Efficiency().schedule(rules, dataset().info, ipc=3, seed=0)
    blocks = images_of_blocks(schedule, rules, judge)
    assert blocks == [sum(shown[first : first + 3]) for first in range(0, 12, 3)] == [12, 12, 12, 12]
    assert images_of_blocks(schedule, timed(untimed=1, steps=2), None) == [7, 10, 7, 7]
    assert set(result) == {"cost", "parameters"} and list(tmp_path.iterdir()) == []


def test_the_numbers_by_hand(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 6, 9, 21, 27, 100, 102, 104, 108, 110])  # blocks of 6, 3, 12, 6 s; bare ones of 2, 2, 4, 2
    monkeypatch.setattr(efficiency, "clock", lambda device: lambda: float(next(ticks)))
    cost = Efficiency().evaluate(make_task(timed()))["cost"]
    assert cost["batch_size"] == 5 and cost["iterations"] == 12
    assert cost["seconds_per_iteration"] == 6 / 3
    assert cost["milliseconds_per_image"] == 1000 * 6 / 12
    assert (cost["fastest"], cost["slowest"]) == (250.0, 1000.0)
    assert cost["times_bare"] == pytest.approx((6 / 12) / (2 / 15))  # the bare loop's batches are all of 5
    assert cost["accelerator_bytes"] is None and cost["host_bytes"] > 50 * 2**20


def test_it_is_the_students_own_loop(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first steps under the stopwatch leave the weights that the same steps leave without it."""
    rules = timed(untimed=1, steps=4, blocks=2)  # 9 steps: three whole epochs
    weights: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(
        efficiency, "bare_seconds", lambda student, *_: weights.append(student.state_dict()) or [1.0, 1.0]
    )
    Efficiency().evaluate(make_task(rules, work=tmp_path / "timed"))
    caught: list[Any] = []
    plain = classification.train_classifier
    monkeypatch.setattr(classification, "train_classifier", lambda net, *rest: caught.append(net) or plain(net, *rest))
    Classification().evaluate(make_task(protocol(epochs=3), work=tmp_path / "plain"))
    assert all(torch.equal(tensor, weights[0][name]) for name, tensor in caught[0].state_dict().items())


@pytest.mark.parametrize("changes", [{"labels": None}, {"images": None, "labels": None}])
def test_hard_labels_and_real_images_can_be_timed(make_task: MakeTask, changes: dict[str, Any]) -> None:
    cost = Efficiency().evaluate(make_task(timed(blocks=1), **changes))["cost"]
    assert cost["batch_size"] == (16 if "images" in changes else 5) and cost["milliseconds_per_image"] > 0


def test_a_killed_measurement_starts_anew(make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of the middle of a loop that went on elsewhere would be of too few blocks."""
    monkeypatch.setattr("bench.kit.checkpoint.Checkpoint.due", lambda self: True)
    there: list[bool] = []

    def write(self: Checkpoint, *_: Any) -> None:
        time.sleep(0.1)  # a slow disk
        there.append(self.folder.is_dir())

    monkeypatch.setattr(Checkpoint, "_write", write)
    rules, steps = timed(), 0

    def die(done: int, total: int, **_: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Efficiency().evaluate(make_task(rules, progress=die))
    judge = Looking()
    Efficiency().evaluate(make_task(rules, labels=judge))
    assert len(judge.counts) == rules.iterations
    flush()
    assert there and all(there), "nothing is written while the folder goes, or after"


def test_epochs_are_those_that_are_timed() -> None:
    info, usual = dataset().info, Classification().schedule(protocol(), dataset().info, ipc=3, seed=3)
    for iterations, epochs in ((3, 1), (4, 2), (6, 2), (7, 3)):
        rules = timed(untimed=1, steps=iterations - 1, blocks=1)
        assert Efficiency().schedule(rules, info, ipc=3, seed=3) == usual.model_copy(update={"epochs": epochs})


def test_an_accelerator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    assert efficiency.clock(CPU)() > 0 and not waited
    device = torch.device("cuda", 0)
    assert efficiency.clock(device)() > 0 and waited == [device]


def test_peaks_of_an_accelerator_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    device = torch.device("cuda", 0)
    peak_memory.reset(device)
    assert calls == ["init", "reset"] and peak_memory.accelerator(device) == 7
    assert peak_memory.accelerator(CPU) is None


def touched(mebibytes: int) -> mmap.mmap:
    """Memory of its own that is resident; what an allocator hands out may have been so before."""
    block = mmap.mmap(-1, mebibytes * 2**20)
    for place in range(0, len(block), mmap.PAGESIZE):
        block[place] = 1
    return block


def test_the_peak_of_the_host_is_that_since_the_reset() -> None:
    touched(256).close()
    peak_memory.reset(CPU)
    before = peak_memory.host()
    touched(64).close()
    assert 48 * 2**20 < peak_memory.host() - before < 128 * 2**20


def test_any_protocol_can_be_timed() -> None:
    own = choose("official", catalogue.dataset("synthetic-imagenet-1k"), "sre2l")
    found = changed(own, {"evaluator": "efficiency", "steps": 2, "form": "small"})
    assert isinstance(found, EfficiencyProtocol) and found.loss == "kl" and found.batch_size == 1024
    assert found.name == "official-sre2l[small,evaluator=efficiency,steps=2]"
    with pytest.raises(UserError, match="evaluator"):
        changed(own, {"evaluator": "efficency"})
    with pytest.raises(UserError, match="steps"):
        changed(own, {"steps": 2})
    assert changed(own, {"epochs": {1: 100, 10: 40}}).name == "official-sre2l[epochs=1:100 10:40]"


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("synthetic-imagenet-1k", {"sre2l": 1024, "g_vbsm": 1024, "rded": 100, "hello": 100}),
        ("synthetic", {"sre2l": 1000, "g_vbsm": 1000, "rded": 100, "hello": 100}),
    ],
)
def test_batches_are_the_authors_own_and_then_the_same(name: str, batches: dict[str, int]) -> None:
    info = catalogue.dataset(name)
    for method, batch in batches.items():
        for wanted, expected in (("official", batch), ("common", 100)):
            rules = changed(choose(wanted, info, method), {"evaluator": "efficiency"})
            assert Efficiency().schedule(rules, info, ipc=10, seed=0).batch_size == expected


def test_labels_of_other_views_are_refused(make_task: MakeTask) -> None:
    class Stored(Judge):
        def schedule(self) -> Any:
            return Classification().schedule(protocol(epochs=9), dataset().info, ipc=3, seed=0)

    labels: LabelSource = Stored()
    with pytest.raises(UserError, match="other views"):
        Efficiency().evaluate(make_task(timed(), labels=labels))


SMALLEST = (
    "--methods", "sre2l,rded", "--ipc", "1", "--student-seeds", "0,1", "--students", "convnet2-w8",
    "--set", "teacher.arch=convnet2-w8", "--set", "protocol.steps=1", "--set", "protocol.blocks=2",
)  # fmt: skip


def test_nothing_runs_beside_what_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(7), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    usual = Request(methods=("rded",), ipc=(1,), seeds=(0,))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert count_slots(plan(usual), Options(store=Path())) == 4
    timed = usual.model_copy(update={"overrides": {"protocol": {"evaluator": "efficiency"}}})
    assert count_slots(plan(timed), Options(store=Path())) == 1


@pytest.mark.campaign
def test_the_suite_in_a_tiny_form(bench: Bench, tmp_path: Path) -> None:
    """Through the command line: no data, a board by device that follows from its records, and no other board."""
    arguments = ("run", "--suite", "efficiency", "--small", *SMALLEST, "--out", "boards", "--cluster", "inline")
    done = bench(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "boards" / "suites" / "efficiency"
    (path,) = folder.glob("*.md")
    stem = path.name.removesuffix(".md")
    assert stem.startswith("synthetic.")
    assert sorted(p.name for p in folder.iterdir()) == [f"{stem}.csv", f"{stem}.md", f"{stem}.records.jsonl"]
    text = path.read_text()
    assert "each method under its authors' recipe" in text and "no accelerator was available" in text
    entries = [json.loads(line) for line in (folder / f"{stem}.records.jsonl").read_text().splitlines()]
    batches = {
        (one["method"].partition("[")[0], one["protocol"].partition("[")[0]): one["cost"]["batch_size"]
        for one in entries
    }
    assert batches == {
        ("sre2l", "official-sre2l"): 100, ("rded", "official-rded-small-100"): 20,
        ("sre2l", "common"): 20, ("rded", "common"): 20,
    }  # fmt: skip
    assert all("top1" not in one for one in entries)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    again = bench("report", "--store", ".bench", "--out", "boards")
    assert again.returncode == 0, again.stdout + again.stderr
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert bench("report", "--check", "--out", "boards").returncode == 0
    path.write_text(text.replace("sre2l", "SRe2L"))
    assert bench("report", "--check", "--out", "boards").returncode == 1
    assert "nothing to do" in bench(*arguments).stdout
