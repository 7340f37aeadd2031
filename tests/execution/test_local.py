"""The local pool: which accelerator each process gets, on a faked CUDA runtime; teams and stops, for real on CPUs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from bench.cli import main
from bench.errors import UserError
from bench.execution import heartbeat, local, workers
from bench.execution.environment import Options, accelerators, device_for, environment
from bench.execution.scheduling import Schedule, shareable
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.artifacts import Store
from tests.conftest import environment as command_environment
from tests.processes import start_command

Runtime = Callable[[int, str | None], list[Any]]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Fake so many CUDA devices, under a value of CUDA_VISIBLE_DEVICES; returns what set_device was called with."""

    def fake(count: int, visible: str | None = None) -> list[Any]:
        current: list[Any] = []

        def set_device(device: Any) -> None:
            index = torch.device("cuda", device).index if isinstance(device, int) else device.index
            if index is None:
                raise ValueError(f"Expected a torch.device with a specified index or an integer, but got: {device}")
            current.append(index)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", set_device)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"fake {device}")
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return current

    return fake


@pytest.mark.parametrize(
    ("count", "device", "expected"),
    [
        (2, "auto", 2),
        (8, "cuda", 8),
        (1, "auto", 1),
        (0, "auto", 0),
        (8, "cuda:3", 1),
        (8, "cpu", 0),
    ],
)
def test_how_many_accelerators_are_here(runtime: Runtime, count: int, device: str, expected: int) -> None:
    runtime(count)
    assert accelerators(device) == expected


@pytest.mark.parametrize("count", [2, 8])
def test_every_process_has_a_device_with_an_index(runtime: Runtime, count: int, monkeypatch: Any) -> None:
    current = runtime(count)
    assert device_for("auto") == device_for("cuda") == torch.device("cuda", 0) and current == [0, 0]
    assert device_for("cuda:1") == torch.device("cuda", 1) and device_for("cpu") == torch.device("cpu")
    for rank in range(count):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert device_for("auto") == torch.device("cuda", rank) and current[-1] == rank
    monkeypatch.setenv("LOCAL_RANK", str(count))
    with pytest.raises(UserError, match=f"finds {count} CUDA devices here, and device {count} is needed"):
        device_for("auto")
    assert environment("cuda:1", 1)["device"] == "cuda" and environment("cuda:1", 1)["accelerator"] == "fake cuda:1"


def test_who_sees_one_device_takes_it_and_no_device_is_an_error(runtime: Runtime, monkeypatch: Any) -> None:
    runtime(1, "5")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_for("auto") == torch.device("cuda", 0)
    runtime(0)
    assert device_for("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="finds no CUDA device here.*use --device cpu"):
        device_for("cuda")
    with pytest.raises(UserError, match="torch knows no such device; expected auto"):
        device_for("tpu9")


GRID = plan(Request(methods=("sre2l", "random_real"), ipc=(1, 10), seeds=(0, 1), baselines=False))


class _Pool:
    """A pool of one slot that computes nothing, and tells which devices its cells would have."""

    _processes: ClassVar[dict[int, Any]] = {}

    def submit(self, _work: Any, _grid: Any, cell: Any, options: Options, group: dict[str, str]) -> Future[str]:
        _used.setdefault(cell.id, {})[int(group["RANK"])] = options.device, int(group["WORLD_SIZE"])
        future: Future[str] = Future()
        future.set_result("done")
        return future

    def shutdown(self, **_: Any) -> None:
        pass


_used: dict[str, dict[int, tuple[str, int]]] = {}  # cell -> rank -> device and size of the team


class _Watcher:
    def update(self, schedule: Schedule) -> None:
        pass


@pytest.mark.parametrize(("count", "processes"), [(2, 1), (8, 1), (8, 2), (8, 8), (0, 2)])
def test_slots_and_teams_have_accelerators_of_their_own(
    runtime: Runtime, count: int, processes: int, monkeypatch: Any, tmp_path: Path
) -> None:
    runtime(count)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(workers, "pool", _Pool)
    _used.clear()
    options = Options(store=tmp_path)
    slots = local.count_slots(GRID, options, None, processes)
    assert slots == (count or 4)
    schedule = Schedule(GRID, dict.fromkeys((cell.id for cell in GRID.cells), "todo"))
    local.run(schedule, options, slots, _Watcher(), processes)
    assert len(_used) == len(GRID.cells)
    for cell in GRID.cells:
        team = _used[cell.id]
        size = processes if shareable(cell) else 1
        assert list(team) == list(range(size)) and {one for _, one in team.values()} == {size}
        devices = {device for device, _ in team.values()}
        assert len(devices) == size if count else devices == {"auto"}
    students = {_used[cell.id][0][0] for cell in GRID.stage("evaluate")}
    if count == 2:
        assert students == {"cuda:0", "cuda:1"}
    elif count == 8:
        assert len(students) > 3, "a job per accelerator, not all on the first"


def test_more_processes_than_accelerators_are_refused(runtime: Runtime, tmp_path: Path) -> None:
    runtime(2)
    with pytest.raises(UserError, match="--processes 4: each needs an accelerator of its own, and 2 are here"):
        local.count_slots(GRID, Options(store=tmp_path), None, 4)
    assert local.count_slots(GRID, Options(store=tmp_path), 7, 2) == 2, "each of a team has its own"
    assert local.count_slots(GRID, Options(store=tmp_path, device="cpu"), 1, 3) == 3


TEAM = (
    "--methods", "random_real", "--ipc", "1", "--seeds", "0", "--dataset", "folder:colours", "--protocol", "tiny.toml",
    "--students", "convnet2-w8", "--no-baselines", "--set", "teacher.arch=convnet2-w8", "--set", "teacher.epochs=2",
    "--set", "teacher.batch_size=8", "--labels", "teacher:fp16", "--device", "cpu", "--cluster", "local",
)  # fmt: skip


def test_two_processes_share_a_cell(colours: Path, tiny_protocol: Path, bench: Any, monkeypatch: Any) -> None:
    done = bench("run", *TEAM, "--processes", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in colours.parent.glob(".bench/cells/*/record.json")]
    shared = {one["cell"]["stage"]: one["run"]["environment"].get("processes") for one in records}
    assert shared == {"teacher": "2", "distill": None, "label": None, "evaluate": None}
    monkeypatch.chdir(colours.parent)
    assert main(["run", *TEAM[:-1], "inline", "--processes", "2", "--force", "evaluate"]) == 2


def test_a_warning_saves_the_work_of_the_cells_in_flight(colours: Path, tiny_protocol: Path) -> None:
    longer = ("--set", "teacher.epochs=100000", "--jobs", "1")  # a checkpoint is due in half a minute
    outputs = [colours.parent / name for name in ("stdout", "stderr")]
    started = start_command(["run", *TEAM, *longer], colours.parent, command_environment(), outputs)
    deadline, store = time.monotonic() + 90, Store(colours.parent / ".bench")
    while not any(one and one.done for one in (heartbeat.read(store, cell) for cell in store.ids("heartbeats"))):
        assert time.monotonic() < deadline and started.is_alive()
        time.sleep(0.05)
    started.terminate()
    started.join(60)
    assert started.exitcode == 130 and "the same command goes on from here" in outputs[1].read_text()
    assert list(colours.parent.glob(".bench/work/teacher*/*.ckpt")), "long before a checkpoint is due"
