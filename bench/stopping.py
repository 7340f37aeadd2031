"""Requests to stop: whoever computes saves its work and stops, for example before its job is preempted.

A signal handler may call :func:`ask`; a checkpoint (:mod:`bench.kit.checkpoint`) is then due at once, saves, and raises
:class:`Stopped`.
"""

from __future__ import annotations

import threading

_asked = threading.Event()


class Stopped(BaseException):
    """Work was saved and left on request.

    No :class:`Exception`, so that only the caller that runs the cell handles it.
    """


def ask() -> None:
    """Ask the computation in this process to save and stop."""
    _asked.set()


def asked() -> bool:
    """Check whether a stop was requested."""
    return _asked.is_set()


def leave_if_asked() -> None:
    """Leave work that is saved.

    Raises:
        Stopped: a stop was requested.
    """
    if asked():
        raise Stopped


def forget() -> None:
    """Withdraw the request, for a process that goes on to other work."""
    _asked.clear()
