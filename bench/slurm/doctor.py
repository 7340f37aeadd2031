"""Is everything as a run needs it: on this machine, on the cluster, and on the nodes of each resource class?

Every check says what it found, and what to do where that won't do. None of them raises.
"""

from __future__ import annotations

import difflib
import os
import platform
import pwd
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from bench.errors import UserError
from bench.execution.environment import code
from bench.slurm import queue
from bench.slurm.node_check import look_at_torch
from bench.slurm.profile import Profile, Resources
from bench.store.artifacts import Store, write_atomically
from bench.store.cell import STAGES
from bench.store.locks import lease

_COMMANDS = ("sbatch", "squeue", "scancel", "sinfo", "srun", "scontrol")
_TRY_LOCK = """
import sys
from pathlib import Path
from bench.slurm.node_check import is_held
sys.exit(7 if is_held(Path(sys.argv[1]), sys.argv[2]) else 0)
"""
_HELD = 7  # the exit code of that


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool | None  # None: neither good nor bad, or not known
    found: str
    advice: str = ""  # what to do


def this_machine(path: Path) -> Iterator[Check]:
    """Python and packages, the store at ``path``, its locks, and torch."""
    yield _packages()
    try:
        store = Store(path)
        write_atomically(store.root / ".doctor", "well")
        (store.root / ".doctor").unlink()
    except (UserError, OSError) as error:
        yield Check("store", False, f"{path}: {error}", "name a folder of yours with --store")
    else:
        free = shutil.disk_usage(store.root).free / 2**30
        yield Check("store", True, f"{store.root} can be written; {free:.0f} GiB are free")
        yield _locks(store)
    torch = look_at_torch()
    if torch.error:
        yield Check("torch", False, torch.error, "install it as its site says for this machine")
    else:
        there = f"{torch.accelerators} × {torch.name}" if torch.accelerators else "no accelerator here"
        yield Check("torch", True, f"{torch.version}, {there}")


def _packages() -> Check:
    here = ", ".join([f"python {platform.python_version()}", *(f"{name} {text}" for name, text in code().items())])
    try:
        needed = [text for text in requires("distill-bench") or [] if "extra ==" not in text]
    except PackageNotFoundError:
        return Check("python", False, f"{here}; distill-bench is not installed", "pip install -e . in its folder")
    absent = []
    for text in needed:
        name = re.split(r"[^\w.-]", text)[0]
        try:
            version(name)
        except PackageNotFoundError:
            absent.append(name)
    if absent:
        return Check("python", False, f"{here}; not installed: {', '.join(absent)}", "pip install distill-bench again")
    return Check("python", True, here)


def _locks(store: Store) -> Check:
    """Two processes of this machine, one lock."""
    name = f"doctor-{secrets.token_hex(3)}"

    def other() -> int:
        command = [sys.executable, "-c", _TRY_LOCK, str(store.root), name]
        return subprocess.run(command, capture_output=True, check=False).returncode

    try:
        with lease(store.root, name) as ours:
            held = other()
        free = other()
    except OSError as error:
        return Check("locks", False, f"files can't be locked: {error.strerror}", _LOCK_ADVICE)
    finally:
        (store.root / "leases" / f"{name}.lock").unlink(missing_ok=True)
    if ours and held == _HELD and free == 0:
        return Check("locks", True, "a locked file is locked for other processes here")
    return Check("locks", False, "two processes here can hold the same lock", _LOCK_ADVICE)


_LOCK_ADVICE = "cells would be computed twice: put the store on a file system with flock (Lustre: mount -o flock)"


def cluster(profile: Profile) -> Iterator[Check]:
    """Slurm's commands, whether they answer, and whether what the profile names is there."""
    absent = [name for name in _COMMANDS if shutil.which(name) is None]
    if absent:
        advice = "load Slurm's module, or go to a machine that submits jobs" if profile.name else ""
        yield Check("commands", False if profile.name else None, f"not found: {', '.join(absent)}", advice)
        return
    yield Check("commands", True, ", ".join(_COMMANDS))
    said = queue.ask("sinfo", "--noheader", "--format=%P")
    if not said:
        conf = os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf")
        yield Check("cluster", False, "sinfo gets no answer", f"is the controller up, and {conf} the right file?")
        return
    partitions = said.split()
    yield Check("cluster", True, f"answers; partitions {', '.join(partitions)} (*: the default)")
    yield from _partitions(profile, partitions)
    yield from _associations(profile)
    largest = queue.max_array()
    asked = f"; the profile says {profile.max_array}" if profile.max_array else ""
    yield Check("arrays", True, f"up to {largest} tasks (MaxArraySize){asked}; longer ones are submitted in parts")
    if queue.ask("sacct", "--noheader", "--allocations", "--format=JobID") is None:
        advice = "runs work; why a killed task ended (memory, time) will not be known"
        yield Check("accounting", None, "sacct gets no answer", advice)
    else:
        yield Check("accounting", True, "sacct answers")


def classes(profile: Profile) -> dict[str, Resources]:
    """What each resource class in use is asked for, in the first stage that uses it."""
    found: dict[str, Resources] = {}
    for stage in STAGES:
        found.setdefault(profile.class_of(stage), profile.resources_of(profile.class_of(stage), stage))
    for name, one in profile.resources.items():
        if one.cells:
            found.setdefault(name, profile.resources_of(name, one.cells[0].partition(":")[0]))
    return found


def _partitions(profile: Profile, there: list[str]) -> Iterator[Check]:
    names = [name.rstrip("*") for name in there]
    wanted = {part for one in classes(profile).values() for part in (one.partition or "").split(",")}
    chosen = os.environ.get("SBATCH_PARTITION")
    if chosen:
        wanted = set(chosen.split(","))
    if "" in wanted and not any(name.endswith("*") for name in there):
        advice = 'partition = "…" in the profile, or SBATCH_PARTITION'
        yield Check("partition", False, "the cluster has no default one, and none is asked for", advice)
    for name in sorted(wanted - {""}):
        if name in names:
            yield Check("partition", True, name)
        else:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4) or names[:1]
            yield Check("partition", False, f"there is no {name} here", f"did you mean {nearest[0]}?")


def _associations(profile: Profile) -> Iterator[Check]:
    """Accounts and QOS, which only accounting knows."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container that doesn't know its users
        user = str(os.getuid())
    said = queue.ask(
        "sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=Account,QOS"
    )
    rows = [line.split("|") for line in (said or "").splitlines()]
    settings = queue.ask("scontrol", "show", "config") or ""
    minded = re.search(r"^AccountingStorageEnforce\s*=\s*(?!none)\S", settings, re.MULTILINE) is not None
    there = {
        "account": {account for account, _ in rows},
        "qos": {name for _, names in rows for name in names.split(",")},
    }
    for kind, names in there.items():
        for name in sorted({value for one in classes(profile).values() if (value := getattr(one, kind))}):
            if not rows:
                yield Check(kind, None, f"{name}: sacctmgr knows nothing of {user}, so it may or may not do")
            elif name in names:
                yield Check(kind, True, name)
            else:
                known = ", ".join(sorted(names - {""})) or "none"
                allowed = "" if minded else ", which this cluster doesn't mind"
                yield Check(
                    kind,
                    False if minded else None,
                    f"{name} is not open to {user}{allowed}",
                    f"{user} may use: {known}",
                )
