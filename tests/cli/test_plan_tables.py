"""What a plan says beside its numbers."""

from __future__ import annotations

import json
import re

from bench.cli.plan_tables import own_length
from bench.planning.grid import Request
from bench.planning.plan import plan


def said(**protocol: object) -> str:
    overrides = {"protocol": protocol} if protocol else {}
    return own_length(plan(Request(methods=("rded",), ipc=(1,), seeds=(0,), overrides=overrides)))


def test_cells_that_do_not_follow_a_setting_are_named_with_what_changes_them() -> None:
    line = said(epochs=2)
    assert line.startswith("full_data keeps its own ")
    shown = re.search(r"protocol\.full_data=(\{.*?\})", line)
    assert shown is not None
    assert said(epochs=2, full_data=json.loads(shown[1])) == said() == said(lr=0.1) == ""
