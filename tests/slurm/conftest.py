"""A Slurm cluster of the tests' own, for as long as they run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLUSTER = Path(__file__).with_name("cluster.py")
_MISSING = 77  # cluster.py: it can't be started here


@pytest.fixture(scope="session")
def slurm_conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The SLURM_CONF of a running cluster of three nodes; skips where there can't be one."""
    home = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([sys.executable, _CLUSTER, "start", home], capture_output=True, text=True)
    if started.returncode == _MISSING:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    yield started.stdout.strip()
    subprocess.run([sys.executable, _CLUSTER, "stop", home], check=True)
