"""Check the environment on this machine and on the cluster; :mod:`bench.slurm.node_check` checks the nodes.

Every check says what it found, and what to do if that is not enough. None of them raises.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import pwd
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path
from typing import NamedTuple

from bench.errors import UserError
from bench.execution.environment import code
from bench.files import write_atomically
from bench.slurm import queue
from bench.slurm.profile import Profile
from bench.slurm.submit import accelerator_warning
from bench.store.artifacts import Store
from bench.store.locks import lease

_COMMANDS = ("sbatch", "squeue", "scancel", "sinfo", "srun", "scontrol")
_IMPORT_TORCH = """
import json, torch
found = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps([torch.__version__, found, torch.cuda.get_device_name(0) if found else ""]))
"""
_TORCH_SECONDS = 300.0  # an import over a network file system takes minutes at worst
_TRY_LOCK = """
import sys
from pathlib import Path
from bench.store.locks import lease
with lease(Path(sys.argv[1]), sys.argv[2]) as ours:
    print(ours)
"""
_LEAST_SHARED = 1.0  # GiB; a container has 64 MiB by default
_LOCK_ADVICE = "cells would be computed twice: put the store on a file system with flock (Lustre: mount -o flock)"


class Check(NamedTuple):
    """One finding."""

    name: str
    ok: bool | None  # None: neither good nor bad, or unknown
    found: str
    advice: str = ""


def either(name: str, ok: bool, good: str, bad: str, advice: str) -> Check:
    """Return one of two findings."""
    return Check(name, True, good) if ok else Check(name, False, bad, advice)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the code that runs here."""
    return {"python": platform.python_version(), **code()}


def check_machine(path: Path) -> Iterator[Check]:
    """Check Python and its packages, the store at ``path``, its locks, and torch."""
    yield _packages()
    try:
        store = Store(path)
        write_atomically(store.root / ".doctor", "well")
        (store.root / ".doctor").unlink()
    except (UserError, OSError) as error:
        yield Check("store", False, f"{path}: {error}", "choose a folder of yours with --store")
    else:
        free = shutil.disk_usage(store.root).free / 2**30
        yield Check("store", True, f"{store.root} is writable; {free:.0f} GiB are free")
        yield _locks(store)
    shared = Path("/dev/shm")
    if shared.is_dir():  # else a system without it
        size = shutil.disk_usage(shared).total / 2**30
        yield either(
            "shared memory", size >= _LEAST_SHARED, f"{shared} has {size:.1f} GiB", f"{shared} has {size:.2f} GiB",
            "NCCL needs it where accelerators share a cell: docker run --shm-size=8g",
        )  # fmt: skip
    yield check_torch("install it as its site says for this machine")


def check_torch(advice: str, needs_gpu: bool = False) -> Check:
    """Import torch in a process of its own, which may crash, and count the accelerators."""
    command = [sys.executable, "-c", _IMPORT_TORCH]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TORCH_SECONDS, check=False)
        version, count, name = json.loads(done.stdout.strip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return Check("torch", False, f"importing it took more than {_TORCH_SECONDS:.0f} s", advice)
    except ValueError:
        lines = done.stderr.strip().splitlines()
        return Check("torch", False, lines[-1] if lines else f"exit code {done.returncode}", advice)
    found = f"{version}, {count} × {name}" if count else f"{version}, no accelerator"
    missing = f"{version} finds no accelerator, though gres requests one"
    driver = "is it a build for this driver? nvidia-smi on the node shows the version"
    return either("torch", bool(count) or not needs_gpu, found, missing, driver)


def _packages() -> Check:
    here = ", ".join(f"{name} {text}" for name, text in versions().items())
    try:
        needed = [text for text in requires("distill-bench") or [] if "extra ==" not in text]
    except PackageNotFoundError:
        needed = ["distill-bench"]
    names = [re.split(r"[^\w.-]", text)[0] for text in needed]
    if absent := [name for name in names if not list(distributions(name=name))]:
        return Check("python", False, f"{here}; not installed: {', '.join(absent)}", "pip install -e . in its folder")
    return Check("python", True, here)


def _locks(store: Store) -> Check:
    """Let two processes of this machine try the same lock."""
    name = f"doctor-{secrets.token_hex(3)}"
    command = [sys.executable, "-c", _TRY_LOCK, str(store.root), name]
    try:
        with lease(store.root, name) as ours:
            held = subprocess.run(command, capture_output=True, check=False).stdout
        free = subprocess.run(command, capture_output=True, check=False).stdout
    except (UserError, OSError) as error:
        return Check("locks", False, str(error), _LOCK_ADVICE)
    finally:
        (store.root / "leases" / f"{name}.lock").unlink(missing_ok=True)
    good, bad = "a locked file is locked for other processes here", "two processes here can hold the same lock"
    return either("locks", ours and held == b"False\n" and free == b"True\n", good, bad, _LOCK_ADVICE)


def check_cluster(profile: Profile) -> Iterator[Check]:
    """Check Slurm's commands, whether they answer, and whether the names in the profile exist."""
    absent = [name for name in _COMMANDS if shutil.which(name) is None]
    if absent:
        advice = "load Slurm's module, or log in to a machine that submits jobs" if profile.name else ""
        yield Check("commands", False if profile.name else None, f"not found: {', '.join(absent)}", advice)
        return
    yield Check("commands", True, ", ".join(_COMMANDS))
    partitions = list(queue.partitions())
    if not partitions:
        conf = os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf")
        yield Check("cluster", False, "sinfo gets no answer", f"is the controller up, and {conf} the right file?")
        return
    yield Check("cluster", True, f"answers; partitions {', '.join(partitions)} (*: the default)")
    yield from _partitions(profile, partitions)
    yield from _associations(profile)
    if (warning := accelerator_warning(profile.classes().values(), "auto")) is not None:
        found, _, advice = warning.rpartition("; ")
        yield Check("gpus", None, found, advice)
    limit = f"; the profile limits them to {profile.max_array}" if profile.max_array else ""
    most = queue.max_array_tasks()
    yield Check("arrays", True, f"up to {most} tasks (MaxArraySize){limit}; longer ones are submitted in parts")
    if queue.run_command("sacct", "--noheader", "--allocations", "--format=JobID") is None:
        advice = "runs work; the reason why a task was killed (memory, time) will not be known"
        yield Check("accounting", None, "sacct gets no answer", advice)
    else:
        yield Check("accounting", True, "sacct answers")


def _partitions(profile: Profile, known: list[str]) -> Iterator[Check]:
    names = [name.rstrip("*") for name in known]
    wanted = {part for one in profile.classes().values() for part in (one.partition or "").split(",")}
    if chosen := os.environ.get("SBATCH_PARTITION"):
        wanted = set(chosen.split(","))
    if "" in wanted and not any(name.endswith("*") for name in known):
        advice = 'partition = "…" in the profile, or SBATCH_PARTITION'
        yield Check("partition", False, "the cluster has no default one, and none is requested", advice)
    for name in sorted(wanted - {""}):
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4) or names
        yield either("partition", name in names, name, f"there is no {name} here", f"did you mean {nearest[0]}?")


def _associations(profile: Profile) -> Iterator[Check]:
    """Check accounts and QOS, which only accounting knows."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container that doesn't know its users
        user = str(os.getuid())
    output = queue.run_command(
        "sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=Account,QOS"
    )
    rows = [line.split("|") for line in (output or "").splitlines()]
    config = queue.run_command("scontrol", "show", "config") or ""
    enforced = re.search(r"^AccountingStorageEnforce\s*=\s*(?!none)\S", config, re.MULTILINE) is not None
    open_to_user = {
        "account": {account for account, _ in rows},
        "qos": {name for _, names in rows for name in names.split(",")},
    }
    for kind, names in open_to_user.items():
        for name in sorted({value for one in profile.classes().values() if (value := getattr(one, kind))}):
            if not rows:
                yield Check(kind, None, f"{name}: unknown, since sacctmgr has no entry for {user}")
            elif name in names:
                yield Check(kind, True, name)
            else:
                known = ", ".join(sorted(names - {""})) or "none"
                found = f"{name} is not open to {user}" + ("" if enforced else ", which this cluster doesn't enforce")
                yield Check(kind, False if enforced else None, found, f"{user} may use: {known}")
