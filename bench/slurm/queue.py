"""The questions put to Slurm: what is queued, how did it end, how long may an array be; and cancelling.

squeue knows what is pending or running, sacct how a job ended; clusters without accounting have no sacct. Nothing
here raises because Slurm doesn't answer: its controller may be restarting, and we ask again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

PREFIX = "bench-"  # job names start with it
_TIMEOUT = 60.0  # seconds that a busy controller may take
_AT_ONCE = 10.0  # seconds after which it is taken for absent, where a run could do without it
_ASK_EVERY = 15.0  # seconds between two questions to Slurm, whose controller serves everybody
_IDS_AT_ONCE = 500  # job ids on one command line
_THEIR_DEFAULTS = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_")  # variables that change what these commands do
_FALLBACK_MAX_ARRAY = 1001  # Slurm's default MaxArraySize (slurm.conf)

# How jobs end (squeue(1), JOB STATE CODES) -> what it means for the user. What isn't here is still on its way.
ENDED = {
    "BOOT_FAIL": "the node did not boot",
    "CANCELLED": "cancelled",
    "COMPLETED": "ended",
    "DEADLINE": "its deadline passed",
    "FAILED": "its process failed",
    "NODE_FAIL": "its node was lost",
    "OUT_OF_MEMORY": "it ran out of memory; bench retry --memory GB asks for more",
    "PREEMPTED": "preempted and not queued again; bench retry submits it",
    "REVOKED": "revoked by its cluster",
    "TIMEOUT": "it ran into its time limit; bench retry --minutes N asks for more",
}
_TOLD_BY_A_STEP = ("OUT_OF_MEMORY", "NODE_FAIL", "TIMEOUT")  # where the job itself may only say that it failed
# States of a job that holds its nodes: it is at work, or about to leave.
_HOLDS_NODES = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "RESIZING")


@dataclass(frozen=True)
class Queued:
    """A job or array task that squeue lists."""

    state: str  # "PENDING", "RUNNING", …
    reason: str  # why it waits: "Resources", "Dependency", …
    node: str

    @property
    def at_work(self) -> bool:
        """Has it begun? (The others wait, also those that were preempted and wait again.)"""
        return self.state in _HOLDS_NODES


@dataclass(frozen=True)
class Ended:
    """What sacct knows of a job or array task that is over."""

    state: str  # a key of ENDED
    exit_code: str  # "1:0": exit code and signal
    node: str
    max_memory: str  # peak of its steps as sacct writes it, e.g. "1843200K"
    asked_memory: str  # e.g. "2000M"

    @property
    def why(self) -> str:
        """One line for people: state, what it means, and the memory where that was the matter."""
        known = ""
        if self.state == "OUT_OF_MEMORY" and self.max_memory:
            known = f" (used {self.max_memory} of {self.asked_memory})"
        elif self.state == "FAILED":
            known = f" (exit code {self.exit_code})"
        return f"{self.state}{known}: {ENDED[self.state]}"


class Slurm(Protocol):
    """Who answers what is queued and how jobs ended: this module, or :class:`ThrottledSlurm`."""

    def queued(self) -> Mapping[str, Queued] | None: ...
    def ended(self, jobs: Iterable[str], /) -> Mapping[str, Ended]: ...


@dataclass
class ThrottledSlurm:
    """Asks for somebody who looks every few seconds: squeue now and then, sacct once for each job that is over."""

    every: float = _ASK_EVERY
    _asked: float = float("-inf")
    _queued: dict[str, Queued] | None = None
    _ended: dict[str, Ended] = field(default_factory=dict)
    _tried: set[str] = field(default_factory=set)

    def queued(self) -> dict[str, Queued] | None:
        """As :func:`queued`; up to ``every`` seconds old."""
        if time.monotonic() - self._asked >= self.every:
            self._queued, self._asked = queued(), time.monotonic()
            self._tried.clear()
        return self._queued

    def ended(self, jobs: Iterable[str]) -> dict[str, Ended]:
        """As :func:`ended`."""
        wanted = set(jobs)
        if new := wanted - self._ended.keys() - self._tried:
            self._ended |= ended(new)
            self._tried |= new  # accounting may be late: they are asked for again with the next squeue
        return {job: self._ended[job] for job in wanted & self._ended.keys()}


def answers() -> bool:
    """Is there a Slurm cluster that answers from here?"""
    if not all(map(shutil.which, ("sbatch", "sinfo", "srun"))):
        return False
    return bool(ask("sinfo", "--noheader", timeout=_AT_ONCE))


def ask(*command: str, timeout: float = _TIMEOUT) -> str | None:
    """What a Slurm command prints; None where there is no answer."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith(_THEIR_DEFAULTS)},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def queued() -> dict[str, Queued] | None:
    """Our jobs that are pending or running, by job id (``12_3`` for a task of an array); None: no answer."""
    said = ask("squeue", "--array", "--noheader", f"--user={os.getuid()}", "--format=%i|%T|%r|%N|%j")
    if said is None:
        return None
    found = {}
    for line in said.splitlines():
        job, state, reason, node, name = line.split("|", 4)
        if name.startswith(PREFIX) and state not in ENDED:
            found[job] = Queued(state, reason, node)
    return found


def ended(jobs: Iterable[str]) -> dict[str, Ended]:
    """How jobs and array tasks ended, of those that accounting knows to be over; empty without accounting."""
    wanted = sorted(set(jobs))
    found: dict[str, Ended] = {}
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        said = ask(
            "sacct", "--noheader", "--parsable2", f"--jobs={','.join(wanted[start : start + _IDS_AT_ONCE])}",
            "--format=JobID,State,ExitCode,NodeList,MaxRSS,ReqMem",
        )  # fmt: skip
        if said is None:
            return {}
        found |= _read_accounting(said)
    return {job: found[job] for job in wanted if job in found}


def _read_accounting(said: str) -> dict[str, Ended]:
    """A job's line comes first, then those of its steps (``12_3.0``), which may know better why it failed."""
    rows: dict[str, list[list[str]]] = {}
    for line in said.splitlines():
        row = line.split("|")
        rows.setdefault(row[0].partition(".")[0], []).append(row)
    found = {}
    for job, parts in rows.items():
        states = [part[1].partition(" ")[0].rstrip("+") for part in parts]  # "CANCELLED by 1000"
        if (state := states[0]) not in ENDED:
            continue
        peak = max((part[4] for part in parts if part[4]), key=_kibibytes, default="")
        if state == "FAILED":
            state = next((better for better in _TOLD_BY_A_STEP if better in states), state)
            # without cgroups, Slurm kills what exceeds its memory but calls it failed (JobAcctGatherParams)
            killed = any(part[2].endswith(":9") for part in parts)
            if killed and _kibibytes(peak) > _kibibytes(parts[0][5]) > 0:
                state = "OUT_OF_MEMORY"
        found[job] = Ended(state, exit_code=parts[0][2], node=parts[0][3], max_memory=peak, asked_memory=parts[0][5])
    return found


def _kibibytes(text: str) -> float:
    """``1843200K`` or ``2000M``; 0 for what is no amount for a whole job (``2000Mc`` is for each CPU)."""
    found = re.fullmatch(r"([\d.]+)([KMGT]?)n?", text)
    return float(found.group(1)) * 2.0 ** {"": -10, "K": 0, "M": 10, "G": 20, "T": 30}[found.group(2)] if found else 0.0


def max_array() -> int:
    """How many tasks an array may have: its largest index stays below MaxArraySize."""
    said = ask("scontrol", "show", "config") or ""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", said, re.MULTILINE)
    return int(found.group(1)) if found else _FALLBACK_MAX_ARRAY


def cancel(jobs: Collection[str], *flags: str) -> None:
    """Cancel jobs and array tasks."""
    wanted = sorted(set(jobs))
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        ask("scancel", *flags, *wanted[start : start + _IDS_AT_ONCE])


def cancel_named(name: str) -> None:
    """Cancel all our jobs of a name."""
    ask("scancel", f"--name={name}", f"--user={os.getuid()}")
