"""Peak memory of a stretch of work: of this process on the host, and on an accelerator."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

import torch


def reset(device: torch.device) -> None:
    """Give back what was freed but kept, and forget the peaks so far, as far as this system lets one.

    What is in use now is the least of the next ones.
    """
    if device.type == "cuda":
        torch.cuda.init()  # before that there are no statistics to reset
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # not on this system, or not allowed: the peak is then that of the process
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (proc(5))


def host() -> int:
    """Return the most bytes of this process that were resident at a time."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def accelerator(device: torch.device) -> int | None:
    """Return the most bytes of tensors that lay on ``device`` at a time; None where nobody counts them."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
