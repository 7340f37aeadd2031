"""The clock of the benchmarks, variants that take turns, and the command line that all scripts share."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import torch

from bench.execution.environment import keep_memory

Ratios = Iterator[tuple[str, float]]


def now(device: torch.device) -> float:
    """Seconds: of an accelerator when it is done; else of the processor, which other work on the machine doesn't
    lengthen as it does the clock's."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def side_by_side(variants: Mapping[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, float]:
    """Median seconds of the first variant over those of each other, round by round; the first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            started = now(device)
            run()
            taken[name].append(now(device) - started)
    bare, *others = variants
    return {name: median_ratio(taken[bare][1:], taken[name][1:]) for name in others}


def median_ratio(bare: list[float], whole: list[float]) -> float:
    """Median of bare over whole seconds, round by round."""
    return statistics.median(one / max(other, 1e-9) for one, other in zip(bare, whole, strict=True))


def main(about: str, measure: Callable[[torch.device, bool], Ratios]) -> None:
    """Parse ``--device``, ``--threads`` and ``--tiny``, measure, and print ``ratio NAME VALUE`` lines."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="the smallest form, which measures nothing: for tests")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_memory()  # as a run does
    torch.manual_seed(0)
    for name, ratio in measure(torch.device(options.device), options.tiny):
        print(f"ratio {name} {ratio:.3f}", flush=True)
