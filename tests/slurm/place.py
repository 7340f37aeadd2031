"""A folder with data, protocols and stores on a machine with a Slurm cluster, and what tests do and see there."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import TINY_PROTOCOL, command, draw_classes, environment

STORE = "the store"  # a blank in a path is nothing special
SMALL = "convnet2-w8"
TEACHER = (f"arch={SMALL}", "epochs=3", "batch_size=8", "schedule=cosine", "lr=0.05")

# Python imports this first in every process that has its folder on its path. Stretched over some seconds, a cell of
# a tiny grid can be met at work, and disturbed.
_SLOWLY = """
import os, time
if "SLURM_JOB_ID" in os.environ and "SLOWLY" in os.environ:
    from bench.execution import heartbeat
    _step = heartbeat.Heartbeat.__call__
    def _slow_step(self, done, total, **metrics):
        _step(self, done, total, **metrics)
        time.sleep(float(os.environ["SLOWLY"]) / total)
    heartbeat.Heartbeat.__call__ = _slow_step
    heartbeat._POLL_EVERY = 0.05
"""

_IMPATIENT = """
import sys
from bench.cli import main
from bench.slurm import follow
follow._GRACE = follow._QUERY_EVERY = 1.0
sys.exit(main())
"""

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Place:
    """Commands run in ``home``, with the cluster of ``conf``."""

    home: Path
    conf: str

    def arguments(self, *more: str, methods: str = "rded", cluster: str = "slurm", store: str = STORE) -> list[str]:
        """A run that takes seconds: one IPC, no baselines; of RDED, a teacher of three epochs."""
        changes = [part for setting in TEACHER for part in ("--set", f"teacher.{setting}")]
        return [
            "run", "--methods", methods, "--no-baselines", "--ipc", "1", "--seeds", "0,1",
            "--dataset", "folder:colours", "--protocol", "tiny.toml", "--students", SMALL, "--cluster", cluster,
            "--store", store, "--out", "boards", *(changes if methods != "random_real" else []), *more,
        ]  # fmt: skip

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.home, env=environment({"SLURM_CONF": self.conf, **env}), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # a shell starts what it puts in the background with SIGINT ignored, and that is inherited
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def run(self, *command: str, **env: str) -> Done:
        return finish(self.start(*command, **env))

    def bench(self, arguments: list[str], **env: str) -> Done:
        return self.run(*command(arguments), **env)

    def start_bench(self, arguments: list[str], **env: str) -> subprocess.Popen[str]:
        return self.start(*command(arguments), **env)

    def start_impatient(self, arguments: list[str], **env: str) -> subprocess.Popen[str]:
        """Start the command with a follower that takes a task for dead a second after it left the queue."""
        return self.start(sys.executable, "-c", _IMPATIENT, *arguments, **env)

    def slowly(self, seconds: float) -> dict[str, str]:
        """Variables under which every cell that a job computes takes at least so long."""
        (self.home / "slowly").mkdir(exist_ok=True)
        (self.home / "slowly" / "sitecustomize.py").write_text(_SLOWLY)
        return {"SLOWLY": str(seconds), "PYTHONPATH": str(self.home / "slowly")}

    def queue(self) -> list[str]:
        """The jobs that Slurm knows as pending or running."""
        return self.run("squeue", "--array", "--noheader", "--format=%i %T").stdout.split("\n")[:-1]

    def idle(self) -> bool:
        """Is nothing pending or running? (A record is there before its task has ended.)"""
        return self.queue() == []

    def scripts(self, store: str = STORE) -> list[str]:
        """The submitted scripts, in the order of submission."""
        paths = (self.home / store / "slurm").glob("*/*_submission.sh")
        return [path.read_text() for path in sorted(paths, key=lambda path: int(path.name.split("_")[0]))]

    def records(self, store: str = STORE) -> dict[str, dict[str, Any]]:
        found = [json.loads(path.read_text()) for path in (self.home / store).glob("cells/*/record.json")]
        return {record["id"]: record for record in found}

    def told(self, store: str = STORE) -> dict[str, Any]:
        """What the records say that must be the same in every run."""
        same = ("cell", "state", "inputs", "result", "files", "public")
        return {cell: {key: record[key] for key in same} for cell, record in self.records(store).items()}

    def log(self, store: str = STORE) -> str:
        """All that the tasks wrote to their standard output, each by the first of its processes."""
        return "\n".join(path.read_text() for path in sorted((self.home / store / "slurm").glob("*/*_0_log.out")))

    def completions(self, store: str = STORE) -> Counter[str]:
        """How often each cell was computed to its end by a task."""
        return Counter(re.findall(r"(\S+)  done in ", self.log(store)))

    def beginnings(self, cell: str, store: str = STORE) -> int:
        """How often tasks began to compute a cell."""
        return self.log(store).count(f"{cell}  begins")

    def board(self, out: str = "boards") -> str:
        """The programs' table, without what a run may differ in: how long it took."""
        with (self.home / out / "folder-colours.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return "\n".join(str({name: text for name, text in row.items() if "seconds" not in name}) for row in rows)

    def heartbeats(self, store: str = STORE) -> dict[str, dict[str, Any]]:
        """Cell id -> what it says of itself, of all that run."""
        found = {}
        for path in (self.home / store / "heartbeats").glob("*.json"):
            try:
                found[path.stem] = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
        return found


def make_place(home: Path, conf: str) -> Place:
    draw_classes(home / "colours")
    (home / "tiny.toml").write_text(TINY_PROTOCOL)
    return Place(home, conf)


def finish(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=400)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def awaited(what: Callable[[], Any], seconds: float = 200) -> Any:
    """What ``what`` returns as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it didn't come"
        time.sleep(0.05)
    return found
