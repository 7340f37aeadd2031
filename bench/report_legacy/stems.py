"""Names of the world → names of files."""

from __future__ import annotations

import hashlib
import re

LONGEST = 80  # characters kept; file systems take 255 bytes with what is put before and after


def file_stem(name: str) -> str:
    """A name as a file name; a digest keeps changed names (``folder:/a/b``, very long ones) apart."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:LONGEST]
    if stem == name:
        return stem
    return f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")
