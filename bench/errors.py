"""Errors a user can make: one line, exit code 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can put right.

    The message is one line: what is wrong, what was expected, and the next step. The command line prints it and exits
    with code 2.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Make the error for a name that nothing answers to, with the nearest valid choice.

    Args:
        kind: what the name should have been, e.g. ``"method"``.
        name: what the user wrote.
        known: the valid names.
    """
    choices = sorted(set(known))
    nearest = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return UserError(f"unknown {kind} {name!r}{hint}; known: {', '.join(choices)}")
