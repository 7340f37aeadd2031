"""Names of public CLIPs in identities; torch-free, for planning."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from bench.files import sha256_of

ICON_CLIP = "icon-clip"
ICON_CLIP_FOLDER = Path(__file__).with_name("icon_clip")
UNTRAINED = "none"  # ARCH:none is an architecture with random weights


def split(name: str) -> tuple[str, str, str]:
    """Split the name of a CLIP into architecture, tag and file, each empty where it has none."""
    arch, _, weights = name.partition(":")
    tag, at, file = weights.partition("@")
    if at and "/" not in tag and not Path(weights).is_file():
        return arch, tag, file
    return (arch, "", weights) if "/" in weights or Path(weights).is_file() else (arch, weights, "")


def clip_identity(name: str) -> str:
    """Return a name that changes with the weights and their settings, and not with the place of their file.

    ``icon-clip`` becomes ``icon-clip@…``, ``ARCH:/path`` ``ARCH:file@…`` and ``ARCH:TAG@/path`` ``ARCH:TAG@…`` with the
    beginning of the file's SHA-256; ``ARCH:TAG`` and ``ARCH:none`` name fixed weights by themselves.
    """
    if name == ICON_CLIP:
        return f"{name}@{file_digest(ICON_CLIP_FOLDER / 'model.safetensors')[:12]}"
    arch, tag, file = split(name)
    path = Path(os.path.expanduser(file))  # noqa: PTH111 - Path's own fails without a home
    return f"{arch}:{tag or 'file'}@{file_digest(path)[:12]}" if file and path.is_file() else name


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file (hex), read again when its size or time changes."""
    facts = path.stat()
    return _digest(path, facts.st_size, facts.st_mtime_ns)


@cache  # a plan asks once for every cell it makes
def _digest(path: Path, size: int, changed: int) -> str:
    return sha256_of(path)
