"""Names of data sets, protocols and students as file names."""

from __future__ import annotations

import hashlib
import re

LONGEST = 80  # characters kept; file systems take 255 bytes with what is put before and after


def slug(name: str) -> str:
    """A name as a file name; a digest keeps changed names (``folder:/a/b``, very long ones) apart."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:LONGEST]
    return stem if stem == name else f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")
