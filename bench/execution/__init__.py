"""Where cells run: in this process, in a bounded pool of processes, or as Slurm job arrays. All run the same
worker on the same files, and all work off a :class:`bench.execution.scheduling.Schedule`."""

from __future__ import annotations

from typing import Protocol

from bench.execution.scheduling import Schedule


class Watcher(Protocol):
    """Is told about the state of a run, about twice a second."""

    def update(self, schedule: Schedule) -> None: ...
