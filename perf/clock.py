"""The clock of the benchmarks, and the share of a loop that its bare part takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch


def now(device: torch.device) -> float:
    """Seconds: of an accelerator when it is done; else of the processor, which other people's work on the machine
    does not lengthen as it does the clock's."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def quartiles_of_shares(bare: Sequence[float], whole: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of bare over whole seconds, round by round."""
    low, middle, high = statistics.quantiles((one / other for one, other in zip(bare, whole, strict=True)), n=4)
    return low, middle, high
