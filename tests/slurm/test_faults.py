"""What goes wrong on clusters, on a real one: each ends with the records of an undisturbed run, no cell lost and none
computed twice."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slurm import cluster
from tests.slurm.place import SMALL, STORE, Place, awaited, finish, make_place

GRID = ("--labels", "stored:topk1")  # with RDED, cells of all five stages, and labels that stand on labels
STAGES = ("teacher", "prepare", "distill", "label", "evaluate")


@pytest.fixture
def place(tmp_path: Path, slurm_conf: str) -> Place:
    return make_place(tmp_path, slurm_conf)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, slurm_conf: str) -> Place:
    """The same grid computed in one process, under four seeds."""
    place = make_place(tmp_path_factory.mktemp("undisturbed"), slurm_conf)
    done = place.bench(place.arguments(*GRID, "--seeds", "0,1,2,3", cluster="inline"))
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def assert_like(undisturbed: Place, place: Place, store: str = STORE, seeds: int = 2) -> None:
    """The same records, for each cell one, each computed once."""
    awaited(place.idle)
    told, expected = place.told(store), undisturbed.told()
    assert len(told) == 2 + 4 * seeds
    assert told == {cell: expected[cell] for cell in told}
    assert place.completions(store) == dict.fromkeys(told, 1)
    for name in ("drafts", "heartbeats", "work", "failures"):
        assert [path.name for path in (place.home / store / name).iterdir()] == [], name


def at_work(place: Place, undisturbed: Place, stage: str, beside: str = "") -> dict[str, Any]:
    """Wait for a cell of a stage, another than ``beside``, that has done a third of its work; what it says."""
    stages = {cell: record["cell"]["stage"] for cell, record in undisturbed.records().items()}

    def found() -> dict[str, Any] | None:
        for cell, beat in place.heartbeats().items():
            if stages.get(cell) == stage and cell != beside and beat["total"] / 3 <= beat["done"] < beat["total"]:
                return {"cell": cell, **beat}
        return None

    return dict(awaited(found))


def test_tasks_of_every_stage_are_requeued_and_warned(place: Place, undisturbed: Place) -> None:
    follower = place.start_bench(place.arguments(*GRID), **place.slowly(4))
    met = []
    for stage in STAGES:
        first = at_work(place, undisturbed, stage)
        place.run("scancel", "--signal=USR2", first["job"])
        if stage == "teacher":  # there is no other: it is met again when it has begun again
            awaited(lambda first=first: place.beginnings(first["cell"]) == 2)
        second = at_work(place, undisturbed, stage, first["cell"] if stage != "teacher" else "")
        requeued = place.run("scontrol", "requeue", second["job"])
        assert requeued.returncode == 0, requeued.stderr
        os.kill(second["pid"], signal.SIGKILL)  # as Slurm would in seconds, in which it might finish its cell
        met += [first["cell"], second["cell"]]
    done = finish(follower)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_like(undisturbed, place)
    assert place.log().count("stopped; all work is saved") == len(STAGES)
    assert all(place.beginnings(cell) == 2 for cell in met if met.count(cell) == 1)


def test_nodes_are_lost_and_the_controller_restarts(place: Place, undisturbed: Place) -> None:
    home = Path(place.conf).parent
    follower = place.start_bench(place.arguments(*GRID), **place.slowly(4))

    def node_of(beat: dict[str, Any]) -> str:
        return place.run("squeue", "--noheader", "--format=%N", f"--jobs={beat['job']}").stdout.strip()

    killed = at_work(place, undisturbed, "distill")
    lost = node_of(killed)
    cluster.kill_node(home, lost)  # with all that ran there
    at_work(place, undisturbed, "label")
    cluster.restart_controller(home)
    cluster.start_node(home, lost)
    alone = at_work(place, undisturbed, "evaluate")
    unreachable = node_of(alone)
    cluster.kill_node(home, unreachable, keep_jobs=True)  # it computes on, and its task starts elsewhere too
    done = finish(follower)
    cluster.start_node(home, unreachable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_like(undisturbed, place)
    assert place.beginnings(killed["cell"]) == 2
    assert place.beginnings(alone["cell"]) == 1


def test_arrays_above_the_limit_submitted_twice_from_inside_a_job(place: Place, undisturbed: Place) -> None:
    arguments = place.arguments(*GRID, "--seeds", "0,1,2,3")  # the cluster's MaxArraySize is 3
    inside = place.run("sbatch", "--wait", "--wrap", f"cd '{place.home}' && {_shell(arguments)} --detach")
    assert inside.returncode == 0, inside.stdout + inside.stderr + _job_log(place)
    beside = place.start_bench(arguments)
    again = place.bench([*arguments, "--out", "other-boards"])
    for done in (finish(beside), again):
        assert done.returncode == 0, done.stdout + done.stderr
        assert "cells are in Slurm's queue already" in done.stdout or "nothing to do" in done.stdout
    assert_like(undisturbed, place, seeds=4)
    arrays = [line for script in place.scripts() for line in script.splitlines() if "--array" in line]
    assert sorted(line.partition("=")[2] for line in arrays) == ["0-2%3"] * 4, "four in arrays of three, and one more"
    assert len(place.scripts()) == 1 + 2 + 2 + 1 + 2 + 2 + 1
    assert place.board() == place.board("other-boards") == undisturbed.board()


def _shell(arguments: list[str]) -> str:
    return shlex.join([sys.executable, "-m", "bench", *arguments])


def _job_log(place: Place) -> str:
    return "\n".join(path.read_text() for path in place.home.glob("slurm-*.out"))


def test_two_submissions_at_once(place: Place) -> None:
    arguments = place.arguments(methods="random_real")
    both = [place.start_bench([*arguments, "--out", out]) for out in ("boards", "other-boards")]
    for done in map(finish, both):
        assert done.returncode == 0, done.stdout + done.stderr
    awaited(place.idle)
    assert place.completions() == dict.fromkeys(place.records(), 1) and len(place.records()) == 4
    assert len(place.scripts()) == 3, "one of them submitted, the other waited for it"


def test_sbatch_refuses_half_way(place: Place) -> None:
    (place.home / "greedy.toml").write_text('[resources.x]\ncells = ["evaluate"]\npartition = "no-such"\n')
    done = place.bench(place.arguments(*GRID, "--profile", "greedy.toml"))
    assert done.returncode == 2
    assert "Slurm refused the evaluate jobs (2), and nothing of this call is left in the queue" in done.stderr
    assert "invalid partition" in done.stderr.lower()
    assert len(done.stderr.splitlines()) == 1
    awaited(place.idle)
    assert place.records() == {}
    (journal,) = (place.home / STORE / "slurm").glob("*/journal.jsonl")
    events = [json.loads(line)["event"] for line in journal.read_text().splitlines()]
    assert events == ["submitting", "submitted"] * 5 + ["submitting", "cancelled"]


def test_a_task_out_of_memory_fails_with_its_reason_and_is_retried_with_more(place: Place, undisturbed: Place) -> None:
    shutil.copytree(undisturbed.home / STORE, place.home / STORE)
    for seed in (0, 1):
        (student,) = (place.home / STORE / "cells").glob(f"*-{SMALL}-s{seed}-*")
        shutil.rmtree(student)
    (place.home / "narrow.toml").write_text('[resources.x]\ncells = ["evaluate"]\nmemory_gb = 0.15\n')
    done = finish(place.start_impatient(place.arguments(*GRID, "--profile", "narrow.toml")))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed" in done.stdout
    told = place.bench(["status", "--store", STORE])
    assert told.returncode == 1 and "OUT_OF_MEMORY" in told.stdout, told.stdout
    retried = place.bench(["retry", "--failed", "--memory", "3", "--store", STORE, "--out", "boards"])
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert place.told() == undisturbed.told()
    students = [cell for cell in place.told() if f"-{SMALL}-s0-" in cell or f"-{SMALL}-s1-" in cell]
    assert place.completions() == dict.fromkeys(students, 1)
