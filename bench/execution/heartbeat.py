"""Heartbeats of running cells, and the record of a cell whose process died.

A heartbeat is a file in the store, with a line per minute in the log. A thread writes both, so that progress in a
hot loop costs an assignment, and a heartbeat is written also while a single step takes long.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.execution.environment import code
from bench.store.artifacts import Store
from bench.store.cell import Cell
from bench.store.record import Record, RunFacts

WRITE_EVERY = 10.0  # seconds between two heartbeats of a cell without progress
STALE_AFTER = 60.0  # seconds without a heartbeat after which the process is taken for dead
_POLL_EVERY = 1.0  # seconds between two looks for progress
_LOG_EVERY = 60.0  # seconds between two lines in the log

log = logging.getLogger("bench")
log.addHandler(logging.NullHandler())  # only Slurm tasks have a log: elsewhere the screen shows progress


class CellProgress(BaseModel):
    """The content of a heartbeat: the progress of a running cell, and its process."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    done: int  # steps
    total: int  # steps; 0: not known yet
    metrics: dict[str, float] = {}
    pid: int
    host: str
    job: str | None = None  # of Slurm, as squeue writes it
    time: float  # Unix seconds of this heartbeat
    started: float | None = None  # Unix seconds of the first step since the process started or resumed
    first: int = 0  # steps that were done then

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace since the process started or resumed; None before its first step."""
        if self.started is None or self.done <= self.first or self.time <= self.started:
            return None
        return max(0, self.total - self.done) * (self.time - self.started) / (self.done - self.first)


class Heartbeat:
    """Write the heartbeat of a cell while the context lasts; called as its progress callback."""

    def __init__(self, store: Store, cell_id: str):
        self.store, self.cell_id = store, cell_id
        self._started, self._first = time.time(), 0
        self._now: tuple[int, int, dict[str, float]] = 0, 0, {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._process = {"pid": os.getpid(), "host": socket.gethostname(), "job": job_id()}

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        clear(self.store, self.cell_id)

    def __call__(self, done: int, total: int, **metrics: float) -> None:
        if not self._now[1]:
            self._started, self._first = time.time(), done
        self._now = done, total, metrics or self._now[2]

    def _run(self) -> None:
        written, last_written, last_logged = None, 0.0, time.monotonic()
        while True:
            now, clock = self._now, time.monotonic()
            if now is not written or clock - last_written >= WRITE_EVERY:
                written, last_written = now, clock
                facts = {"done": now[0], "total": now[1], "metrics": now[2], "first": self._first, **self._process}
                try:
                    write(self.store, self.cell_id, {**facts, "started": self._started, "time": time.time()})
                except OSError:  # a full disk, say: the computation itself will fail and name it
                    log.warning("%s  its heartbeat can't be written", self.cell_id)
            if clock - last_logged >= _LOG_EVERY and now[1]:
                last_logged = clock
                numbers = "".join(f"  {name} {value:.4g}" for name, value in now[2].items())
                log.info("%s  %d of %d (%.0f %%)%s", self.cell_id, now[0], now[1], 100 * now[0] / now[1], numbers)
            if self._over.wait(_POLL_EVERY):
                return


def write(store: Store, cell_id: str, facts: dict[str, Any]) -> None:
    """Write the fields of a :class:`CellProgress`; not flushed, since only people read it."""
    path = _path(store, cell_id)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(facts), encoding="utf-8")
    temporary.replace(path)


def read(store: Store, cell_id: str) -> CellProgress | None:
    """Return the last heartbeat of a cell; None if there is none."""
    try:
        return CellProgress.model_validate_json(_path(store, cell_id).read_bytes())
    except (OSError, ValidationError):
        return None


def clear(store: Store, cell_id: str) -> None:
    """Remove the heartbeat of a cell that no longer runs."""
    _path(store, cell_id).unlink(missing_ok=True)


def _path(store: Store, cell_id: str) -> Path:
    return store.root / "heartbeats" / f"{cell_id}.json"


def job_id() -> str | None:
    """Return the Slurm task of this process, as squeue writes it: ``12_3`` or ``12``."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def record_death(store: Store, cell: Cell, reason: str, log_tail: str | None = None) -> None:
    """Record a cell as failed on behalf of its process, which died.

    Args:
        reason: one line.
        log_tail: the last lines of its log.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    run = RunFacts(started=now, seconds=0.0, peak_memory=0, environment=code())
    store.fail(Record(id=cell.id, cell=cell, state="failed", run=run, error=reason, traceback=log_tail or None))
    clear(store, cell.id)
