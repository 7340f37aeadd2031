"""JSON with a digest of itself in front: records, grids and lines of boards. What was cut or edited is noticed."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from io import FileIO
from pathlib import Path

MOST_BYTES = 1 << 28  # of a file that is read; the grid of a hundred thousand cells has half of that
_SEAL = re.compile(rb'\{"digest": "([0-9a-f]{32})",\s')


def sealed(text: str) -> str:
    """Put the digest of a JSON object's text in front of its fields."""
    return f'{{"digest": "{_digest(text[1:].encode())}",\n{text[1:]}'


def unsealed(text: bytes) -> bytes:
    """Return the JSON object that :func:`sealed` was given.

    Raises:
        ValueError: it has no digest, or another.
    """
    seal = _SEAL.match(text)
    if seal is None:
        raise ValueError("no digest in front: cut off, empty, or written by something else")
    rest = text[seal.end() :]
    if _digest(rest) != seal[1].decode():
        raise ValueError("not what its digest says: it was edited or damaged")
    return b"{" + rest


def read_sealed(path: str | Path) -> bytes:
    """Read a file that holds a sealed object.

    Raises:
        OSError: there is none, or it can't be read.
        ValueError: it is no regular file, too large, or not what was written.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer would block
    with FileIO(handle) as stream:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("not a regular file")
        if facts.st_size > MOST_BYTES:
            raise ValueError(f"{facts.st_size:,} bytes; at most {MOST_BYTES:,} are read")
        return unsealed(stream.readall())


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()
