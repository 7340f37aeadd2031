"""A real Slurm on this machine, for tests: three nodes of two CPUs, accounting, and faults to be had at will.

::

    python tests/slurm/cluster.py start DIR [--max-array-size N]   prints slurm.conf, to be exported as SLURM_CONF
    python tests/slurm/cluster.py kill-node DIR n2 [--keep-jobs]   a power cut; with --keep-jobs a broken network
    python tests/slurm/cluster.py start-node DIR n2
    python tests/slurm/cluster.py restart-controller DIR
    python tests/slurm/cluster.py stop DIR
    python tests/slurm/cluster.py check                            can one be started here?

Everything lies in DIR: configuration, key, sockets, database, state, logs, process ids; any number of clusters may run
side by side. What is so already is left as it is. Exit code 77 means that something is missing here, which standard
error names.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

NODES = ("n1", "n2", "n3")
MISSING = 77  # automake's exit code of a test that is skipped
# What is needed, and the Debian package that has it.
_PROGRAMS = {
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
_SERVERS = ("slurmctld", "slurmdbd", "mariadbd", "munged")  # in the order in which they are ended
_WAIT = 60.0  # seconds that a daemon may take to answer or to end
_LONGEST_SOCKET = 107  # bytes of a path in sockaddr_un (unix(7)), without its final zero
_PORTS = range(20000, 32768)  # free for servers: Linux gives clients those from 32768 on (ip_local_port_range, ip(7))
_UP = {"idle", "mixed", "allocated", "completing"}
# A small database whose loss would be no loss.
_DATABASE = (
    "--no-defaults",
    "--user=root",
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=4M",
    "--innodb-autoextend-increment=4",
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
)


def missing() -> str | None:
    """What stands in the way of a cluster here; None where nothing does."""
    absent = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        packages = dict.fromkeys(_PROGRAMS[name] for name in absent)
        return f"{', '.join(absent)} not found (Debian: {', '.join(packages)})"
    if os.geteuid() != 0:
        return "slurmd must be started by root"
    return None


def start(home: Path, max_array_size: int = 3) -> Path:
    """Start a cluster and wait until all nodes are up; returns the path of slurm.conf. One that runs stays as it is.

    Args:
        max_array_size: Slurm's MaxArraySize, one more than the largest index; small so that a test can go over it.

    Raises:
        TimeoutError: a daemon doesn't get there; the logs in ``home`` say why.
        ValueError: the path of ``home`` is too long for a socket.
    """
    home = home.resolve()
    conf = home / "slurm.conf"
    if all(_pid(home, name) for name in _SERVERS) and _up(conf, NODES):
        return conf
    if len(str(home / "spool-n1" / "n1_99999.4294967291")) > _LONGEST_SOCKET:  # the one of a batch script's step
        raise ValueError(f"{home}: too long a path for a socket")
    stop(home)
    for folder in ("state", "database", "temporary", *(f"spool-{name}" for name in NODES)):
        shutil.rmtree(home / folder, ignore_errors=True)
        (home / folder).mkdir(parents=True)
    _configure(home, max_array_size)
    try:
        _start_accounting(home)
        _run(home, "slurmctld")
        for name in NODES:
            _start_slurmd(home, name)
        _await(lambda: _up(conf, NODES), f"the nodes are not up; see the logs in {home}")
    except BaseException:
        stop(home)
        raise
    return conf


def stop(home: Path) -> None:
    """End all jobs and all daemons, and wait until they are gone."""
    home = home.resolve()
    _kill(_of_nodes(home, NODES))
    for name in _SERVERS:
        _end(home, name)


def kill_node(home: Path, node: str, keep_jobs: bool = False) -> None:
    """Make a node fall silent at once: all of it as in a power cut, or its slurmd alone, and its jobs go on."""
    home = home.resolve()
    if keep_jobs:
        _kill(filter(None, [_pid(home, f"slurmd-{node}")]))
    else:
        _kill(_of_nodes(home, [node]))


def start_node(home: Path, node: str) -> None:
    """Start a node that was killed and wait until jobs may run there.

    Raises:
        TimeoutError: it doesn't come back; its log in ``home`` says why.
    """
    home = home.resolve()
    if _pid(home, f"slurmd-{node}") is None:
        _start_slurmd(home, node)
    _await(lambda: _up(home / "slurm.conf", [node]), f"{node} is not up; see {home}/slurmd-{node}.log")


def restart_controller(home: Path) -> None:
    """End slurmctld, start it again and wait until it answers.

    Raises:
        TimeoutError: it doesn't; its log in ``home`` says why.
    """
    home = home.resolve()
    _end(home, "slurmctld")
    _run(home, "slurmctld")
    _await(lambda: _ask(home / "slurm.conf", "squeue") is not None, f"no answer; see {home}/slurmctld.log")


def environment(conf: Path) -> dict[str, str]:
    """The environment in which Slurm's commands ask this cluster."""
    socket_of_database = {"MYSQL_UNIX_PORT": str(conf.with_name("database.socket"))}
    return {**os.environ, "PATH": _path(), "SLURM_CONF": str(conf), **socket_of_database}


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def _configure(home: Path, max_array_size: int) -> None:
    controller, accounting, *ports = _free_ports(2 + len(NODES))
    host = socket.gethostname().partition(".")[0]
    nodes = dict(zip(NODES, map(str, ports), strict=True))
    for name in ("slurm.conf", "slurmdbd.conf"):
        path = home / name
        path.touch(mode=0o600)  # slurmdbd insists
        text = Path(__file__).with_name(name).read_text()
        path.write_text(
            text.format(
                home=home,
                host=host,
                controller=controller,
                accounting=accounting,
                max_array_size=max_array_size,
                **nodes,
            )
        )
    key = home / "munged.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(_PORTS, len(_PORTS)):
            try:
                held.enter_context(socket.create_server(("", port)))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                break
    return found


def _start_accounting(home: Path) -> None:
    """Start munged, MariaDB and slurmdbd, each of which must answer before the next one asks it."""
    files = {"socket": "munge.socket", "key-file": "munged.key", "log-file": "munged.log"}
    files |= {"pid-file": "munged.pid", "seed-file": "munged.seed"}
    # --force: it minds that folders of tests are closed to other users
    _run(home, "munged", "--force", *(f"--{flag}={home / file}" for flag, file in files.items()))
    # a folder for temporary tables of its own: MariaDB clears those of others away when it starts
    places = (f"--datadir={home}/database", f"--tmpdir={home}/temporary")
    door = home / "database.socket"
    _run(home, "mariadb-install-db", *_DATABASE, *places, "--skip-test-db", "--skip-name-resolve")
    pid = f"--pid-file={home}/mariadbd.pid"
    with (home / "mariadbd.log").open("ab") as log:
        subprocess.Popen(
            ["mariadbd", *_DATABASE, *places, pid, f"--socket={door}", "--skip-networking"],
            env=environment(home / "slurm.conf"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _await(lambda: _listens(door), f"no answer; see {home}/mariadbd.log")
    _run(home, "slurmdbd")
    port = next(line for line in (home / "slurmdbd.conf").read_text().splitlines() if line.startswith("DbdPort="))
    _await(lambda: _listens(int(port.partition("=")[2])), f"no answer; see {home}/slurmdbd.log")


def _listens(address: Path | int) -> bool:
    with socket.socket(socket.AF_INET if isinstance(address, int) else socket.AF_UNIX) as client:
        return client.connect_ex(("127.0.0.1", address) if isinstance(address, int) else str(address)) == 0


def _start_slurmd(home: Path, node: str) -> None:
    # what a node runs inherits its name, by which kill_node finds it; Slurm gives jobs the same variable
    _run(home, "slurmd", "-N", node, SLURMD_NODENAME=node)


def _run(home: Path, *command: str, **more: str) -> None:
    # jobs inherit from slurmd, so it gets no open pipe of ours; what it has to say is in its log
    with (home / f"{command[0]}.out").open("ab") as out:
        changed = environment(home / "slurm.conf") | more
        subprocess.run(command, check=True, env=changed, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _ask(conf: Path, *command: str) -> str | None:
    """What a Slurm command prints; None where there is no answer."""
    try:
        done = subprocess.run(command, env=environment(conf), capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _up(conf: Path, nodes: Iterable[str]) -> bool:
    """Do nodes run and take jobs?"""
    if not all(_pid(conf.parent, f"slurmd-{name}") for name in nodes):
        return False
    told = _ask(conf, "sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T") or ""
    states = dict(line.split() for line in told.splitlines())
    return all(states.get(name) in _UP for name in nodes)


def _end(home: Path, name: str) -> None:
    """End a daemon by SIGTERM, upon which it saves its state; a deaf one by force."""
    if (pid := _pid(home, name)) is not None:
        os.kill(pid, signal.SIGTERM)
        try:
            _await(lambda: not _alive(pid), name)
        except TimeoutError:
            _kill([pid])


def _kill(pids: Iterable[int]) -> None:
    """End processes by SIGKILL and wait until they are gone."""
    killed = list(pids)
    for pid in killed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    _await(lambda: not any(map(_alive, killed)), f"processes {killed} don't end")


def _pid(home: Path, name: str) -> int | None:
    """The process that a pid file names, if it is a daemon of ours: numbers are used again."""
    try:
        pid = int((home / f"{name}.pid").read_text())
        program = (Path("/proc") / str(pid) / "comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return pid if program == name.partition("-")[0] and _alive(pid) else None


def _of_nodes(home: Path, nodes: Iterable[str]) -> Iterator[int]:
    """The processes of nodes: slurmd, what it started for jobs, and the jobs' own."""
    marks = {f"SLURMD_NODENAME={name}".encode() for name in nodes}
    conf = f"SLURM_CONF={home}/slurm.conf".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = set(path.read_bytes().split(b"\0"))
        except OSError:
            continue
        if conf in variables and not marks.isdisjoint(variables):
            yield int(path.parent.name)


def _alive(pid: int) -> bool:
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # where nobody collects orphans, an ended daemon stays in the list


def _await(until: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _WAIT
    while not until():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {_WAIT:.0f} s: {otherwise}")
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description="A real Slurm on this machine, for tests.")
    actions = parser.add_subparsers(dest="action", required=True)
    for name in ("start", "stop", "kill-node", "start-node", "restart-controller"):
        action = actions.add_parser(name)
        action.add_argument("home", type=Path, metavar="DIR")
        if name == "start":
            action.add_argument("--max-array-size", type=int, default=3)
        if name in ("kill-node", "start-node"):
            action.add_argument("node", choices=NODES)
        if name == "kill-node":
            action.add_argument("--keep-jobs", action="store_true")
    actions.add_parser("check")
    chosen = vars(parser.parse_args())
    if (reason := missing()) is not None:
        sys.stderr.write(f"no Slurm can be started here: {reason}\n")
        return MISSING
    does: dict[str, Callable[..., Path | None]] = {
        "check": lambda: None,  # which has been done by now
        "start": start,
        "stop": stop,
        "kill-node": kill_node,
        "start-node": start_node,
        "restart-controller": restart_controller,
    }
    answer = does[chosen.pop("action")](**chosen)
    if answer is not None:
        sys.stdout.write(f"{answer}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
