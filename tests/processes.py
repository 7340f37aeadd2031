"""Processes that are forked from one with the heavy imports done: commands, and the ranks of one group."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

_SECONDS = 300.0  # a rank that waits for one that is gone, on a machine that has other work
# no test cuts the power, and a busy disk takes 60 ms for each: none here, nor in what is forked
os.fsync = lambda _handle: None
_ROOT = str(Path(__file__).parents[1])

# a server that has imported torch and all that a command imports, once, and forks: a fresh interpreter would take five
# seconds for each
_processes = multiprocessing.get_context("forkserver")
_PRELOADED = (
    ["tests.processes", "torchvision", "open_clip", "scipy.stats", "bench.kit.teachers.train", "bench.execution.worker",
     "bench.execution.local", "bench.execution.preflight", "bench.execution.provenance", "bench.report.publish",
     "bench.report.figures.charts", "bench.slurm.submit", "bench.slurm.follow", "bench.kit.clip.loading",
     "evaluators.classification", "methods.rded", "methods.hello", "methods.random_real"]
)  # fmt: skip
_server = forkserver._forkserver  # type: ignore[attr-defined]
_ensure_running = _server.ensure_running


def _reuse_server() -> None:
    """Start a server, but not in what one forked: Python's own starts another there, for each run in processes."""
    if _server._forkserver_address is None or _server._forkserver_pid is not None:
        _ensure_running()


_server.ensure_running = _reuse_server


def _start(work: Callable[..., None], *arguments: Any) -> BaseProcess:
    process = _processes.Process(target=work, args=arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", _ROOT)  # so that the server finds this module, wherever a test is
        _processes.set_forkserver_preload(_PRELOADED)  # now: bench.execution.workers has set its own
        process.start()
    return process


def run_command(
    words: Sequence[str], place: Path, environment: Mapping[str, str], figures: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m bench …`` in ``place``, forked; boards have ``figures`` only where they are asked for."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, "stdout"), Path(folder, "stderr")]
        process = start_command(words, place, environment, outputs, figures)
        process.join()
        printed = [path.read_text("utf-8") for path in outputs]
    return subprocess.CompletedProcess(list(words), process.exitcode or 0, *printed)


def start_command(
    words: Sequence[str], place: Path, environment: Mapping[str, str], outputs: Sequence[Path], figures: bool = False
) -> BaseProcess:
    """Start the same, printing to the files ``outputs``."""
    return _start(_command, list(words), place, dict(environment), outputs, figures)


def _command(words: list[str], place: Path, environment: dict[str, str], outputs: list[Path], figures: bool) -> None:
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[1:1] = paths
    for path in paths:
        if Path(path, "sitecustomize.py").is_file():
            runpy.run_path(str(Path(path, "sitecustomize.py")))
    from bench.cli import main
    from bench.report import publish

    if not figures:
        publish.draw_figures = lambda *_, **__: []
    sys.exit(main(words))


def run_ranks(count: int, work: Callable[..., None], *arguments: Any, may_fail: bool = False, **more: Any) -> list[int]:
    """Call ``work(*arguments, **more)``, a function of a module, as each of ``count`` ranks; their exit codes.

    What a failed rank raised is shown and fails the test, unless it ``may_fail``.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    errors = _processes.SimpleQueue()
    ranks = [_start(_rank, rank, count, port, errors, partial(work, *arguments, **more)) for rank in range(count)]
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
