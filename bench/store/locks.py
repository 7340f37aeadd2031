"""Leases: the process that computes a cell holds its lease, so that no cell is computed twice at the same time.

The lease is an operating-system lock (flock) on a file in the store: it ends with the process that holds it,
also when that process is killed, so there is nothing stale to clean up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def lease(root: Path, cell_id: str) -> Iterator[bool]:
    """Try to take the lease of a cell in the store at ``root``; yields whether it is ours."""
    lock = FileLock(root / "leases" / f"{cell_id}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
