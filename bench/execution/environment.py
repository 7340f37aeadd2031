"""The options and the environment of a computation, on which no identity depends; and which devices are here."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.api import BaseConfig
from bench.errors import UserError
from bench.version import __version__

if TYPE_CHECKING:
    import torch

# one instruction set for ATen, oneDNN and MKL: the same bits on every x86-64 processor that has it
PORTABLE = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
_PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "numpy")

_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, AMD, and either under Windows


class Options(BaseConfig):
    """Options of a worker, on which no identity depends."""

    store: Path
    data_root: Path | None = None
    device: str = "auto"  # "auto": an accelerator where there is one
    threads: int = 1  # bit-equal results need the same number of CPU threads
    contents: Path | None = None  # what the data set's image files hold, as the store keeps it
    allow_overlap: bool = False  # compute even where many test images are among the training or the synthetic ones
    portable: bool = True  # kernels of one instruction set on all processors
    code: dict[str, str] | None = None  # of the process that requested it, which may differ from the one that computes


def accelerators(device: str = "auto") -> int:
    """Count the accelerators that ``--device`` leaves to choose from.

    Imports torch, which alone knows what it can use, where there is a driver.
    """
    driver = "torch" in sys.modules or any(Path(path).exists() for path in _DRIVERS)
    if device.partition(":")[0] not in ("auto", "cuda") or not driver:
        return 0
    import torch

    count = torch.cuda.device_count()
    return min(count, 1) if ":" in device else count


def device_for(wanted: str) -> torch.device:
    """Choose the device on which this process computes, an accelerator always with its index, and make it the current.

    Of processes that share cells, each takes the accelerator of its LOCAL_RANK, unless it sees one alone.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    try:
        device = torch.device(
            "cuda" if wanted == "auto" and torch.cuda.is_available() else wanted.replace("auto", "cpu")
        )
    except RuntimeError:
        raise UserError(f"--device {wanted}: torch knows no such device; expected auto, cpu, cuda or cuda:N") from None
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0")) if count > 1 else 0
    if index >= count:
        found = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise UserError(
            f"--device {wanted}: torch {torch.__version__} finds {found} here, and device {index} is needed; "
            + (f"use --device cuda:0 to cuda:{count - 1}, or fewer --processes" if count else "use --device cpu")
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _git(*arguments: str) -> str | None:
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def _cpu(field: str = "model name") -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(rf"^{field}\s*:\s*(.*\S)", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def choose_kernels(portable: bool) -> None:
    """Choose the CPU kernels of this process, before its first: the libraries look at their variables once."""
    if portable and "avx2" in _cpu("flags").split():
        os.environ.update(PORTABLE)


def keep_memory() -> None:
    """Keep up to 2 GiB of what this process frees, where glibc allocates.

    Else the kernel clears the pages of each large tensor anew, which takes up to two fifths of a loop's time.
    """
    with suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _kernels(instructions: str) -> str:
    """Say which kernels compute: "portable", or "native" with the variables that narrow them."""
    chosen = {name: os.environ[name] for name in PORTABLE if name in os.environ}
    if chosen == PORTABLE and instructions == "AVX2":
        return "portable"
    return " ".join(["native", *(f"{name}={value}" for name, value in chosen.items())])


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
    facts["device"] = device.partition(":")[0]  # which of several like ones explains nothing
    facts["threads"] = str(threads)
    torch = sys.modules.get("torch")  # not loaded by a launcher that records a death
    if torch is not None:
        facts["instructions"] = torch.backends.cpu.get_cpu_capability()
        facts["kernels"] = _kernels(facts["instructions"])
    if device.startswith("cuda") and torch is not None and torch.cuda.is_available():
        facts["accelerator"] = torch.cuda.get_device_name(device)
    return facts
