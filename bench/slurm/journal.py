"""What was submitted, in ``STORE/slurm/RUN/``: a folder for each submission of a grid.

::

    run.json          what was asked for: grid, options, profile
    journal.jsonl     a line before and one after each call of sbatch; written before anything can be lost
    array-N.json      what the tasks of one array do
    *_log.out, .err   the tasks' logs, submitit's scripts and pickles
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.execution.options import Options
from bench.planning.grid import Grid
from bench.store.artifacts import Store, write_atomically

_RUN, _JOURNAL = "run.json", "journal.jsonl"


class Run(BaseModel):
    """What a submission was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: str  # ISO 8601, UTC
    grid: str  # the id of its manifest
    dataset: str
    options: Options
    profile: str | None  # as it was named
    out: Path  # where the boards go
    suite: str = ""  # whose boards they are


class ArrayPlan(BaseModel):
    """What the tasks of one array do: ``packs[i]`` are the ids of the cells that task ``i`` computes, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grid: Grid  # of the array's cells alone
    packs: tuple[tuple[str, ...], ...]
    options: Options
    processes: int
    patience: float  # seconds in which work must be saved after a warning


@dataclass(frozen=True)
class Submitted:
    """A task as it went to Slurm."""

    job: str  # "12_3", or "12" where an array would have had one task
    run: Path
    stage: str
    cells: tuple[str, ...]

    @property
    def out(self) -> Path:
        """Its standard output."""
        return self.run / f"{self.job}_0_log.out"

    @property
    def err(self) -> Path:
        """Its standard error: tracebacks, and what srun says of its end."""
        return self.run / f"{self.job}_0_log.err"


class Journal:
    """The folder of one submission."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def begin(cls, store: Store, run: Run) -> Journal:
        """A new folder, named by time and grid."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        folder = root(store) / f"{stamp}-{run.grid}-{secrets.token_hex(3)}"
        folder.mkdir(parents=True)
        write_atomically(folder / _RUN, run.model_dump_json(indent=1) + "\n")
        return cls(folder)

    @property
    def token(self) -> str:
        """What tells the names of its jobs from those of other submissions."""
        return self.folder.name.rpartition("-")[2]

    def note(self, event: str, **facts: Any) -> None:
        """Append a line and flush it to the disk."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **facts}
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def run(self) -> Run | None:
        """What was asked for; None where that can't be read."""
        try:
            return Run.model_validate_json((self.folder / _RUN).read_bytes())
        except (OSError, ValidationError):
            return None

    def events(self) -> Iterator[dict[str, Any]]:
        """Its lines; one that was cut short by a kill is passed over."""
        try:
            text = (self.folder / _JOURNAL).read_text(encoding="utf-8")
        except OSError:
            return
        for line in text.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def submitted(self) -> list[Submitted]:
        """The tasks that sbatch took, without those cancelled since: when a later array was refused, or by people."""
        tasks: list[Submitted] = []
        cancelled: set[str] = set()  # whole arrays, or single tasks
        for event in self.events():
            if event["event"] == "submitted":
                packs, job = event["packs"], event["job"]
                names = [job] if len(packs) == 1 else [f"{job}_{index}" for index in range(len(packs))]
                for name, pack in zip(names, packs, strict=True):
                    tasks.append(Submitted(name, self.folder, event["stage"], tuple(pack)))
            elif event["event"] == "cancelled":
                cancelled.update(event["jobs"])
        return [task for task in tasks if cancelled.isdisjoint((task.job, task.job.partition("_")[0]))]


def root(store: Store) -> Path:
    """Where the folders of all submissions lie."""
    return store.root / "slurm"


def newest_first(store: Store) -> list[Journal]:
    """The submissions of a store."""
    return [Journal(path.parent) for path in sorted(root(store).glob(f"*/{_RUN}"), reverse=True)]


def last_tasks(store: Store) -> dict[str, Submitted]:
    """Cell id -> the task that it went to Slurm with last."""
    found: dict[str, Submitted] = {}
    for journal in reversed(newest_first(store)):
        for task in journal.submitted():
            found |= dict.fromkeys(task.cells, task)
    return found
