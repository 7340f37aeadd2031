"""A real Slurm on this machine, for tests: munged, slurmctld and three slurmd of two CPUs each, without accounting.

::

    python tests/slurm/cluster.py start DIR     prints the path of slurm.conf, to be exported as SLURM_CONF
    python tests/slurm/cluster.py stop DIR

Everything lies in DIR: configuration, key, sockets, state, logs, process ids. ``start`` on a cluster that runs does
nothing; exit code 77 means that something is missing here, which standard error names. Tried with Slurm 22.05.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

NODES = ("n1", "n2", "n3")
MISSING = 77  # automake's exit code of a test that is skipped
_WAIT = 30.0  # seconds that daemons may take to answer, and jobs to end
_LONGEST_SOCKET = 107  # bytes of a path in sockaddr_un (unix(7)), without its final zero

# Three nodes of two CPUs exist on any machine (config_overrides), cores are handed out one by one, and a job that
# is cancelled, whose SIGTERM submitit ignores, is killed after a second. MaxArraySize is small so that a test can
# go over it.
_CONFIGURATION = """\
ClusterName=bench-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
StateSaveLocation={home}/state
SlurmctldPidFile={home}/slurmctld.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdPidFile={home}/slurmd-%n.pid
SlurmdSpoolDir={home}/spool-%n
SlurmdLogFile={home}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
MaxArraySize=5
KillWait=1
"""
_NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000\n"
_PARTITION = "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"


def missing() -> str | None:
    """What stands in the way of a cluster here; None where nothing does."""
    absent = [name for name in ("munged", "slurmctld", "slurmd", "sinfo") if shutil.which(name, path=_path()) is None]
    if absent:
        return f"{', '.join(absent)} not found (Debian: slurm-wlm, munge)"
    if os.geteuid() != 0:
        return "slurmd must be started by root"
    return None


def start(home: Path) -> Path:
    """Start what does not run yet and wait until all nodes are idle; returns the path of slurm.conf.

    Raises:
        TimeoutError: they don't get there; the logs in ``home`` say why.
    """
    home = home.resolve()
    conf = home / "slurm.conf"
    if _idle(conf):
        return conf
    stop(home)
    (home / "state").mkdir(parents=True, exist_ok=True)
    for name in NODES:
        (home / f"spool-{name}").mkdir(exist_ok=True)
    if len(str(home / "munge.socket")) > _LONGEST_SOCKET:
        raise ValueError(f"{home}: too long a path for a socket")
    key = home / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    host = socket.gethostname().partition(".")[0]
    controller, *ports = _free_ports(1 + len(NODES))
    nodes = [_NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports, strict=True)]
    conf.write_text(_CONFIGURATION.format(home=home, host=host, controller=controller) + "".join(nodes) + _PARTITION)
    files = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
    # --force: it minds that folders of tests are closed to other users
    _start(conf, "munged", "--force", *(f"--{flag}={home}/munge.{suffix}" for flag, suffix in files.items()))
    _start(conf, "slurmctld")
    for name in NODES:
        _start(conf, "slurmd", "-N", name)
    if not _wait(lambda: _idle(conf)):
        stop(home)
        raise TimeoutError(f"the nodes are not idle after {_WAIT:.0f} s; see the logs in {home}")
    return conf


def stop(home: Path) -> None:
    """Cancel all jobs, end all daemons, and wait until they are gone."""
    home = home.resolve()
    conf = home / "slurm.conf"
    daemons = [pid for path in _pid_files(home) if (pid := _read_pid(path)) is not None]
    if daemons and _ask(conf, "sinfo") is not None:
        _ask(conf, "scancel", "--user=root")
        _wait(lambda: _ask(conf, "squeue", "--noheader") in ("", None))
    for how in (signal.SIGTERM, signal.SIGKILL):
        for pid in filter(_alive, daemons):
            os.kill(pid, how)
        if _wait(lambda: not any(map(_alive, daemons))):
            break
    for path in _pid_files(home):
        path.unlink(missing_ok=True)


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def _environment(conf: Path) -> dict[str, str]:
    return {**os.environ, "PATH": _path(), "SLURM_CONF": str(conf)}


def _start(conf: Path, *command: str) -> None:
    # jobs inherit from slurmd, so it gets no open pipe of ours; what it has to say is in its log
    with (conf.parent / f"{command[0]}.out").open("ab") as out:
        subprocess.run(command, check=True, env=_environment(conf), stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _ask(conf: Path, *command: str) -> str | None:
    """What a Slurm command prints; None where there is no answer."""
    try:
        done = subprocess.run(command, env=_environment(conf), capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _idle(conf: Path) -> bool:
    """Are all nodes up? (A cluster with jobs has nodes that are not idle, but up.)"""
    if not conf.is_file() or any(_read_pid(path) is None for path in _pid_files(conf.parent)):
        return False
    states = (_ask(conf, "sinfo", "--noheader", "--Node", "--format=%T") or "").split()
    return len(states) == len(NODES) and set(states) <= {"idle", "mixed", "allocated", "completing"}


def _pid_files(home: Path) -> list[Path]:
    # in the order in which they are ended
    return [*(home / f"slurmd-{name}.pid" for name in NODES), home / "slurmctld.pid", home / "munge.pid"]


def _read_pid(path: Path) -> int | None:
    """The process that a pid file names, if it runs and is a daemon of ours: numbers are used again."""
    try:
        pid = int(path.read_text())
        name = (Path("/proc") / str(pid) / "comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return pid if name.startswith(("munged", "slurmctld", "slurmd")) else None


def _alive(pid: int) -> bool:
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # where nobody collects orphans, an ended daemon stays in the list


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(found.getsockname()[1]) for found in sockets]
    finally:
        for found in sockets:
            found.close()


def _wait(until: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _WAIT
    while not until():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="A real Slurm on this machine, for tests.")
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("home", type=Path, metavar="DIR")
    chosen = parser.parse_args()
    if (reason := missing()) is not None:
        sys.stderr.write(f"no Slurm can be started here: {reason}\n")
        return MISSING
    if chosen.action == "start":
        sys.stdout.write(f"{start(chosen.home)}\n")
    else:
        stop(chosen.home)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
