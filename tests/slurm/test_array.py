"""Runs as job arrays on a real Slurm: the same records as elsewhere, and what happens when something goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.execution import local
from bench.slurm import follow, submit
from bench.slurm.submit import Submission
from tests.conftest import TINY_PROTOCOL
from tests.slurm.place import SMALL, STORE, Done, Place, awaited, finish, make_place

STORED = ("--labels", "stored:topk1")


def _longer_protocol(place: Place, epochs: int) -> str:
    """A protocol that keeps a student busy for about three seconds per 500 epochs."""
    changed = TINY_PROTOCOL.replace("epochs = 4", f"epochs = {epochs}").replace('"tiny"', f'"tiny-{epochs}"')
    (place.home / "long.toml").write_text(changed)
    return "long.toml"


def _heartbeat(place: Place, store: str, stage: str, seed: int) -> dict[str, Any] | None:
    """What the only running cell of a stage and seed says of itself."""
    for cell, beat in place.heartbeats(store).items():
        if f"-s{seed}-" in cell and (SMALL in cell) == (stage == "evaluate"):
            return beat
    return None


@pytest.fixture
def place(tmp_path: Path, slurm_conf: str) -> Place:
    """A place of a test's own."""
    return make_place(tmp_path, slurm_conf)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, slurm_conf: str) -> tuple[Place, Done, Done]:
    """A place where the same grid was run twice, through Slurm and in a process of its own (store ``inline``)."""
    place = make_place(tmp_path_factory.mktemp("finished"), slurm_conf)
    beside = place.start_bench(place.arguments(*STORED, "--out", "inline-boards", cluster="inline", store="inline"))
    through = place.bench(place.arguments(*STORED))
    return place, through, finish(beside)


def test_stages_are_arrays_that_wait_for_what_they_stand_on(finished: tuple[Place, Done, Done]) -> None:
    place, through, _ = finished
    assert through.returncode == 0, through.stdout + through.stderr
    assert "where the time went" in through.stdout
    awaited(place.idle)
    assert [record["state"] for record in place.records().values()] == ["done"] * 10
    scripts = place.scripts()
    teacher, prepare, distill, label, stored, evaluate, report = scripts
    assert all("--array=0-1%2" in script for script in (prepare, distill, stored, evaluate))
    assert all("--array" not in script for script in (teacher, label, report)), "one task is a plain job"
    assert "--dependency" not in teacher
    jobs = sorted(int(path.name.split("_")[0]) for path in (place.home / STORE).glob("slurm/*/*_submission.sh"))
    waits = [script.partition("--dependency=")[2].split()[0] for script in scripts[1:]]
    t, p, d, online, s, e, _ = jobs
    assert waits == [
        f"afterany:{t}",
        f"aftercorr:{p},afterany:{t}",
        f"afterany:{t}",
        f"aftercorr:{d},afterany:{online}",
        f"aftercorr:{d}:{s}",
        f"afterany:{t}:{p}:{d}:{online}:{s}:{e}",
    ]
    assert all(f" {sys.executable} " in script for script in scripts)
    assert all("--requeue" in script and "--signal=USR2@120" in script for script in scripts)
    assert "wckey" not in "".join(scripts)


def test_the_last_job_writes_the_boards(finished: tuple[Place, Done, Done]) -> None:
    place, _, beside = finished
    assert beside.returncode == 0, beside.stdout + beside.stderr
    assert place.board() == place.board("inline-boards")
    awaited(place.idle)
    shutil.rmtree(place.home / "boards")
    (run,) = (place.home / STORE / "slurm").iterdir()
    again = "import sys; from bench.slurm.task import Report; Report(sys.argv[1])()"
    assert place.run(sys.executable, "-c", again, str(run / "run.json")).returncode == 0
    assert place.board() == place.board("inline-boards")


def test_the_records_are_those_of_a_run_without_slurm(finished: tuple[Place, Done, Done]) -> None:
    place, _, _ = finished
    assert place.told() == place.told("inline")
    same = ("python", "torch", "distill-bench", "threads")
    records = [*place.records().values(), *place.records("inline").values()]
    environments = [record["run"]["environment"] for record in records]
    assert len({tuple(found[key] for key in same) for found in environments}) == 1
    assert not any("code_drift" in found for found in environments)


def test_a_second_run_submits_nothing(finished: tuple[Place, Done, Done]) -> None:
    place, _, _ = finished
    before = sorted((place.home / STORE / "slurm").iterdir())
    again = place.bench(place.arguments(*STORED))
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert sorted((place.home / STORE / "slurm").iterdir()) == before


def test_what_fails_is_told_and_holds_up_only_what_stands_on_it(place: Place) -> None:
    broken = place.home / "colours" / "val" / "colour 1" / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"\0" * len(whole))  # of the same size, so that the plan doesn't notice
    arguments = place.arguments("--seeds", "0", "--students", f"{SMALL},timm:no_such_model", "--no-preflight",
                                methods="random_real")  # fmt: skip
    done = place.bench(arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not a readable image" in done.stdout
    assert "1 failed, 2 depend on them" in done.stdout
    awaited(place.idle)
    told = [log.read_text() for log in (place.home / STORE / "slurm").glob("*/*.err")]
    assert sum("not a readable image" in text for text in told) == 1  # blocked ones end at once

    broken.write_bytes(whole)
    # as if in another job, whose variables would make three tasks of each of ours
    again = place.bench(arguments, SLURM_JOB_ID="1", SLURM_NTASKS="3", SLURM_STEP_ID="0")
    assert again.returncode == 1, again.stdout + again.stderr
    assert "not a readable image" not in again.stdout, "the failure of old is no answer"
    assert "no_such_model" in again.stdout
    assert "1 failed, 0 depend on them" in again.stdout
    assert len(place.records()) == 2
    assert "--array=0-1" in place.scripts()[-2], "the student that was trained stood beside the one that wasn't"
    assert not list((place.home / STORE / "slurm").glob("*/*_1_log.err")), "tasks of a second rank"


def test_stopped_and_started_again_it_waits_for_what_runs_and_notices_what_dies(
    finished: tuple[Place, Done, Done],
) -> None:
    place, _, _ = finished
    shutil.copytree(place.home / STORE, place.home / "stopped")
    arguments = place.arguments(*STORED, "--protocol", _longer_protocol(place, 500), store="stopped")
    first = place.start_bench([*arguments, "--seeds", "0"], **place.slowly(1))
    worker = awaited(lambda: _heartbeat(place, "stopped", stage="evaluate", seed=0))["pid"]
    os.kill(worker, signal.SIGSTOP)
    first.send_signal(signal.SIGINT)
    stopped = finish(first)
    assert stopped.returncode == 130
    assert "the same command follows them again" in stopped.stderr
    assert sum("RUNNING" in line for line in place.queue()) == 1

    before = len(place.scripts("stopped"))
    second = place.start_impatient([*arguments, "--seeds", "0,1"], **place.slowly(3))
    killed = awaited(lambda: _heartbeat(place, "stopped", stage="evaluate", seed=1))
    os.kill(killed["pid"], signal.SIGKILL)
    os.kill(worker, signal.SIGCONT)
    done = finish(second)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 0 depend on them" in done.stdout
    assert f"Slurm task {killed['job']}: FAILED" in done.stdout
    log = Path(done.stdout.partition("its log is ")[2].partition("; see bench show")[0])
    assert "Killed" in log.read_text()
    made = [cell for cell in place.records("stopped").keys() - place.records().keys() if f"-{SMALL}-" in cell]
    assert [cell.split("-")[-2] for cell in made] == ["s0"]
    mine = [script for script in place.scripts("stopped")[before:] if "bench-evaluate" in script]
    assert len(mine) == 1, "what was in the queue was not submitted again"
    assert "--array" not in mine[0]
    awaited(place.idle)


@pytest.mark.parametrize("there", [True, False])
def test_auto_takes_slurm_where_a_cluster_answers(
    there: bool, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = []
    monkeypatch.chdir(place.home)
    monkeypatch.setenv("SLURM_CONF", place.conf)
    if not there:
        monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(submit, "submit", lambda *_: taken.append("slurm") or Submission({}, {}))
    monkeypatch.setattr(follow, "follow", lambda *_: None)
    monkeypatch.setattr(local, "run", lambda *_: taken.append("local"))
    assert main(place.arguments(cluster="auto")) == 0
    assert taken == ["slurm" if there else "local"]
    if not there:
        assert main(place.arguments(cluster="slurm")) == 2
        assert "no Slurm answers here" in capsys.readouterr().err


def test_the_doctor_finds_nothing_wrong_here_and_says_what_is(place: Place) -> None:
    well = place.bench(["doctor", "--store", STORE])
    assert well.returncode == 0, well.stdout + well.stderr
    assert "✗" not in well.stdout
    (place.home / "wrong.toml").write_text('partition = "no-such"\n')
    wrong = place.bench(["doctor", "--store", STORE, "--profile", "wrong.toml"])
    assert wrong.returncode == 1
    assert "no-such" in wrong.stdout
    assert place.idle()
