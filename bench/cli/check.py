"""Run the conformance suite on a method, under its own quick settings where it has some, in seconds.

A method that passes can be resumed, shared and stored by the benchmark. Pass it on synthetic images first, then on the
data set that you want to run. The same suite is importable: ``from bench.conformance import MethodConformance``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.api import registry
from bench.cli import screen
from bench.format import plural
from bench.planning.variants import read

if TYPE_CHECKING:
    from bench.conformance import MethodConformance

ARGUMENTS = """
METHOD  a method, with settings in brackets: 'hello[conv_rank=4]'
--dataset NAME  default: synthetic 16-px stripes of four classes
--ipc N = 2  images per class (default: 2)
--data-root PATH  the folder that holds data sets
"""
EXAMPLES = """examples:
  python -m bench check rded
  python -m bench check 'hello[conv_rank=4]' --dataset digits --ipc 1
"""


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench check``; 1 if a test failed."""
    registry.method(read(arguments.method).method)  # an unknown name is refused before torch is imported
    from bench.conformance import MethodConformance, run

    chosen = {name: getattr(arguments, name) for name in ("method", "dataset", "ipc", "data_root")}
    suite = type("Chosen", (MethodConformance,), chosen)
    out, failed = screen.console(), 0
    with out.status("") as status:
        for outcome in run(suite, begin=lambda title: status.update(_Now(title, suite))):
            failed += outcome.passed is False
            sign = {True: "✓", False: "✗", None: "–"}[outcome.passed]
            reason = f"  ({outcome.reason})" if outcome.passed is None else ""
            out.print(f"{sign} {outcome.title:<46} {outcome.seconds:6.2f} s{reason}", markup=False)
            if outcome.passed is False:
                out.print(f"    {outcome.reason}", markup=False)
    out.print(f"{arguments.method}: {plural(failed, 'test') + ' failed' if failed else 'passed'}", markup=False)
    return 1 if failed else 0


@dataclass(frozen=True)
class _Now:
    """The test that runs, and how far the stage in it is; looked at whenever the screen is drawn."""

    title: str
    suite: type[MethodConformance]

    def __rich__(self) -> str:
        steps = self.suite.bench.steps
        return f"{self.title}  {steps[-1][0]}/{steps[-1][1]}" if steps else self.title
