"""Checkpoints: what was saved comes back, half a file does not, and training goes on to the same bits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench import stopping
from bench.kit.checkpoint import Checkpoint, flush, restore_training, training_state
from bench.kit.models import build
from bench.kit.optim import decay_groups

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]

OPTIMIZERS: dict[str, MakeOptimizer] = {
    "adamw": lambda model: torch.optim.AdamW(decay_groups(model, 0.01), 1e-3, fused=True),
    "sgd": lambda model: torch.optim.SGD(decay_groups(model, 0.01), 0.05, momentum=0.9, fused=True),
    "plain sgd": lambda model: torch.optim.SGD(model.parameters(), 0.05),
    "adamw not fused": lambda model: torch.optim.AdamW(model.parameters(), 1e-3, fused=False),
}


def fresh(kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The layouts of a real student: channels last, with kernels, vectors and a matrix."""
    torch.manual_seed(0)
    model = build("convnet2-w8", 5, 8, (0.5,) * 3, (0.25,) * 3).to(memory_format=torch.channels_last)
    model.get_parameter("net.features.0.weight").requires_grad_(kind != "adamw not fused")
    return model, OPTIMIZERS[kind](model)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    stream = torch.Generator().manual_seed(number)
    optimizer.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(torch.rand(10, 3, 8, 8, generator=stream)), torch.arange(10) % 5)
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    whole = fresh(kind)
    for number in range(8):
        step(*whole, number)
    stopped = fresh(kind)
    for number in range(4):
        step(*stopped, number)
    Checkpoint(tmp_path).save(training_state(*stopped), epoch=4)
    found = Checkpoint(tmp_path).load()
    assert found is not None and found[1] == {"epoch": 4}
    resumed = fresh(kind)
    restore_training(*resumed, found[0])
    for number in range(4, 8):
        step(*resumed, number)
    wanted, got = whole[0].state_dict(), resumed[0].state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in wanted.items())


def test_random_streams_go_on_where_they_were(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    torch.manual_seed(3)
    torch.rand(5)
    Checkpoint(tmp_path).save(training_state(model, optimizer))
    wanted = torch.rand(4)
    torch.manual_seed(4)
    found = Checkpoint(tmp_path).load()
    assert found is not None
    restore_training(model, optimizer, found[0])
    assert torch.equal(torch.rand(4), wanted)


def test_frozen_weights_are_not_kept(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw not fused")
    step(model, optimizer, 0)
    names = training_state(model, optimizer)
    assert "model.net.features.0.weight" not in names
    assert "model.net.features.0.bias" in names and "model.net.features.1.running_mean" in names


def test_before_the_first_step_there_are_no_moments(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    Checkpoint(tmp_path).save(training_state(model, optimizer))
    found = Checkpoint(tmp_path).load()
    assert found is not None
    restore_training(*fresh("adamw"), found[0])


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    tensors = {
        "transposed": torch.rand(4, 3).t(),
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": torch.rand(3).half(),
        "whole": torch.arange(5),
        "scalar": torch.tensor(7.0),
        "nothing": torch.empty(0, 3),
        "gradient": torch.rand(2, requires_grad=True),
    }
    facts = {"epoch": 3, "curve": [[1, 0.1 + 0.2]], "accuracy": {"1": 0.5}}
    Checkpoint(tmp_path).save(tensors, **facts)
    found = Checkpoint(tmp_path).load()
    assert found is not None
    assert found[1] == facts
    assert all(torch.equal(found[0][name], tensor) for name, tensor in tensors.items())
    assert found[0].keys() == tensors.keys()


def test_the_newest_counts_and_names_are_apart(tmp_path: Path) -> None:
    for epoch in range(3):
        Checkpoint(tmp_path).save({"x": torch.tensor(epoch)}, epoch=epoch)
    Checkpoint(tmp_path, "other").save({"x": torch.tensor(9)}, epoch=9)
    flush()
    found = Checkpoint(tmp_path).load()
    assert found is not None and found[1] == {"epoch": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.ckpt", "other.ckpt"]


def test_nothing_whole_is_nothing(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.load() is None
    checkpoint.save({"x": torch.arange(100)}, epoch=1)
    flush()
    whole = checkpoint.path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for broken in (b"", whole[:10], whole[:-1], whole + b"x", bytes(flipped)):
        checkpoint.path.write_bytes(broken)
        assert checkpoint.load() is None
    checkpoint.path.write_bytes(whole)
    assert checkpoint.load() is not None


def test_killed_while_it_writes_the_older_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"x": torch.arange(3)}, epoch=1)
    flush()

    def killed(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    checkpoint.save({"x": torch.arange(4)}, epoch=2)
    with pytest.raises(KeyboardInterrupt):
        flush()
    found = checkpoint.load()
    assert found is not None and found[1] == {"epoch": 1}


# -- when


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time in seconds, to be set; and no stop asked for afterwards."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    yield now
    stopping.forget()


def test_a_folder_that_goes_ends_only_the_saves_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    Checkpoint(gone).save({"x": torch.ones(2)})  # as if removed before the thread came to it
    flush()
    assert not gone.exists()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(FileNotFoundError("the file alone")))
    Checkpoint(tmp_path).save({"x": torch.ones(2)})
    with pytest.raises(FileNotFoundError, match="the file alone"):
        flush()


def test_it_is_due_some_time_after_the_last_save(tmp_path: Path, clock: list[float]) -> None:
    often, seldom = Checkpoint(tmp_path, every=2.0), Checkpoint(tmp_path, "other")
    assert not often.due() and not seldom.due()
    clock[0] += 1.9
    assert not often.due()
    clock[0] += 0.1
    assert often.due() and often.due() and not seldom.due()  # asking changes nothing
    often.save({"x": torch.arange(3)})
    assert not often.due()
    clock[0] += 29
    assert often.due() and seldom.due()


def test_a_dear_one_is_seldom_due(tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path)

    def slow_disk(handle: int) -> None:
        clock[0] += 6

    flush()
    monkeypatch.setattr("os.fsync", slow_disk)
    checkpoint.save({"x": torch.arange(3)})
    flush()
    clock[0] += 100 * 6 - 6.5
    assert checkpoint.cost == 6 and not checkpoint.due()
    clock[0] += 1
    assert checkpoint.due(), "at most a hundredth of the time goes into saves"


def test_what_is_kept_is_what_was_there_when_it_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going, changed = threading.Event(), torch.zeros(3)
    monkeypatch.setattr("os.fsync", lambda handle: going.wait(10))
    Checkpoint(tmp_path).save({"x": changed})  # returns while the disk is still at it
    changed += 1
    assert not Checkpoint(tmp_path).path.exists()
    going.set()
    found = Checkpoint(tmp_path).load()
    assert found is not None and found[0]["x"].tolist() == [0, 0, 0]


def test_a_stop_makes_it_due_at_once_and_passes_when_all_is_kept(tmp_path: Path, clock: list[float]) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"x": torch.arange(3)}, step=1)
    stopping.ask()
    assert checkpoint.due()
    with pytest.raises(stopping.Stopped):
        checkpoint.save({"x": torch.arange(4)}, step=2)
    found = checkpoint.load()
    assert found is not None and found[1] == {"step": 2}
    stopping.forget()
    assert not checkpoint.due()
    checkpoint.save({"x": torch.arange(5)}, step=3)


def test_nothing_that_handles_errors_handles_a_stop() -> None:
    assert not issubclass(stopping.Stopped, Exception)
