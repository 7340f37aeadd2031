"""Runs as job arrays on a real Slurm: the same records as elsewhere, and what happens when something goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.harness.launch import local, slurm
from tests.conftest import TINY_PROTOCOL, command, draw_classes, environment

STORE = "the store"  # a blank in a path is nothing special
SMALL = "convnet2-w8"
TEACHER = (f"arch={SMALL}", "epochs=3", "batch_size=8", "schedule=cosine", "lr=0.05")

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Place:
    """A folder with data, protocols and stores, on a machine with a cluster."""

    home: Path
    conf: str

    def arguments(self, *more: str, methods: str = "rded", cluster: str = "slurm", store: str = STORE) -> list[str]:
        """A run that takes seconds: one IPC, no baselines; of RDED, a teacher of three epochs."""
        changes = [part for setting in TEACHER for part in ("--set", f"teacher.{setting}")] if methods == "rded" else []
        return [
            "run", "--methods", methods, "--no-baselines", "--ipc", "1", "--seeds", "0,1",
            "--dataset", "folder:colours", "--protocol", "tiny.toml", "--students", SMALL, "--cluster", cluster,
            "--store", store, "--out", "boards", *changes, *more,
        ]  # fmt: skip

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.home, env=environment({"SLURM_CONF": self.conf, **env}), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # a shell starts what it puts in the background with SIGINT ignored, and that is inherited
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def run(self, *command: str, **env: str) -> Done:
        return _finish(self.start(*command, **env))

    def bench(self, arguments: list[str], **env: str) -> Done:
        return self.run(*command(arguments), **env)

    def queue(self) -> list[str]:
        """The jobs that Slurm knows as pending or running."""
        return self.run("squeue", "--noheader", "--format=%i %T").stdout.split("\n")[:-1]

    def scripts(self, store: str = STORE) -> list[str]:
        """The submitted scripts, in the order of submission."""
        paths = (self.home / store / "slurm").glob("*_submission.sh")
        return [path.read_text() for path in sorted(paths, key=lambda path: int(path.name.split("_")[0]))]

    def records(self, store: str = STORE) -> dict[str, dict[str, Any]]:
        found = [json.loads(path.read_text()) for path in (self.home / store).glob("cells/*/record.json")]
        return {record["id"]: record for record in found}


def _finish(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=180)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _make(home: Path, conf: str) -> Place:
    draw_classes(home / "colours")
    (home / "tiny.toml").write_text(TINY_PROTOCOL)
    return Place(home, conf)


def _await(what: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it didn't come"
        time.sleep(0.1)
    return found


def _longer_protocol(place: Place, epochs: int) -> str:
    """A protocol that keeps a student busy for about three seconds per 500 epochs."""
    changed = TINY_PROTOCOL.replace("epochs = 4", f"epochs = {epochs}").replace('"tiny"', f'"tiny-{epochs}"')
    (place.home / "long.toml").write_text(changed)
    return "long.toml"


def _heartbeat(place: Place, store: str, seed: int) -> dict[str, Any] | None:
    """What the only running cell of a seed says of itself."""
    for path in (place.home / store / "heartbeats").glob(f"*-s{seed}-*.json"):
        return json.loads(path.read_text())  # type: ignore[no-any-return]
    return None


@pytest.fixture
def place(tmp_path: Path, slurm_conf: str) -> Place:
    """A place of a test's own."""
    return _make(tmp_path, slurm_conf)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, slurm_conf: str) -> tuple[Place, Done, Done]:
    """A place where the same grid was run twice, through Slurm and in a process of its own (store ``inline``)."""
    place = _make(tmp_path_factory.mktemp("finished"), slurm_conf)
    stored = ("--labels", "stored:topk2")
    beside = place.start(*command(place.arguments(*stored, "--out", "inline-boards", cluster="inline", store="inline")))
    through = place.bench(place.arguments(*stored))
    return place, through, _finish(beside)


def test_stages_are_arrays_one_after_the_other(finished: tuple[Place, Done, Done]) -> None:
    place, through, _ = finished
    assert through.returncode == 0, through.stdout + through.stderr
    assert "where the time went" in through.stdout
    _await(lambda: place.queue() == [])  # a record is there before its task has ended
    assert [record["state"] for record in place.records().values()] == ["done"] * 10
    assert (place.home / "boards" / "folder-colours.md").is_file()
    teacher, prepare, distill, label, stored, evaluate = scripts = place.scripts()
    assert all("--array=0-1%2" in script for script in (prepare, distill, stored, evaluate))
    assert "--array" not in teacher + label, "a stage of one cell is a plain job"
    assert "--dependency" not in teacher
    assert all("--dependency=afterany:" in script for script in scripts[1:])
    assert all(f" {sys.executable} " in script for script in scripts)
    assert "wckey" not in "".join(scripts)


def test_the_records_are_those_of_a_run_without_slurm(finished: tuple[Place, Done, Done]) -> None:
    place, _, beside = finished
    assert beside.returncode == 0, beside.stdout + beside.stderr
    told = ("cell", "state", "inputs", "result", "files", "public")
    through, inline = place.records(), place.records("inline")
    assert through.keys() == inline.keys()
    for cell_id, record in through.items():
        assert {key: record[key] for key in told} == {key: inline[cell_id][key] for key in told}
    same = ("python", "torch", "distill-bench", "threads")
    environments = [record["run"]["environment"] for record in [*through.values(), *inline.values()]]
    assert len({tuple(found[key] for key in same) for found in environments}) == 1


def test_a_second_run_submits_nothing(finished: tuple[Place, Done, Done]) -> None:
    place, _, _ = finished
    before = sorted((place.home / STORE / "slurm").iterdir())
    again = place.bench(place.arguments("--labels", "stored:topk2"))
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert sorted((place.home / STORE / "slurm").iterdir()) == before


def test_what_fails_is_told_and_holds_up_only_what_stands_on_it(place: Place) -> None:
    broken = place.home / "colours" / "val" / "colour 1" / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"\0" * len(whole))  # of the same size, so that the plan doesn't notice
    arguments = place.arguments("--seeds", "0", "--students", f"{SMALL},timm:no_such_model", methods="random_real")
    done = place.bench(arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not a readable image" in done.stdout
    assert "1 failed, 2 waiting for them" in done.stdout
    _await(lambda: place.queue() == [])
    told = [log.read_text() for log in (place.home / STORE / "slurm").glob("*.err")]
    assert sum("not a readable image" in text for text in told) == 1  # blocked ones end at once

    broken.write_bytes(whole)
    # as if in another job, whose variables would make three tasks of each of ours
    again = place.bench(arguments, SLURM_JOB_ID="1", SLURM_NTASKS="3", SLURM_STEP_ID="0")
    assert again.returncode == 1, again.stdout + again.stderr
    assert "not a readable image" not in again.stdout, "the failure of old is no answer"
    assert "no_such_model" in again.stdout
    assert "1 failed, 0 waiting for them" in again.stdout
    assert len(place.records()) == 2
    assert "--array=0-1" in place.scripts()[-1], "the student that was trained stood beside the one that wasn't"
    assert not list((place.home / STORE / "slurm").glob("*_1_log.err")), "tasks of a second rank"


def test_refused_jobs_leave_nothing_submitted(place: Place) -> None:
    done = place.bench(place.arguments("--seeds", "0,1,2,3,4,5"))  # the cluster's MaxArraySize is 5
    assert done.returncode == 2
    assert "Slurm refused the prepare jobs (6), and nothing is left submitted" in done.stderr
    assert "Invalid job array specification" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    _await(lambda: place.queue() == [])
    assert place.records() == {}


def test_stopped_and_started_again_it_waits_for_what_runs_and_notices_what_dies(
    finished: tuple[Place, Done, Done],
) -> None:
    place, _, _ = finished
    shutil.copytree(place.home / STORE, place.home / "stopped")
    arguments = place.arguments("--protocol", _longer_protocol(place, 500), store="stopped")
    first = place.start(*command([*arguments, "--seeds", "0"]))
    worker = _await(lambda: _heartbeat(place, "stopped", seed=0))["pid"]
    os.kill(worker, signal.SIGSTOP)
    first.send_signal(signal.SIGINT)
    stopped = _finish(first)
    assert stopped.returncode == 130
    assert "the same command" in stopped.stderr
    assert [line.split()[1] for line in place.queue()] == ["RUNNING"]

    started_again = datetime.now(UTC)
    impatient = "import sys; from bench.harness.launch import slurm; slurm._GRACE = slurm._ASK_EVERY = 1.0; "
    impatient += "from bench.cli import main; sys.exit(main())"
    second = place.start(sys.executable, "-c", impatient, *arguments, "--seeds", "0,1")
    os.kill(_await(lambda: _heartbeat(place, "stopped", seed=1))["pid"], signal.SIGKILL)
    os.kill(worker, signal.SIGCONT)
    done = _finish(second)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 0 waiting for them" in done.stdout
    assert "ended without a record; its log is " in done.stdout
    log = Path(done.stdout.partition("its log is ")[2].partition("; see bench show")[0])
    assert "Killed" in log.read_text()
    (made,) = place.records("stopped").keys() - place.records().keys()
    assert datetime.fromisoformat(place.records("stopped")[made]["run"]["started"]) < started_again
    _await(lambda: place.queue() == [])


@pytest.mark.parametrize("there", [True, False])
def test_auto_takes_slurm_where_a_cluster_answers(
    there: bool, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = []
    monkeypatch.chdir(place.home)
    monkeypatch.setenv("SLURM_CONF", place.conf)
    if not there:
        monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(slurm, "run", lambda *_: taken.append("slurm"))
    monkeypatch.setattr(local, "run", lambda *_: taken.append("local"))
    assert main(place.arguments(cluster="auto")) == 0
    assert taken == ["slurm" if there else "local"]
    if not there:
        assert main(place.arguments(cluster="slurm")) == 2
        assert "no Slurm answers here" in capsys.readouterr().err
