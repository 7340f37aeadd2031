"""Records say whose code made a cell, in which version, and with which settings."""

from __future__ import annotations

import hashlib
from pathlib import Path

import bench
from bench.execution.provenance import changed_code, plugins, source_digest
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.record import Record, RunFacts
from methods import rded


def test_every_cell_names_its_code_and_all_settings() -> None:
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0,), labels=("stored:fp16",), baselines=False))
    facts = {cell.stage: plugins(cell)[0] for cell in grid.cells}
    assert {stage: (one.kind, one.name) for stage, one in facts.items()} == {
        "teacher": ("harness", "teacher"),
        "prepare": ("method", "rded"),
        "distill": ("method", "rded"),
        "label": ("harness", "stored"),
        "evaluate": ("evaluator", "classification"),
    }
    assert {(one.distribution, one.version) for one in facts.values()} == {("distill-bench", bench.__version__)}
    assert facts["distill"].settings == rded.RDED.Config().model_dump(mode="json")  # defaults too
    assert facts["teacher"].settings["arch"] == grid.dataset.teacher.arch
    assert facts["evaluate"].settings["ema"] is None
    source = Path(rded.__file__).read_bytes()
    assert facts["distill"].source == hashlib.sha256(b"rded.py\0" + source).hexdigest()


def test_cells_of_other_code_are_said() -> None:
    grid = plan(Request(methods=("rded",), ipc=(1,), seeds=(0, 1), labels=("hard",), baselines=False))
    run = RunFacts(started="", seconds=0, peak_memory=0, environment={})
    records = [Record(id=cell.id, cell=cell, state="done", plugins=plugins(cell), run=run) for cell in grid.cells]
    assert changed_code(records) == []
    other = [
        one.model_copy(update={"plugins": (one.plugins[0].model_copy(update={"source": "0" * 64}),)})
        for one in records
        if one.cell.by == "rded" and one.cell.stage == "distill"
    ]
    assert changed_code([*records, *other]) == [
        "code of rded changed since 2 cells, which stay as they are: raise its version, or --force distill"
    ]


def test_the_source_of_a_package_is_all_its_files() -> None:
    assert source_digest("methods.hello") != source_digest("methods.hello.lora")
    assert source_digest("no_such_module_anywhere") == hashlib.sha256().hexdigest()
