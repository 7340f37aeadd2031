"""The submissions of a store, in ``STORE/slurm/RUN/``: one folder per call of ``bench run`` that submitted something.

::

    run.json          the request: grid, options, profile
    journal.jsonl     a line before and one after each call of sbatch, flushed to the disk
    array-N.json      what the tasks of one array compute
    *_log.out, .err   the tasks' logs, submitit's scripts and pickles
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.api import BaseConfig
from bench.execution.environment import Options
from bench.files import write_atomically
from bench.planning.grid import Grid
from bench.slurm.queue import PREFIX
from bench.store.artifacts import Store

_RUN, _JOURNAL = "run.json", "journal.jsonl"
_LOG_LINES = 20  # of a task that was killed, kept in its record


class Run(BaseConfig):
    """The request of a submission."""

    grid: str  # the id of its manifest
    dataset: str
    options: Options
    profile: str | None  # its path
    out: Path  # where the boards go
    suite: str = ""


class ArrayPlan(BaseConfig):
    """The work of one array: task ``i`` computes the cells ``packs[i]``, in order."""

    grid: Grid  # of the array's cells alone
    packs: tuple[tuple[str, ...], ...]
    options: Options
    processes: int
    helps: tuple[float, ...] = ()  # as in Array
    save_seconds: float  # in which a task must save its work after a warning


@dataclass(frozen=True)
class SubmittedTask:
    """A task of a job array, as it was submitted."""

    job: str  # "12_3", or "12" where the array has one task
    folder: Path  # of its submission, which also holds its logs (named by submitit)
    stage: str
    cells: tuple[str, ...]  # ids, in the order of computation
    submitted: datetime
    helps: bool = False  # another task computes its cells

    @property
    def out(self) -> Path:
        """The log of its standard output."""
        return self.folder / f"{self.job}_0_log.out"

    @property
    def err(self) -> Path:
        """The log of its standard error: tracebacks, and srun's message when it is killed."""
        return self.folder / f"{self.job}_0_log.err"

    def log_tail(self) -> str:
        """Return the last lines of its logs, each under its name; empty where there is none."""
        text = ""
        for log in (self.err, self.out):
            with suppress(OSError):
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
                text += f"the end of {log.name}:\n" + "".join(f"  {line}\n" for line in lines)
        return text


class Journal:
    """The folder of one submission."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def create(cls, store: Store, run: Run) -> Journal:
        """Make a new folder, named by time and grid."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        folder = store.root / "slurm" / f"{stamp}-{run.grid}-{secrets.token_hex(3)}"
        folder.mkdir(parents=True)
        write_atomically(folder / _RUN, run.model_dump_json(indent=1) + "\n")
        return cls(folder)

    def job_name(self, stage: str) -> str:
        """Return the name of the submission's jobs of a stage, which no other submission has."""
        return f"{PREFIX}{stage}-{self.folder.name.rpartition('-')[2]}"

    def append(self, event: str, **facts: Any) -> None:
        """Append a line and flush it to the disk."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **facts}
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def run(self) -> Run | None:
        """Return its request; None if that can't be read."""
        try:
            return Run.model_validate_json((self.folder / _RUN).read_bytes())
        except (OSError, ValidationError):
            return None

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield its lines, except one that a kill cut short."""
        path = self.folder / _JOURNAL
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with suppress(ValueError):
                yield json.loads(line)

    def tasks(self) -> list[SubmittedTask]:
        """Return the submitted tasks that were not cancelled since, by a user or because sbatch refused an array."""
        tasks: list[SubmittedTask] = []
        cancelled: set[str] = set()  # whole arrays, or single tasks
        began = datetime.max.replace(tzinfo=UTC)
        for event in self.events():
            match event["event"]:
                case "submitting":
                    began = datetime.fromisoformat(event["time"])
                case "submitted":
                    packs, job = event["packs"], event["job"]
                    names = [job] if len(packs) == 1 else [f"{job}_{index}" for index in range(len(packs))]
                    for name, pack in zip(names, packs, strict=True):
                        facts = (event["stage"], tuple(pack), began, event.get("helps", False))
                        tasks.append(SubmittedTask(name, self.folder, *facts))
                case "cancelled":
                    cancelled.update(event["jobs"])
        return [task for task in tasks if cancelled.isdisjoint((task.job, task.job.partition("_")[0]))]


def newest_first(store: Store) -> list[Journal]:
    """Return the submissions of a store."""
    return [Journal(path.parent) for path in sorted((store.root / "slurm").glob(f"*/{_RUN}"), reverse=True)]


def last_tasks(store: Store) -> dict[str, SubmittedTask]:
    """Return the last submitted task that computes each cell, by the cell's id; only those that have one."""
    found: dict[str, SubmittedTask] = {}
    for journal in reversed(newest_first(store)):
        for task in journal.tasks():
            if not task.helps:
                found |= dict.fromkeys(task.cells, task)
    return found
