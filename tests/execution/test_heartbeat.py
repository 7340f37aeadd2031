"""Heartbeats: what they say of progress, that they come without it, and that they end with the work."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.execution import heartbeat
from bench.execution.heartbeat import CellProgress, Heartbeat
from bench.store.artifacts import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(heartbeat, "_POLL_EVERY", 0.01)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    return Store(tmp_path / "store")


def awaited(store: Store, fits: Callable[[CellProgress], bool]) -> CellProgress:
    deadline = time.monotonic() + 20
    while not ((beat := heartbeat.read(store, "a")) and fits(beat)):
        assert time.monotonic() < deadline, f"it didn't come; the last was {beat}"
        time.sleep(0.01)
    return beat


def test_a_beat_says_how_far_and_where(store: Store) -> None:
    begun = time.time()
    with Heartbeat(store, "a") as progress:
        awaited(store, lambda beat: beat.total == 0)
        progress(30, 100)  # gone on with
        progress(45, 100, loss=0.5)
        progress(46, 100)
        beat = awaited(store, lambda beat: beat.done == 46)
    assert beat.total == 100
    assert beat.first == 30, "what this stretch did is counted from here"
    assert begun <= beat.started <= beat.time <= time.time()
    assert beat.metrics == {"loss": 0.5}, "the last ones told"
    assert beat.pid == os.getpid()
    assert beat.job is None
    assert heartbeat.read(store, "a") is None, "it ended"


def test_it_beats_while_a_step_takes_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "WRITE_EVERY", 0.05)
    with Heartbeat(store, "a") as progress:
        progress(1, 2)
        first = awaited(store, lambda beat: beat.done == 1)
        awaited(store, lambda beat: beat.time > first.time)


def test_it_ends_with_an_error_too(store: Store) -> None:
    with pytest.raises(ValueError, match="of the work"), Heartbeat(store, "a"):
        raise ValueError("of the work")
    assert heartbeat.read(store, "a") is None


def test_a_task_of_slurm_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    with Heartbeat(store, "a"):
        assert awaited(store, lambda beat: True).job == "15"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with Heartbeat(store, "b"):
        pass
    assert heartbeat.job_id() == "12_3"


def test_a_line_a_minute(store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(heartbeat, "_LOG_EVERY", 0.05)
    with caplog.at_level(logging.INFO, "bench"), Heartbeat(store, "a") as progress:
        progress(1, 4, loss=0.25)
        deadline = time.monotonic() + 20
        while not caplog.messages:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert caplog.messages[0] == "a  1 of 4 (25 %)  loss 0.25"


def test_a_store_that_can_not_be_written_to_does_not_stop_the_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(heartbeat, "write", full)
    with Heartbeat(store, "a") as progress:
        progress(1, 2)
        time.sleep(0.05)
        assert progress._thread.is_alive()
