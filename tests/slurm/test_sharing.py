"""Cells that several processes of a task share, through torch.distributed as Slurm starts it."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.slurm.place import awaited, make_place

PROFILE = """
[resources.pairs]
cells = ["teacher", "prepare", "distill", "label"]
processes = 2
"""
# Floats are added up in another order, which optimizer steps magnify; tests/kit/test_distributed.py compares the
# numbers themselves, in double precision.
APART = 0.02  # of weights, by their norm, and of accuracy


def test_two_processes_make_what_one_makes(tmp_path: Path, slurm_conf: str) -> None:
    place = make_place(tmp_path, slurm_conf)
    (place.home / "pairs.toml").write_text(PROFILE)
    grid = ("--seeds", "0", "--set", "sre2l.iterations=20")
    arguments = place.arguments(*grid, "--profile", "pairs.toml", methods="sre2l,rded")
    beside = place.start_bench(place.arguments(*grid, methods="sre2l,rded", cluster="inline", store="one"))
    done = place.bench(arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    out, err = beside.communicate(timeout=400)
    assert beside.returncode == 0, out + err
    awaited(place.idle)

    two, one = place.records(), place.records("one")
    assert two.keys() == one.keys(), "how many compute it is no part of an identity"
    shared = {cell: record["run"]["environment"].get("processes") for cell, record in two.items()}
    stages = {cell: record["cell"]["stage"] + ":" + record["cell"]["by"] for cell, record in two.items()}
    together = {stages[cell] for cell in two if shared[cell] == "2"}
    assert together == {"teacher:teacher", "prepare:rded", "distill:rded", "distill:sre2l"}
    assert {shared[cell] for cell in two} == {"2", None}, "the rest can't be shared and has one process"
    assert place.completions() == dict.fromkeys(two, 1), "the first of a team tells it"

    (teacher,) = (cell for cell in two if stages[cell] == "teacher:teacher")
    assert two[teacher]["result"]["top1"] == pytest.approx(one[teacher]["result"]["top1"], abs=APART)
    for path in two[teacher]["files"]:
        if path.endswith(".safetensors"):
            mine, theirs = (load_file(place.home / store / "cells" / teacher / path) for store in ("the store", "one"))
            assert mine.keys() == theirs.keys()
            for name, tensor in mine.items():
                if tensor.is_floating_point():
                    assert (tensor - theirs[name]).norm() <= APART * theirs[name].norm(), f"{path}: {name}"
