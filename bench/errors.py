"""Errors a user can make: one line, exit code 2, no traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# what a terminal may act on: C0 and C1 controls, line separators, turned writing directions; and bytes that are no text
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

MOST_NAMED = 60  # names that an error lists


def printable(text: str, keep: str = "") -> str:
    """Write control characters and bytes that are not UTF-8 as Python's escapes, but for those in ``keep``."""

    def escaped(found: re.Match[str]) -> str:
        char = found[0]
        byte = ord(char) - 0xDC00  # of a name that isn't UTF-8 (PEP 383)
        shown = f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else char.encode("unicode_escape").decode()
        return char if char in keep else shown

    return _UNSAFE.sub(escaped, text)


class UserError(Exception):
    """An error that the user can put right.

    The message is one printable line: what is wrong, what was expected, and the next step. The command line prints it
    and exits with code 2.
    """

    def __init__(self, message: str):
        super().__init__(printable(re.sub(r"\s*[\t\n\v\f\r]\s*", " ", message.strip())))


class Unusable(UserError):
    """Unusable data or store, which every cell needs, so that the run stops."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` with the nearest of the valid names, or nothing where none is near."""
    nearest = difflib.get_close_matches(name, [*known], n=1, cutoff=0.4)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Make the error for a name that nothing answers to, with the nearest valid choice; a long list is not printed.

    Args:
        kind: what the name should have been, e.g. ``"method"``.
        name: what the user wrote.
        known: the valid names.
    """
    choices = sorted(set(known))
    return UserError(
        f"unknown {kind} {name!r}{did_you_mean(name, choices)}; "
        + (f"known: {', '.join(choices) or 'none'}" if len(choices) <= MOST_NAMED else f"{len(choices):,} are known")
    )
