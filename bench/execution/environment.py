"""The environment of a computation: noted in records, never part of an identity."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.version import __version__

_PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "numpy")


def _git(*arguments: str) -> str | None:
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.*\S)", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


@cache
def code() -> dict[str, str]:
    """Return the version, commit, and a hash of the local edits of the code that runs here."""
    facts = {"distill-bench": __version__}
    if commit := _git("rev-parse", "--short=12", "HEAD"):
        facts["commit"] = commit
        if edits := _git("diff", "HEAD", "--", "*.py", "*.toml"):
            facts["local_edits"] = hashlib.blake2b(edits.encode(), digest_size=5).hexdigest()
    return facts


@cache
def environment(device: str, threads: int) -> dict[str, str]:
    """Return the facts that may explain a difference: code, versions, CPU, device."""
    facts = {**code(), "python": platform.python_version(), "cpu": _cpu()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            facts[package] = version(package)
    facts["device"] = device
    facts["threads"] = str(threads)
    torch = sys.modules.get("torch")  # not loaded by a launcher that records a death
    if device.startswith("cuda") and torch is not None and torch.cuda.is_available():
        facts["accelerator"] = torch.cuda.get_device_name(device)
    return facts
