"""One cell, as the worker runs it: what plug-ins do wrong, and tasks that help another with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.execution import stages
from bench.execution.environment import Options
from bench.execution.worker import run_cell
from bench.kit.running.blocks import Helped
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.artifacts import Store


def test_a_plug_in_that_ends_the_process_is_a_failed_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = plan(Request(methods=("random_real",), labels=("hard",), ipc=(1,), seeds=(0,), baselines=False))
    (cell,), store = grid.stage("distill"), Store(tmp_path)
    monkeypatch.setitem(stages.STAGES, "distill", lambda task: sys.exit(0))
    assert run_cell(grid, cell, Options(store=tmp_path, device="cpu")) == "failed"
    failure = store.failure(cell.id)
    assert failure is not None and failure.error == "SystemExit: 0"


@pytest.mark.parametrize("done", [False, True])
def test_a_work_folder_without_a_checkpoint_yet_is_left_to_the_task_that_computes(
    done: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = plan(Request(methods=("random_real",), labels=("hard",), ipc=(1,), seeds=(0,), baselines=False))
    (cell,), store = grid.stage("distill"), Store(tmp_path)

    def nothing_to_share(task: Any) -> None:
        if done:
            store.folder(cell.id).mkdir(parents=True)
        raise Helped

    monkeypatch.setitem(stages.STAGES, "distill", nothing_to_share)
    assert run_cell(grid, cell, Options(store=tmp_path, device="cpu"), helps=0.5) == "helped"
    assert (tmp_path / "work" / cell.id).exists() != done
