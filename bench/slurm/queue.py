"""Queries to Slurm: what is queued, how a job ended, how long an array may be, which partitions exist; and cancelling.

squeue knows what is pending or running, sacct how a job ended; clusters without accounting have no sacct. Nothing
here raises when Slurm doesn't answer: its controller may be restarting, and the caller asks again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

PREFIX = "bench-"  # of our job names
_TIMEOUT = 60.0  # seconds for a busy controller
_SHORT_TIMEOUT = 10.0  # seconds after which it is taken for absent, where a run could do without it
_QUERY_EVERY = 15.0  # seconds between two queries of a follower
_IDS_PER_COMMAND = 500
_USER_DEFAULTS = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_")  # variables that change what these commands do
_DEFAULT_MAX_ARRAY_SIZE = 1001  # slurm.conf(5)

# States of jobs that are over (squeue(1), JOB STATE CODES) -> what that means. In all others a job may still run.
ENDED = {
    "BOOT_FAIL": "the node did not boot",
    "CANCELLED": "cancelled",
    "COMPLETED": "ended",
    "DEADLINE": "its deadline passed",
    "FAILED": "its process failed",
    "NODE_FAIL": "its node was lost",
    "OUT_OF_MEMORY": "it ran out of memory; bench retry --memory GB requests more",
    "PREEMPTED": "preempted and not queued again; bench retry submits it",
    "REVOKED": "revoked by its cluster",
    "TIMEOUT": "it reached its time limit; bench retry --minutes N requests more",
}
# of Slurm in the log of a step that it killed, of which accounting knows no peak where the job ended before the step
_KILLED_FOR_MEMORY = re.compile("slurmstepd.*(exceeded (job )?memory limit|oom[ _-]kill)", re.IGNORECASE)
_STATES_OF_STEPS = ("OUT_OF_MEMORY", "NODE_FAIL", "TIMEOUT")  # where the job itself may only be FAILED
# States of a job that holds its nodes: it runs, or is about to leave.
_RUNNING = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "RESIZING")


@dataclass(frozen=True)
class QueuedTask:
    """A task that is pending or running."""

    state: str  # "PENDING", "RUNNING", …
    reason: str  # why it is pending: "Resources", "Dependency", …
    node: str
    running: bool  # False too for a preempted task that is pending again


@dataclass(frozen=True)
class EndedTask:
    """A task that is over."""

    state: str  # "COMPLETED", "FAILED", "OUT_OF_MEMORY", …
    why: str  # one line: the state, its meaning, and the next step
    final: bool = True  # else accounting has yet to learn of the job's steps, which may know better


@dataclass
class ThrottledSlurm:
    """Slurm's queue for frequent callers: squeue every ``every`` seconds, and sacct until a job's end is final."""

    every: float = _QUERY_EVERY
    _last: float = float("-inf")
    _queued: dict[str, QueuedTask] | None = None
    _ended: dict[str, EndedTask] = field(default_factory=dict)
    _tried: set[str] = field(default_factory=set)

    def queued(self) -> dict[str, QueuedTask] | None:
        """Return what :func:`queued` returned at most ``every`` seconds ago."""
        if time.monotonic() - self._last >= self.every:
            self._queued, self._last = queued(), time.monotonic()
            self._tried.clear()
        return self._queued

    def ended(self, jobs: Iterable[str]) -> dict[str, EndedTask]:
        """Return what :func:`ended` knows; accounting may be late, so states that aren't final are requested again."""
        wanted = set(jobs)
        if new := wanted - {job for job, end in self._ended.items() if end.final} - self._tried:
            self._ended |= ended(new)
            self._tried |= new
        return {job: self._ended[job] for job in wanted & self._ended.keys()}


def available() -> bool:
    """Check that a Slurm cluster answers from here."""
    if not all(map(shutil.which, ("sbatch", "sinfo", "srun"))):
        return False
    return bool(run_command("sinfo", "--noheader", timeout=_SHORT_TIMEOUT))


def run_command(*command: str, timeout: float = _TIMEOUT) -> str | None:
    """Run a Slurm command and return its output; None if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_USER_DEFAULTS)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def queued() -> dict[str, QueuedTask] | None:
    """Return our pending and running tasks by job id (``12_3`` for a task of an array); None if there is no answer."""
    output = run_command("squeue", "--array", "--noheader", f"--user={os.getuid()}", "--format=%i|%T|%r|%N|%j")
    if output is None:
        return None
    found = {}
    for line in output.splitlines():
        job, state, reason, node, name = line.split("|", 4)
        if name.startswith(PREFIX) and state not in ENDED:
            found[job] = QueuedTask(state, reason, node, running=state in _RUNNING)
    return found


def ended(jobs: Iterable[str]) -> dict[str, EndedTask]:
    """Return the jobs and array tasks that accounting knows to be over; empty without accounting."""
    found: dict[str, EndedTask] = {}
    for some in _chunks(jobs):
        fields = "--format=JobID,State,ExitCode,NodeList,MaxRSS,ReqMem"
        output = run_command("sacct", "--noheader", "--parsable2", f"--jobs={','.join(some)}", fields)
        if output is None:
            return {}
        known = _parse_accounting(output)
        found |= {job: known[job] for job in some if job in known}
    return found


def explain(end: EndedTask | None, log: Callable[[], str]) -> EndedTask | None:
    """Return how a task ended by its log too, which says what accounting may not know: that its memory ran out.

    The log is read only where it can say more.
    """
    if (end is None or end.state == "FAILED") and _KILLED_FOR_MEMORY.search(log()):
        return EndedTask("OUT_OF_MEMORY", f"OUT_OF_MEMORY: {ENDED['OUT_OF_MEMORY']}")
    return end


def _chunks(jobs: Iterable[str]) -> Iterator[list[str]]:
    wanted = sorted(set(jobs))
    for start in range(0, len(wanted), _IDS_PER_COMMAND):
        yield wanted[start : start + _IDS_PER_COMMAND]


def _parse_accounting(output: str) -> dict[str, EndedTask]:
    """Each job's line comes first, then those of its steps (``12_3.0``), whose states may be more precise."""
    rows: dict[str, list[list[str]]] = {}
    for line in output.splitlines():
        row = line.split("|")
        rows.setdefault(row[0].partition(".")[0], []).append(row)
    found = {}
    for job, parts in rows.items():
        _, _, exit_code, _, _, requested = parts[0]
        states = [part[1].partition(" ")[0].rstrip("+") for part in parts]  # "CANCELLED by 1000"
        if (state := states[0]) not in ENDED:
            continue
        steps = [one for part, one in zip(parts[1:], states[1:], strict=True) if re.search(r"\.\d+$", part[0])]
        final = state != "FAILED" or any(one in ENDED for one in steps)  # of the job script alone where it ran no step
        peak = max((part[4] for part in parts if part[4]), key=_kibibytes, default="")
        if state == "FAILED":
            state = next((better for better in _STATES_OF_STEPS if better in states), state)
            # without cgroups, Slurm kills what exceeds its memory but calls it FAILED (JobAcctGatherParams)
            killed = any(part[2].endswith(":9") for part in parts)
            if killed and _kibibytes(peak) > _kibibytes(requested) > 0:
                state = "OUT_OF_MEMORY"
        details = ""
        if state == "OUT_OF_MEMORY" and peak:
            details = f" (used {peak} of {requested})"
        elif state == "FAILED":
            details = f" (exit code {exit_code})"
        found[job] = EndedTask(state, f"{state}{details}: {ENDED[state]}", final)
    return found


def _kibibytes(text: str) -> float:
    """``1843200K`` or ``2000M``; 0 for what is not an amount per job (``2000Mc`` is per CPU)."""
    found = re.fullmatch(r"([\d.]+)([KMGT]?)n?", text)
    return float(found.group(1)) * 2.0 ** {"": -10, "K": 0, "M": 10, "G": 20, "T": 30}[found.group(2)] if found else 0.0


def max_array_tasks() -> int:
    """Return the largest number of tasks of an array: its largest index is below MaxArraySize."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", run_command("scontrol", "show", "config") or "", re.MULTILINE)
    return int(found.group(1)) if found else _DEFAULT_MAX_ARRAY_SIZE


def partitions() -> dict[str, list[str]]:
    """Return the GPUs (``gpu:a100:4``) of the nodes of each partition; the default partition's name ends in ``*``."""
    found: dict[str, list[str]] = {}
    for line in (run_command("sinfo", "--noheader", "--format=%P %G") or "").splitlines():
        name, *resources = line.split()
        found.setdefault(name, []).extend(one for one in resources if "gpu" in one)
    return found


def cancel(jobs: Iterable[str], *flags: str) -> None:
    """Cancel jobs and array tasks."""
    for some in _chunks(jobs):
        run_command("scancel", *flags, *some)


def cancel_named(name: str) -> None:
    """Cancel all our jobs of a name."""
    run_command("scancel", f"--name={name}", f"--user={os.getuid()}")
