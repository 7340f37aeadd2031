"""From the records of a store to the board files of one data set: the last step of every run."""

from __future__ import annotations

from pathlib import Path

from bench.harness.report.board_titles import titles_and_baselines
from bench.harness.report.collect import collect
from bench.harness.report.publish import publish
from bench.harness.store import Store


def write_boards(store: Store, dataset: str, out: Path) -> list[Path]:
    """Write the boards of a data set into ``out``; their paths.

    Raises:
        UserError: they can't be written, or two different entries claim the same seed of the same row.
    """
    entries = [entry for entry in collect(store) if entry.dataset == dataset]
    return publish(entries, out, *titles_and_baselines())
