"""Put a method to the test: does it keep the contract? Runs on a tiny made-up data set, in seconds.

The same checks are run on the methods that ship with the benchmark; a method of your own should pass them before a
night is spent on it."""

from __future__ import annotations

import argparse

from bench.cli import screen

HELP = "does a method keep the contract?"
EXAMPLES = """examples:
  python -m bench check rded
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bench check``."""
    parser.add_argument("method", metavar="METHOD")


def execute(arguments: argparse.Namespace) -> int:
    """``bench check``; 1 when a check fails."""
    from bench.api import registry

    registry.method(arguments.method)  # an unknown name is said before torch is imported
    from bench.conformance.checks import check

    out = screen.console()
    failed = 0
    for result in check(arguments.method):
        failed += not result.passed
        out.print(f"{'✓' if result.passed else '✗'} {result.name:<52} {result.seconds:6.2f} s", markup=False)
        if result.detail:
            out.print(f"    {result.detail}", markup=False)
    out.print(f"{arguments.method}: {'keeps the contract' if not failed else f'{failed} checks failed'}")
    return 1 if failed else 0
