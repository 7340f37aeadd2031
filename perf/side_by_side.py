"""Variants of one computation side by side: seconds of each as a ratio to the first, and its peak memory.

They take turns, round by round; a ratio is that of the seconds of one round, the median over the rounds. Memory is
the peak beyond what the process held before its first step, each variant in a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clock import now  # beside this file

Steps = Callable[[int], None]  # runs that many iterations


@dataclass(frozen=True)
class Comparison:
    """What ``script`` compares: ``variants``, the first being the bare one, on ``cases``.

    A case has ``steps``, the iterations that are measured at a time, ``updates``, the images that one of them
    updates, and ``to_peak``, after how many memory has had its peak.
    """

    script: str
    about: str
    variants: Mapping[str, Callable[[Any, torch.device], Steps]]
    cases: Mapping[str, Any]
    cuda_cases: Mapping[str, Any]

    def main(self) -> None:
        """Measure and print."""
        options = self._options()
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        device = torch.device(options.device)
        cases = self.cuda_cases if device.type == "cuda" else self.cases
        if options.peak:
            variant, case = options.variants[0], cases[options.cases[0]]
            print(f"{_peak(self.variants[variant](case, device), case.to_peak, device):.1f}")
            return
        for name in options.cases or cases:
            bare, taken = next(iter(self.variants)), self._times(cases[name], options, device)
            for variant, spent in taken.items():
                each = 1e6 * statistics.median(spent) / (cases[name].steps * cases[name].updates)
                shares = [one / other for one, other in zip(spent, taken[bare], strict=True)]
                print(
                    f"{name} {variant}: {each:.1f} us an image-iteration, {statistics.median(shares):.3f} of {bare} "
                    f"({min(shares):.3f} to {max(shares):.3f}); peak {self._peak_apart(name, variant, options):.0f} MiB"
                )
                print(f"ratio recovery_{name}_{variant} {statistics.median(shares):.3f}", flush=True)

    def _options(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=self.about.splitlines()[0])
        parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        parser.add_argument("--threads", type=int, default=1)
        parser.add_argument("--rounds", type=int, default=7)
        parser.add_argument("--cases", nargs="+", help="some of them; default: all of the device")
        parser.add_argument("--variants", nargs="+", choices=self.variants, default=list(self.variants))
        parser.add_argument("--peak", action="store_true", help="print the peak memory of one variant and case alone")
        return parser.parse_args()

    def _times(self, case: Any, options: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
        """Seconds of each variant, round by round."""
        chosen = dict.fromkeys([next(iter(self.variants)), *options.variants])
        runs = {variant: self.variants[variant](case, device) for variant in chosen}
        taken: dict[str, list[float]] = {variant: [] for variant in runs}
        for number in range(options.rounds + 1):
            for variant, steps in runs.items():
                spent = _seconds(steps, case.steps, device)
                if number:  # the first round warms up
                    taken[variant].append(spent)
        return taken

    def _peak_apart(self, name: str, variant: str, options: argparse.Namespace) -> float:
        same = [sys.executable, self.script, "--device", options.device, "--threads", str(options.threads)]
        return float(subprocess.check_output([*same, "--cases", name, "--variants", variant, "--peak"], text=True))


def _seconds(steps: Steps, count: int, device: torch.device) -> float:
    started = now(device)
    steps(count)
    return now(device) - started


def _peak(steps: Steps, count: int, device: torch.device) -> float:
    """MiB beyond what is held before the first iteration; meant for a fresh process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        steps(count)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    resident = _resident("VmRSS")
    steps(count)
    return _resident("VmHWM") - resident


def _resident(kind: str) -> float:
    """MiB of this process: now ("VmRSS") or at its peak ("VmHWM"); `ru_maxrss` would begin with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(kind)) / 2**10
