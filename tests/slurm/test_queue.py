"""What is made of the answers of squeue, sacct and scontrol; the texts are those of Slurm 22.05."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.slurm import queue
from bench.slurm.queue import EndedTask, ThrottledSlurm

Asked = list[tuple[str, ...]]


def answering(monkeypatch: pytest.MonkeyPatch, **answers: str | None) -> Asked:
    """Let commands print ``answers``; returns what was asked."""
    asked: Asked = []

    def run_command(*command: str, timeout: float = 0) -> str | None:
        asked.append(command)
        return answers.get(command[0])

    monkeypatch.setattr(queue, "run_command", run_command)
    return asked


def test_what_is_queued_is_told_by_task(monkeypatch: pytest.MonkeyPatch) -> None:
    said = """\
1_2|PENDING|JobArrayTaskLimit||bench-evaluate-ab12
4|PENDING|ReqNodeNotAvail, UnavailableNodes:n1||bench-report-ab12
7|RUNNING|None|n3|another | job
1_0|RUNNING|None|n1|bench-evaluate-ab12
1_1|CANCELLED|None|n1|bench-evaluate-ab12
9|REQUEUED|None|n2|bench-teacher-ab12"""
    answering(monkeypatch, squeue=said)
    found = queue.queued()
    assert found is not None
    assert list(found) == ["1_2", "4", "1_0", "9"]
    assert found["4"].reason == "ReqNodeNotAvail, UnavailableNodes:n1"
    assert (found["1_0"].node, found["1_0"].running) == ("n1", True)
    assert not found["1_2"].running and not found["9"].running


def test_no_answer_is_not_an_empty_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, squeue=None)
    assert queue.queued() is None
    answering(monkeypatch, squeue="")
    assert queue.queued() == {}


ACCOUNTING = """\
1_0|COMPLETED|0:0|n1||2000M
1_0.batch|COMPLETED|0:0|n1|12244K|
1_0.0|COMPLETED|0:0|n1|1688K|
2|FAILED|3:0|n2||2000M
2.batch|FAILED|3:0|n2||
3|FAILED|9:0|n2||100M
3.batch|FAILED|9:0|n2|12604K|
3.0|CANCELLED by 0|0:9|n2|320592K|
4_0|TIMEOUT|0:0|n3||2000M
4_0.batch|CANCELLED|0:15|n3|12616K|
4_0.0|FAILED|0:15|n3|1700K|
4_1|RUNNING|0:0|n3||2000M
4_1.0|OUT_OF_MEMORY|0:125|n3|2000K|
4_[2-4%2]|PENDING|0:0|None assigned||2000M
5|CANCELLED by 1000|0:0|n1||2000M
5.0|FAILED|0:9|n1|100K|
6|FAILED|0:125|n1||2000M
6.0|OUT_OF_MEMORY|0:125|n1|1.5G|
7|FAILED|0:9|n1||2000M
7.0|CANCELLED by 0|0:9|n1|100K|
8|NODE_FAIL|1:0|n3||2000M
"""


@pytest.mark.parametrize(
    ("job", "state"),
    [
        ("1_0", "COMPLETED"),
        ("2", "FAILED"),
        ("3", "OUT_OF_MEMORY"),  # as told where there are no cgroups
        ("4_0", "TIMEOUT"),
        ("5", "CANCELLED"),  # not what became of its step
        ("6", "OUT_OF_MEMORY"),
        ("7", "FAILED"),  # killed, but not for its memory
        ("8", "NODE_FAIL"),
    ],
)
def test_how_a_job_ended(job: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, sacct=ACCOUNTING)
    (found,) = queue.ended([job]).values()
    assert found.state == state
    assert found.why.startswith(state)


def test_jobs_that_are_on_their_way_have_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, sacct=ACCOUNTING)
    assert queue.ended(["4_1", "4_2", "99"]) == {}
    answering(monkeypatch, sacct=None)
    assert queue.ended(["1_0"]) == {}


def test_the_reason_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, sacct=ACCOUNTING)
    found = queue.ended(["2", "3", "4_0"])
    assert found["2"].why == "FAILED (exit code 3:0): its process failed"
    assert "used 320592K of 100M" in found["3"].why and "--memory" in found["3"].why
    assert "--minutes" in found["4_0"].why


def test_thousands_of_jobs_are_asked_about_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, sacct=ACCOUNTING)
    queue.ended(f"9_{index}" for index in range(1200))
    assert len(asked) == 3
    assert max(len(" ".join(command)) for command in asked) < 10_000
    assert queue.ended([]) == {} and len(asked) == 3


def test_somebody_who_looks_often_asks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, squeue="1|RUNNING|None|n1|bench-x", sacct=ACCOUNTING)
    clock = 0.0
    monkeypatch.setattr(queue.time, "monotonic", lambda: clock)  # of the loop below
    patient = ThrottledSlurm(every=15)
    for second in range(0, 60, 2):
        clock = float(second)
        assert patient.queued() == queue.queued()
        asked.pop()
        assert set(patient.ended(["3", "99"])) == {"3"}
    commands = [command[0] for command in asked]
    assert commands.count("squeue") == 4
    about = [command[3] for command in asked if command[0] == "sacct"]
    assert about == ["--jobs=3,99", "--jobs=99", "--jobs=99", "--jobs=99"], "an end is asked after once"


def test_a_failure_is_asked_about_until_its_steps_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    early, late = "3|FAILED|0:9|n2||100M\n3.batch|FAILED|0:9|n2|100K|\n", "3.0|CANCELLED by 0|0:9|n2|320592K|\n"
    asked = answering(monkeypatch, squeue="", sacct=early)
    clock = 0.0
    monkeypatch.setattr(queue.time, "monotonic", lambda: clock)
    patient = ThrottledSlurm(every=15)
    told = []
    for second in (0, 20, 40, 60, 80):
        if clock := float(second):
            asked = answering(monkeypatch, squeue="", sacct=early + late * (second >= 40))
        patient.queued()
        told += [(end.state, end.final) for end in patient.ended(["3"]).values()]
        asks = sum(command[0] == "sacct" for command in asked)
        assert asks == (second <= 40)
    assert told == [("FAILED", False)] * 2 + [("OUT_OF_MEMORY", True)] * 3


def test_the_commands_are_ours_whatever_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = tmp_path / "squeue"
    shown.write_text('#!/bin/sh\necho "$SQUEUE_STATES/$SLURM_CONF"\n')
    shown.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SLURM_CONF", "here")
    assert queue.run_command("squeue") == "/here"
    assert queue.run_command("no-such-command") is None
    shown.write_text("#!/bin/sh\necho half an answer\nexit 1\n")
    assert queue.run_command("squeue") is None


def test_the_longest_array(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, scontrol="MaxArraySize            = 5\nMaxArrayJobs = 9\n")
    assert queue.max_array_tasks() == 5
    answering(monkeypatch)
    assert queue.max_array_tasks() == 1001


def test_cancelling_nothing_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Any = answering(monkeypatch)
    queue.cancel([])
    assert asked == []
    queue.cancel(["2_1", "1", "1"], "--state=PENDING")
    assert asked == [("scancel", "--state=PENDING", "1", "2_1")]


@pytest.mark.parametrize("end", [None, EndedTask("FAILED", "FAILED (exit code 9:0)"), EndedTask("TIMEOUT", "TIMEOUT")])
@pytest.mark.parametrize(
    ("log", "memory"),
    [
        ("slurmstepd-n1: error: StepId=1.0 exceeded memory limit (447074304 > 157286400), being killed", True),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=33.batch. Some of the step tasks have been", True),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.0 cgroup. Some of your processes may", True),
        ("torch.OutOfMemoryError: CUDA out of memory", False),
        ("slurmstepd-n1: error: *** STEP 1.0 ON n1 CANCELLED AT 2026-11-29T07:28:14 ***", False),
    ],
)
def test_a_log_says_what_accounting_does_not_know(end: EndedTask | None, log: str, memory: bool) -> None:
    found = queue.explain(end, lambda: f"first\n  {log}\n")
    if memory and (end is None or end.state == "FAILED"):
        assert found is not None and found.state == "OUT_OF_MEMORY" and found.final and "--memory" in found.why
    else:
        assert found == end
