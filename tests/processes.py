"""Processes that are forked from one with the heavy imports done: commands, and the ranks of one group."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

_SECONDS = 60.0  # a rank that waits for one that is gone

# a server that has imported torch, once, and forks: a fresh interpreter would take five seconds for each
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["torch", "torchvision", "open_clip", "bench.kit.teachers.train", "bench.execution.worker", "bench.execution.local",
     "bench.report.publish", "bench.slurm.follow", "bench.kit.clip.loading", "evaluators.student_training"]
)  # fmt: skip


def run_command(words: Sequence[str], place: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``python -m bench …`` in ``place``: forked, unless there is a ``sitecustomize`` to heed."""
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    if any((place / path / "sitecustomize.py").is_file() for path in paths):
        line = [sys.executable, "-m", "bench", *words]
        return subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, "stdout"), Path(folder, "stderr")]
        process = _processes.Process(target=_command, args=(list(words), place, dict(environment), outputs))
        process.start()
        process.join()
        printed = [path.read_text("utf-8") for path in outputs]
    return subprocess.CompletedProcess(list(words), process.exitcode or 0, *printed)


def _command(words: list[str], place: Path, environment: dict[str, str], outputs: list[Path]) -> None:
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    from bench.cli import main

    sys.exit(main(words))


def run_ranks(count: int, work: Callable[..., None], *arguments: Any, may_fail: bool = False, **more: Any) -> list[int]:
    """Call ``work(*arguments, **more)``, a function of a module, as each of ``count`` ranks; their exit codes.

    What a failed rank raised is shown and fails the test, unless it ``may_fail``.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    errors = _processes.SimpleQueue()
    ranks = [
        _processes.Process(target=_rank, args=(rank, count, port, errors, partial(work, *arguments, **more)))
        for rank in range(count)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
    codes = [process.exitcode if process.exitcode is not None else 1 for process in ranks]
    told = []
    while not errors.empty():
        told.append(errors.get())
    if any(codes) and not may_fail:
        pytest.fail("\n".join([f"exit codes {codes}", *told]))
    return codes


def _rank(rank: int, count: int, port: int, errors: Any, work: Callable[[], None]) -> None:
    import torch

    from bench.kit import distributed

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(count))
    try:
        with distributed.joined(torch.device("cpu")):
            work()
    except BaseException:
        errors.put(f"rank {rank} of {count}:\n{traceback.format_exc()}")
        os._exit(1)  # at once, as a killed process: nothing tells the others but its silence
