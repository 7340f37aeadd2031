"""Leases: the process that computes a cell holds its lease, so that no cell is computed twice at the same time.

The lease is an operating-system lock (flock) on a file in the store: it ends with the process that holds it,
also when that process is killed, so there is nothing stale to clean up.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import UserError


@contextmanager
def lock(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, which is made if need be; yields whether it is ours: always, if we ``wait``.

    Raises:
        UserError: the file can't be made, or its file system has no locks: a run without them would compute cells
            twice.
    """
    handle, ours = None, True
    try:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)  # NFS locks what can be written alone
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            ours = False
        except OSError as error:
            raise UserError(
                f"{path} can't be locked ({error.strerror}), and without locks two processes would compute the same "
                "cell; choose a --store on a file system with flock (a local disk, NFS 4, Lustre mounted with -o flock)"
            ) from None
        yield ours
    finally:
        if handle is not None:
            with suppress(OSError):  # closing alone would leave the lock to a process that was forked meanwhile
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


@contextmanager
def lease(root: Path, cell_id: str) -> Iterator[bool]:
    """Try to take the lease of a cell in the store at ``root``; yields whether it is ours."""
    with lock(root / "leases" / f"{cell_id}.lock", wait=False) as ours:
        yield ours
