"""What a plan says beside its numbers, and the table at the end of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.cli import screen
from bench.cli.plan_tables import own_length, show_cells
from bench.cli.result_tables import show_results
from bench.execution.scheduling import Schedule
from bench.format import NO_BREAK
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.report.results import Board
from tests.report.board_data import BACKBONE, entry, three


def said(**protocol: object) -> str:
    overrides = {"protocol": protocol} if protocol else {}
    return own_length(plan(Request(methods=("rded",), ipc=(1,), seeds=(0,), overrides=overrides)))


def test_cells_that_do_not_follow_a_setting_are_named_with_what_changes_them() -> None:
    line = said(epochs=2)
    assert line.startswith("full_data keeps its own ")
    shown = re.search(r"protocol\.full_data=(\{.*?\})", line)
    assert shown is not None
    assert said(epochs=2, full_data=json.loads(shown[1])) == said() == said(lr=0.1) == ""


def test_a_plan_says_label_bytes_and_that_no_time_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0,)))
    for state, said in (("todo", True), ("done", False)):
        schedule = Schedule(grid, {cell.id: state for cell in grid.cells})
        show_cells(screen.console(), schedule, None, tmp_path)
        shown = capsys.readouterr().out
        assert ("stored labels to write: 0 B\nno estimate of time yet: nothing like it" in shown) is said


def test_the_results_are_of_what_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Other seeds on the board change no number, and unfinished ones are named; backbones are weighed as there."""
    entries = three((0.7, 0.72, 0.1), public=(BACKBONE,))
    show_results(screen.console(), Board("digits", "", entries), {one.cell for one in entries[:2]})
    shown = capsys.readouterr().out.replace(NO_BREAK, " ")
    assert "n 2" in shown and "71.0 ± 1.4" in shown and "39.1 KiB + 9.3 MiB" in shown and "also holds" not in shown
    entries += [entry(ipc=50, seed=seed, state="missing") for seed in range(3)]
    show_results(screen.console(), Board("digits", "", entries), {one.cell for one in entries[:3]})
    assert "n 3" in (shown := capsys.readouterr().out) and "also holds 3 students of other requests" in shown
