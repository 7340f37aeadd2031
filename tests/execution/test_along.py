"""Stored labels of one set whose codecs are made in one pass over its views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli import main
from bench.execution.scheduling import Schedule, along, pass_of
from bench.kit.labels.online import OnlineTeacher
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.artifacts import Store
from bench.store.locks import lease

CODECS = ("fp16", "topk1+fp16", "int8")
SMALL = "convnet2-w8"


def run(colours: Path, *more: str, labels: tuple[str, ...], store: str) -> dict[str, Any]:
    """Run a grid of one set in this process; return what its records say that must be the same in every run."""
    assert main([
        "run", "--methods", "rded", "--ipc", "2", "--seeds", "0", "--dataset", f"folder:{colours}",
        "--protocol", "tiny.toml", "--students", SMALL, "--no-baselines", "--set", f"teacher.arch={SMALL}",
        "--set", "teacher.epochs=2", "--set", "teacher.batch_size=8", "--device", "cpu", "--cluster", "inline",
        "--store", store, "--out", store, "--labels", ",".join(f"stored:{one}" for one in labels), *more,
    ]) == 0  # fmt: skip
    records = [json.loads(path.read_text()) for path in Path(store).glob("cells/*/record.json")]
    return {one["id"]: [one[key] for key in ("cell", "state", "inputs", "result", "files")] for one in records}


def test_a_run_asks_the_label_model_once_for_all_codecs(
    colours: Path, tiny_protocol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(colours.parent)
    answers, soft_labels = [0], OnlineTeacher.soft_labels

    def counted(self: OnlineTeacher, *views: Any) -> torch.Tensor:
        answers[-1] += 1
        return soft_labels(self, *views)

    monkeypatch.setattr(OnlineTeacher, "soft_labels", counted)
    together = run(colours, labels=CODECS, store="together")
    apart: dict[str, Any] = {}
    for codec in CODECS:
        answers.append(0)
        apart |= run(colours, labels=(codec,), store="apart")
    assert together == apart and len(together) == 1 + 1 + 1 + 1 + 3 + 3
    measured = answers[1] - answers[2]  # of the label model itself, by the first run alone
    assert answers[0] - measured == answers[2] + 2, "a question more for each codec: how many classes there are"
    assert answers[2] == answers[3] > 2


def test_only_what_is_to_do_and_free_is_made_along(tmp_path: Path) -> None:
    labels = tuple(f"stored:{one}" for one in (*CODECS, "features8+fp16", "prune2+fp16", "prune2+int8"))
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0, 1), labels=labels, baselines=False))
    cells = {cell.call["codec"]: cell for cell in grid.stage("label") if cell.by == "stored"}  # of the last seed
    schedule, store = Schedule(grid, dict.fromkeys((cell.id for cell in grid.cells), "todo")), Store(tmp_path)
    beside = {name: {one.call["codec"] for one in schedule.along(cell).cells} for name, cell in cells.items()}
    assert beside["topk1+fp16"] == set(CODECS) and beside["prune2+fp16"] == {"prune2+fp16", "prune2+int8"}
    assert beside["features8+fp16"] == {"features8+fp16"} and pass_of(grid.stage("distill")[0]) is None
    with lease(store.root, cells["int8"].id), along(store, schedule.along(cells["fp16"]), cells["fp16"]) as found:
        assert {str(codec) for codec in found.values()} == {"topk1+fp16"}, "int8 is another's"
        with lease(store.root, cells["topk1+fp16"].id) as ours:
            assert not ours
