"""Cells that several processes of a task share, through torch.distributed as Slurm starts it, and several tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.slurm.place import STORE, awaited, make_place

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


SPLIT = """
[resources.split]
cells = ["prepare", "distill"]
tasks = 3
"""


def test_three_tasks_make_to_the_bit_what_one_makes_though_two_are_ended(tmp_path: Path, slurm_conf: str) -> None:
    place = make_place(tmp_path, slurm_conf)
    (place.home / "split.toml").write_text(SPLIT)
    blocks = ("sre2l.iterations=80", "sre2l.group_classes=1", "sre2l.groups=1")  # a class each
    grid = ("--seeds", "0", *(word for change in blocks for word in ("--set", change)))
    plan = place.bench(place.arguments(*grid, "--profile", "split.toml", "--dry-run", methods="sre2l"))
    assert "1 + 2 that help" in plan.stdout, plan.stdout + plan.stderr
    through = place.start_bench(place.arguments(*grid, "--profile", "split.toml", methods="sre2l,rded"))
    (work,) = awaited(lambda: [path.parent for path in (place.home / STORE).glob("work/sre2l-*/work-block-*.lock")][:1])
    (beat,) = awaited(lambda: [one for cell, one in place.heartbeats().items() if cell == work.name])
    place.run("scontrol", "requeue", beat["job"])  # the task that computes it: another may be the last to finish
    helping = next(job for job in place.queue() if "_" in job and "RUNNING" in job)
    place.run("scancel", "--signal=KILL", helping.split()[0])
    out, err = through.communicate(timeout=400)
    assert through.returncode == 0, out + err
    alone = place.bench(place.arguments(*grid, methods="sre2l,rded", cluster="inline", store="one"))
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert place.told() == place.told("one")
    assert "is helped with" in place.log() and "has no blocks left to help with" in place.log()
    assert not [*(place.home / STORE / "work").iterdir()]
