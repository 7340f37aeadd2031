"""Requested stops: before a preemption, computing stops where it next saved its work.

``ask`` is called by whoever gets the warning (a signal handler may call it); :class:`bench.kit.checkpoint.Checkpoint`
is then due at once, saves, and raises :class:`Stopped`.
"""

from __future__ import annotations

import threading

_asked = threading.Event()


class Stopped(BaseException):
    """Work was saved and left, because a stop was requested.

    No :class:`Exception`: nothing should handle it but the worker of the cell.
    """


def ask() -> None:
    """Ask whatever computes in this process to save and stop."""
    _asked.set()


def asked() -> bool:
    """Return whether a stop was requested."""
    return _asked.is_set()


def forget() -> None:
    """Forget the request: for a process that goes on to other work."""
    _asked.clear()
