"""Identities: stable, blind to defaults and places, sensitive to everything that changes a result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.api import BaseConfig
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.cell import Cell, canonical, digest


def cell(**changes: object) -> Cell:
    facts = {"stage": "distill", "by": "rded", "version": 1, "fields": {"dataset": "digits", "ipc": 1}, "prefix": "p"}
    return Cell(**{**facts, **changes})  # type: ignore[arg-type]


def test_identity_is_pinned() -> None:
    assert cell().id == "p-" + digest(["distill", "rded", 1, {"dataset": "digits", "ipc": 1}, []])
    assert digest(["distill", "rded", 1, {"dataset": "digits", "ipc": 1}, []]) == "30d2e61cdf"


def test_the_cells_of_a_grid_are_pinned() -> None:
    """Where one of these changes, the records of everybody's stores are no longer found."""
    labels = ("native", "stored:prune2+topk4+int8", "static:fp16", "teacher:int8", "hard")
    methods = ("sre2l", "g_vbsm", "rded", "hello")
    grid = plan(Request(methods=methods, ipc=(10,), seeds=(0,), labels=labels))
    ids = [cell.id for cell in grid.cells]
    assert len(ids) == 58
    assert grid.id == "digits-4e1c0634b0"
    pinned = [
        "teacher-digits-resnet10-small-w16-a719df8c13",
        "prepare-g_vbsm-digits-b86f824432",
        "prepare-rded-digits-s0-d3edbf8e31",
        "random_real-digits-ipc10-s0-a6c044860a",
        "rded-digits-ipc10-s0-98084dcd23",
        "label-teacher-digits-fca5c1d16f",
        "label-hello-digits-s0-09b5c35d21",
        "stored-fp16-sre2l-digits-ipc10-s0-86c2df8069",
        "stored-prune2+topk4+int8-rded-digits-ipc10-s0-4c817822ee",
        "static-fp16-g_vbsm-digits-ipc10-s0-c8acb51c93",
        "g_vbsm-teacher-int8-digits-ipc10-convnet3-w32-s0-274f8e4a36",
        "full_data-hard-digits-full-convnet3-w32-s0-30fe3ae399",
        "hello-projector-digits-ipc10-convnet3-w32-s0-65c5d7c051",
    ]
    assert set(pinned) <= set(ids)


def test_identity_hangs_on_what_decides() -> None:
    changes = [
        {"stage": "label"},
        {"by": "hello"},
        {"version": 2},
        {"fields": {"dataset": "digits", "ipc": 2}},
        {"parents": {"teacher": "t-1"}},
    ]
    ids = {cell().id, *(cell(**change).id for change in changes)}
    assert len(ids) == len(changes) + 1


def test_identity_does_not_hang_on_how() -> None:
    assert cell(call={"settings": {"batch_size": 3}}, row={"method": "x"}).id == cell().id
    assert cell(fields={"ipc": 1, "dataset": "digits"}).id == cell().id


def test_a_new_setting_with_a_default_orphans_nothing() -> None:
    class Old(BaseConfig):
        crops: int = 5

    class New(BaseConfig):
        crops: int = 5
        sharpness: float = 1.0

    assert Old().non_default_fields() == New().non_default_fields() == {}
    assert Old(crops=7).non_default_fields() == New(crops=7).non_default_fields()


def test_canonical_refuses_what_is_not_a_number() -> None:
    with pytest.raises(ValueError):
        canonical({"lr": float("nan")})


def test_moving_the_data_changes_nothing(colours: Path, tmp_path: Path) -> None:
    before = plan(Request(methods=("rded",), ipc=(1,), dataset=f"folder:{colours}"))
    colours.rename(tmp_path / "elsewhere")
    (tmp_path / "deep").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "deep" / "colours")
    after = plan(Request(methods=("rded",), ipc=(1,), dataset=f"folder:{tmp_path / 'deep' / 'colours'}"))
    assert [c.id for c in before.cells] == [c.id for c in after.cells]


def test_ids_are_the_same_in_every_process() -> None:
    code = (
        "import json; from bench.planning.plan import Request, plan;"
        "print(json.dumps([c.id for c in plan(Request(methods=('rded', 'hello'), ipc=(1, 10))).cells]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [c.id for c in plan(Request(methods=("rded", "hello"), ipc=(1, 10))).cells]
