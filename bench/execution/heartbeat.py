"""How far a cell is, for people: a file in the store while it runs, and a line a minute in the log.

A thread writes it, so a hot loop pays for noting a few numbers, and a beat also comes while a single step takes long.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

from bench.store.artifacts import Store

BEAT_EVERY = 10.0  # seconds between two heartbeats of a cell that makes no progress
STALE_AFTER = 60.0  # seconds without a heartbeat after which its process is taken for dead
_LOOK_EVERY = 1.0  # seconds between two looks whether there is progress to tell
_LINE_EVERY = 60.0  # seconds between two lines in the log

log = logging.getLogger("bench")
log.addHandler(logging.NullHandler())  # heard in the log of a Slurm task alone: elsewhere the screen tells it


class Heartbeat:
    """Beats for one cell while the context lasts; called as a progress callback.

    A heartbeat is a JSON object: ``done`` of ``total`` steps and ``metrics``; ``started``, the Unix time of the first
    progress of this stretch of work, and ``first``, what was done then; ``time`` of the beat; ``host``, ``pid`` and
    ``job``, Slurm's name of the task or null.
    """

    def __init__(self, store: Store, cell_id: str):
        self.store, self.cell_id = store, cell_id
        self._started, self._first = time.time(), 0
        self._now: tuple[int, int, dict[str, float]] = 0, 0, {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)
        self._where = {"pid": os.getpid(), "host": socket.gethostname(), "job": job_id()}

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.store.still(self.cell_id)

    def __call__(self, done: int, total: int, **metrics: float) -> None:
        if not self._now[1]:
            self._started, self._first = time.time(), done
        self._now = done, total, metrics or self._now[2]

    def _beat(self) -> None:
        told, beaten, line = None, 0.0, time.monotonic()
        while True:
            now, clock = self._now, time.monotonic()
            if now is not told or clock - beaten >= BEAT_EVERY:
                told, beaten = now, clock
                self._write(*now)
            if clock - line >= _LINE_EVERY and now[1]:
                line = clock
                numbers = "".join(f"  {name} {value:.4g}" for name, value in now[2].items())
                log.info("%s  %d of %d (%.0f %%)%s", self.cell_id, now[0], now[1], 100 * now[0] / now[1], numbers)
            if self._over.wait(_LOOK_EVERY):
                return

    def _write(self, done: int, total: int, metrics: dict[str, float]) -> None:
        facts = {"done": done, "total": total, "metrics": metrics, "started": self._started, "first": self._first}
        try:
            self.store.beat(self.cell_id, {**facts, "time": time.time(), **self._where})
        except OSError:  # a full disk, say: the work itself will meet it and say so
            log.warning("%s  its heartbeat can't be written", self.cell_id)


def job_id() -> str | None:
    """Slurm's name of the task this process runs in, as squeue writes it: ``12_3`` or ``12``."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")
