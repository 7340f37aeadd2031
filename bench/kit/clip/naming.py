"""Names of public CLIPs in identities; torch-free, for planning."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

ICON_CLIP = "icon-clip"
ICON_CLIP_FOLDER = Path(__file__).with_name("icon_clip")
UNTRAINED = "none"  # ARCH:none is an architecture with random weights


def clip_identity(name: str) -> str:
    """Return a name that changes with the weights and not with the place of their file.

    ``icon-clip`` and ``ARCH:/path/to/weights`` become ``icon-clip@…`` and ``ARCH@…`` with the beginning of the file's
    SHA-256; ``ARCH:TAG`` and ``ARCH:none`` name fixed weights by themselves.
    """
    arch, _, weights = name.partition(":")
    path = ICON_CLIP_FOLDER / "model.safetensors" if name == ICON_CLIP else Path(weights)
    if weights == UNTRAINED or not path.is_file():
        return name
    facts = path.stat()
    return f"{arch}@{_digest(path, facts.st_size, facts.st_mtime_ns)[:12]}"


@cache  # a plan asks once for every cell it makes; size and time tell a changed file
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
