"""The cluster of the tests does what the tests on it rely on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm import cluster
from tests.slurm.conftest import Cluster, short_folder

# What srun runs gets the signals that a task of submitit gets. It sleeps in bits since a shell's trap waits for them.
_UNTIL = """srun bash -c 'trap "echo signalled" USR2
echo try ${SLURM_RESTART_COUNT:-0} on $SLURMD_NODENAME
while ! [ -e "$0" ]; do sleep 0.2; done
echo ended'"""
_FILL = """srun bash -c 'filled=$(head -c %dM /dev/zero | tr "\\0" x); sleep %d'"""


def _submit(on: Cluster, script: str, *options: str) -> str:
    return on.ask("sbatch", "--parsable", "--open-mode=append", "--output=%j.log", *options, f"--wrap={script}")


def _log(on: Cluster, job: str) -> list[str]:
    path = on.home / f"{job}.log"
    return path.read_text().splitlines() if path.exists() else []


def _node_of_try(on: Cluster, job: str, number: int) -> str:
    """The node on which a job is at a try of this number, waited for."""
    start = f"try {number} on "
    _await(lambda: any(line.startswith(start) for line in _log(on, job)))
    return next(line.removeprefix(start) for line in _log(on, job) if line.startswith(start))


def _accounted(on: Cluster, job: str) -> list[str]:
    """The states that accounting has of a job's tries, in their order."""
    return on.ask("sacct", "--noheader", "--parsable2", "-X", "--duplicates", "--format=State", "--jobs", job).split(
        "\n"
    )


def _await(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline, "it didn't come"
        time.sleep(0.2)


@pytest.mark.parametrize(("script", "state"), [("true", "COMPLETED"), ("exit 3", "FAILED")])
def test_accounting_knows_how_a_job_ended(slurm_cluster: Cluster, script: str, state: str) -> None:
    job = _submit(slurm_cluster, script)
    _await(lambda: _accounted(slurm_cluster, job) == [state])


def test_a_job_above_its_memory_is_killed_and_says_so(slurm_cluster: Cluster) -> None:
    hungry = _submit(slurm_cluster, _FILL % (300, 60), "--mem=100")
    modest = _submit(slurm_cluster, _FILL % (30, 2), "--mem=2000")
    _await(lambda: _accounted(slurm_cluster, hungry) == ["FAILED"])
    assert "exceeded memory limit" in "\n".join(_log(slurm_cluster, hungry))
    told = slurm_cluster.ask("sacct", "-nP", "--units=M", "--format=State,ExitCode,MaxRSS", "--jobs", f"{hungry}.0")
    state, code, most = told.split("|")
    assert (state, code) == ("CANCELLED by 0", "0:9"), "OUT_OF_MEMORY is said of what a cgroup kills alone"
    assert float(most.removesuffix("M")) > 100
    _await(lambda: _accounted(slurm_cluster, modest) == ["COMPLETED"])


def test_jobs_survive_a_new_controller_a_lost_node_and_preemption(slurm_cluster: Cluster, tmp_path: Path) -> None:
    end = tmp_path / "end"
    unlucky = _submit(slurm_cluster, f"{_UNTIL} {end}")
    cut = _node_of_try(slurm_cluster, unlucky, 0)
    lowly = _submit(slurm_cluster, f"{_UNTIL} {end}", f"--exclude={cut}", "--exclusive", "--signal=USR2@5")
    wanted = _node_of_try(slurm_cluster, lowly, 0)

    slurm_cluster.restart_controller()
    states = slurm_cluster.ask("squeue", "--noheader", "--format=%T", f"--jobs={unlucky},{lowly}").split()
    assert states == ["RUNNING", "RUNNING"]

    slurm_cluster.kill_node(cut)
    urgent = _submit(slurm_cluster, "true", "--partition=urgent", "--exclusive", f"--nodelist={wanted}")
    _node_of_try(slurm_cluster, lowly, 1)
    assert _node_of_try(slurm_cluster, unlucky, 1) != cut
    before, _, after = "\n".join(_log(slurm_cluster, lowly)).partition("try 1 on")
    assert "signalled" in before
    assert "signalled" not in after

    end.touch()
    _await(lambda: _accounted(slurm_cluster, unlucky) == ["NODE_FAIL", "COMPLETED"])
    _await(lambda: _accounted(slurm_cluster, lowly) == ["PREEMPTED", "COMPLETED"])
    assert _accounted(slurm_cluster, urgent) == ["COMPLETED"]
    slurm_cluster.start_node(cut)
    back = _submit(slurm_cluster, "true", f"--nodelist={cut}")
    _await(lambda: _accounted(slurm_cluster, back) == ["COMPLETED"])


@pytest.fixture
def second() -> Iterator[Cluster]:
    with short_folder() as home:
        yield Cluster(home)


def test_a_second_cluster_stands_beside_the_first_and_leaves_nothing(slurm_cluster: Cluster, second: Cluster) -> None:
    cluster.start(second.home, max_array_size=2)
    before = _processes(second)
    cluster.start(second.home)
    assert _processes(second) == before, "what runs was started again"
    limits = [
        each.ask("scontrol", "show", "config").count("MaxArraySize            = 2\n")
        for each in (slurm_cluster, second)
    ]
    assert limits == [0, 1]
    jobs = [_submit(second, f"{_UNTIL} /never", f"--nodelist={node}") for node in cluster.NODES]
    for job, node in zip(jobs, cluster.NODES, strict=True):
        assert _node_of_try(second, job, 0) == node
    second.kill_node("n1")
    second.kill_node("n2", keep_jobs=True)
    cluster.stop(second.home)
    assert _processes(second) == set()
    cluster.stop(second.home)
    assert slurm_cluster.ask("sinfo", "--noheader", "--format=%D %T") == "3 idle"


def _processes(of: Cluster) -> set[bytes]:
    """What runs with this cluster's SLURM_CONF, and no zombies, whose environment is empty."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_CONF={of.conf}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.add(path.name.encode() + b" " + (path / "cmdline").read_bytes())
        except OSError:
            continue
    return found
