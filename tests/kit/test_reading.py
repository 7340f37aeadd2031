"""Workers that read ahead: deaf to the warning of a job's end from their first moment on; their parent hears it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.api import AugmentationConfig
from bench.errors import UserError
from bench.kit.data import reading
from bench.kit.data.dataset import Files
from bench.kit.data.reading import cut_centre, read_batches
from bench.store.locks import lock

CPU = torch.device("cpu")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Six files."""
    found = [tmp_path / f"{index}.png" for index in range(6)]
    for index, path in enumerate(found):
        Image.fromarray(np.full((16, 16, 3), 40 * index, dtype=np.uint8)).save(path)
    return found


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Path]:
    """A file with a line for each warning: the process that handled it."""
    log = tmp_path / "heard"
    log.touch()

    def note(*_: object) -> None:
        with log.open("a") as stream:
            stream.write(f"{os.getpid()}\n")

    before = signal.signal(signal.SIGUSR2, note)
    yield log
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_warning_at_any_time_is_heard_by_the_parent_alone(
    monkeypatch: pytest.MonkeyPatch, paths: list[Path], heard: Path, in_thread: bool
) -> None:
    monkeypatch.setattr(reading, "_here", threading.local())  # no workers yet
    monkeypatch.setattr(reading, "AT_ONCE", 2)
    plain, workers = BaseProcess.start, list[int]()

    def warned(process: BaseProcess) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)  # to the parent, when it is just about to start a worker
        plain(process)
        assert process.pid is not None
        workers.append(process.pid)
        os.kill(process.pid, signal.SIGUSR2)  # to the worker, long before it runs a line of ours

    monkeypatch.setattr(BaseProcess, "start", warned)

    def read() -> list[Tensor]:
        groups, batches = torch.arange(6).split(2), []  # type: ignore[no-untyped-call]
        for batch in read_batches(paths, groups, partial(cut_centre, 16, False), CPU, workers=1):
            batches.append(batch)
            os.kill(workers[0], signal.SIGUSR2)
        return batches

    if in_thread:
        with ThreadPoolExecutor(1) as pool:
            batches = pool.submit(read).result()
    else:
        batches = read()
    assert torch.cat(batches)[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]
    assert heard.read_text() == f"{os.getpid()}\n"
    assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # the parent goes on listening


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> reading.Readers:
    """Two workers that read an image at a time."""
    monkeypatch.setattr(reading, "_here", threading.local())
    monkeypatch.setattr(reading, "AT_ONCE", 1)
    return reading._readers(2)


def whole(images: Sequence[Tensor], indices: Tensor) -> list[Tensor]:
    """Break a worker's result off at image 5, and kill it at image 4."""
    if 4 in indices.tolist():
        os.kill(os.getpid(), signal.SIGKILL)
    if 5 in indices.tolist():
        raise UserError("no image")
    return list(images)


@pytest.mark.parametrize("slot", [reading.SLOT, 1])
def test_workers_live_on_and_give_back_their_memory(
    monkeypatch: pytest.MonkeyPatch, workers: reading.Readers, paths: list[Path], slot: int
) -> None:
    monkeypatch.setattr(reading, "SLOT", slot)  # of a byte: images come through the pipe
    groups = torch.tensor([[0, 1, 2], [3, 2, 1]]).unbind()
    readings = [read_batches(paths, groups, whole, CPU, 2) for _ in range(3)]  # together they want more than all slots
    for batches in zip(*readings, strict=True):
        assert all(torch.equal(batch, batches[0]) for batch in batches)
    assert batches[0][:, 0, 0, 0].tolist() == [120, 80, 40]
    begun = dict(workers.pool._processes)
    left = read_batches(paths, groups, whole, CPU, 2)
    next(left)
    left.close()  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="^no image$"):
        list(read_batches(paths, [torch.tensor([0, 5, 1, 2, 3])], whole, CPU, 2))
    workers.pool.submit(int).result()
    assert len(list(read_batches(paths, groups, whole, CPU, 2))) == 2
    assert sorted(workers.free) == [0, 1, 2, 3]
    assert workers.pool._processes == begun
    with pytest.raises(UserError, match="want of memory.*DISTILL_BENCH_WORKERS"):
        list(read_batches(paths, [torch.tensor([0, 4])], whole, CPU, 2))
    assert len(list(read_batches(paths, groups, whole, CPU, 2))) == 2, "by new ones"


def test_crops_that_are_read_ahead_are_those_that_are_not(workers: reading.Readers, paths: list[Path]) -> None:
    config, labels = AugmentationConfig(size=8, crop="rrc"), torch.zeros(6, dtype=torch.int64)
    ahead, plain = (Files(paths, labels, count) for count in (2, 0))
    chunks = torch.arange(6).split(2)  # type: ignore[no-untyped-call]
    for chunk, then in zip(chunks, (chunks[1], chunks[0], None), strict=True):  # the second guess is wrong
        assert torch.equal(ahead.crops(config, chunk, 3, CPU, then), plain.crops(config, chunk, 3, CPU))


def test_workers_keep_no_lock_of_their_parent(workers: reading.Readers, tmp_path: Path) -> None:
    with lock(tmp_path / "lock"):
        workers.pool.submit(int).result()  # forked while it is held
    with lock(tmp_path / "lock", wait=False) as ours:
        assert ours
