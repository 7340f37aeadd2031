"""From the records of a store to the board files of one data set: the last step of every run."""

from __future__ import annotations

from pathlib import Path

from bench.planning.suites import names
from bench.report_legacy.board_titles import titles_and_baselines
from bench.report_legacy.collect import collect
from bench.report_legacy.publish import SUFFIX, publish
from bench.store.artifacts import Store

SUITES = "suites"


def write_boards(store: Store, dataset: str, out: Path, suite: str = "") -> list[Path]:
    """Write the boards of a data set into ``out``, those of a suite below it; their paths.

    Raises:
        UserError: they can't be written, or two different entries claim the same seed of the same row.
    """
    entries = [entry for entry in collect(store, suite) if entry.dataset == dataset]
    return publish(entries, folder(out, suite), *titles_and_baselines(), suite=suite)


def folder(out: Path, suite: str) -> Path:
    """Where the boards of a suite lie; those of no suite lie in ``out`` itself."""
    return out / SUITES / suite if suite else out


def kept(out: Path) -> list[str]:
    """The suites that have boards in ``out``; the empty name is of those that belong to none."""
    return [suite for suite in ("", *names()) if any(folder(out, suite).glob(f"*{SUFFIX}"))]
