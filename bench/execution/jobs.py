"""The tasks of a batch system, in the terms of :mod:`bench.execution.status`; :mod:`bench.slurm` provides them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class SubmittedTask:
    """A task of a job array, as it was submitted."""

    job: str  # "12_3", or "12" where the array has one task
    folder: Path  # of its submission, which also holds its logs (named by submitit)
    stage: str
    cells: tuple[str, ...]  # ids, in the order of computation
    submitted: datetime

    @property
    def out(self) -> Path:
        """The log of its standard output."""
        return self.folder / f"{self.job}_0_log.out"

    @property
    def err(self) -> Path:
        """The log of its standard error: tracebacks, and srun's message when it is killed."""
        return self.folder / f"{self.job}_0_log.err"


@dataclass(frozen=True)
class QueuedTask:
    """A task that is pending or running."""

    state: str  # "PENDING", "RUNNING", …
    reason: str  # why it is pending: "Resources", "Dependency", …
    node: str
    running: bool  # False too for a preempted task that is pending again


@dataclass(frozen=True)
class EndedTask:
    """A task that is over."""

    state: str  # "COMPLETED", "FAILED", "OUT_OF_MEMORY", …
    why: str  # one line: the state, its meaning, and the next step
    final: bool = True  # else accounting has yet to learn of the job's steps, which may know better


class JobQueue(Protocol):
    """A batch system that can be queried by job id."""

    def queued(self) -> Mapping[str, QueuedTask] | None:
        """Return the pending and running tasks; None if there is no answer."""

    def ended(self, jobs: Iterable[str], /) -> Mapping[str, EndedTask]:
        """Return those of ``jobs`` that are known to be over."""
