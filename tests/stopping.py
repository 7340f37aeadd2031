"""Stops: a computation that is asked to stop again and again ends with what an undisturbed one makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from bench import stopping
from bench.api import Progress

_Made = TypeVar("_Made")


def stopped_every(steps: int, run: Callable[[Progress], _Made], patience: int = 0) -> tuple[_Made, list[int]]:
    """Run a computation to its end, asking it to stop whenever it told of ``steps`` more steps.

    Each run begins with another global random stream, as other processes would. A run that goes on for more than
    ``patience`` steps after it was asked to stop is a failure, and so is one that gets nowhere.

    Args:
        run: the computation with a progress callback, in the same work folder each time.

    Returns:
        The result of the last run, and which steps were told, by all runs.
    """
    told: list[int] = []
    for number in range(100):
        began = len(told)

        def progress(done: int, total: int, **_: float) -> None:
            told.append(done)
            late = len(told) - began - steps  # noqa: B023 — called within this turn of the loop
            assert late <= patience, f"it was asked to stop {late} steps ago"
            if late == 0:
                stopping.ask()

        torch.manual_seed(number)
        try:
            return run(progress), told
        except stopping.Stopped:
            assert len(told) >= began + steps, "it stopped before it was asked to"
        finally:
            stopping.forget()
    raise AssertionError("it gets nowhere")
