"""Workers that read ahead: deaf to the warning of a job's end from their first moment on; their parent hears it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.kit.data import reading
from bench.kit.data.reading import cut_centre, read_batches

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
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_warning_at_any_time_is_heard_by_the_parent_alone(
    monkeypatch: pytest.MonkeyPatch, paths: list[Path], heard: Path, start: str, in_thread: bool
) -> None:
    monkeypatch.setattr(reading, "_START", start)
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
