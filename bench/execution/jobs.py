"""Options of workers, and the tasks of a batch system, which :mod:`bench.slurm` provides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from bench.api import BaseConfig


class Options(BaseConfig):
    """Options of a worker, on which no identity depends."""

    store: Path
    data_root: Path | None = None
    device: str = "auto"  # "auto": an accelerator where there is one
    threads: int = 1  # bit-equal results need the same number of CPU threads
    contents: Path | None = None  # what the data set's image files hold, as the store keeps it
    allow_overlap: bool = False  # compute even where many test images are among the training or the synthetic ones
    portable: bool = True  # kernels of one instruction set on all processors
    code: dict[str, str] | None = None  # of the process that requested it, which may differ from the one that computes


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
