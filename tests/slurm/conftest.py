"""A Slurm cluster of the tests' own, for as long as they run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.slurm import cluster


@dataclass(frozen=True)
class Cluster:
    """A running cluster of the nodes n1, n2 and n3, and the faults that it can be given."""

    home: Path

    @property
    def conf(self) -> str:
        """What SLURM_CONF must be for Slurm's commands to ask this cluster."""
        return str(self.home / "slurm.conf")

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints; raises CalledProcessError where it fails, its stderr is shown."""
        env = cluster.environment(Path(self.conf))
        done = subprocess.run(
            command, cwd=self.home, env=env, stdout=subprocess.PIPE, text=True, timeout=60, check=True
        )
        return done.stdout.strip()

    def kill_node(self, node: str, keep_jobs: bool = False) -> None:
        """Cut a node's power; with ``keep_jobs`` its network alone, and what it computes goes on."""
        cluster.kill_node(self.home, node, keep_jobs)

    def start_node(self, node: str) -> None:
        """Start a node that was killed, and wait until it takes jobs."""
        cluster.start_node(self.home, node)

    def restart_controller(self) -> None:
        """End slurmctld and start it again; its jobs run on."""
        cluster.restart_controller(self.home)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder with a short path: sockets lie in it, and pytest's own folders may be too deep for that."""
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def _running_cluster() -> Iterator[Cluster]:
    if (reason := cluster.missing()) is not None:
        said = f"no Slurm can be started here: {reason}"
        if os.environ.get("BENCH_REQUIRE_SLURM") == "1":
            pytest.fail(said)
        pytest.skip(said)
    with short_folder() as home:
        cluster.start(home)
        yield Cluster(home)
        cluster.stop(home)


@pytest.fixture
def slurm_cluster(_running_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster that the tests of one process share; nodes that a test killed are back for the next one."""
    yield _running_cluster
    for node in cluster.NODES:
        _running_cluster.start_node(node)


@pytest.fixture(scope="session")
def slurm_conf(_running_cluster: Cluster) -> str:
    """The SLURM_CONF of the cluster; skips where there can't be one."""
    return _running_cluster.conf
