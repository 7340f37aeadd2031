"""Seeds of the parts of a computation, derived from names so that they don't depend on the order of drawing."""

from __future__ import annotations

import hashlib


def seed_for(purpose: str, *parts: int | str) -> int:
    """A seed in 0..2^31-1 for a purpose, e.g. ``seed_for("student-init", 2)``; the same on every machine."""
    text = "/".join([purpose, *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
