"""Check one node of each kind that a profile requests, by a short job that is submitted as the arrays of a run are.

The doctor and the node exchange two files in a folder of the store, so that the store itself is tested: the doctor
writes ``doctor.json`` again and again, with its time and versions; the node writes ``node.json``, with its own time and
what it found.
"""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.execution.environment import Options
from bench.files import write_atomically
from bench.slurm import queue
from bench.slurm.arrays import Array
from bench.slurm.doctor import Check, check_torch, either, versions
from bench.slurm.journal import Journal, Run
from bench.slurm.profile import Profile, Resources
from bench.slurm.submit import call_sbatch
from bench.store.artifacts import Store
from bench.store.locks import lease

DOCTOR, NODE = "doctor.json", "node.json"
UNSEEN = 60.0  # seconds for which NFS may not show a new file (acdirmax, nfs(5))
_MINUTES = 10  # time limit of the job
_RUNNING = 420.0  # seconds in which a job that started must answer: the limits of its checks, and a margin
_TICK = 0.5
_MAX_SKEW = 10.0  # seconds between two clocks: heartbeats count as stale after sixty
_ORDINARY = ("None", "Resources", "Priority", "Dependency", "BeginTime", "JobArrayTaskLimit")  # reasons to wait


class NodeCheck:
    """Check a node from there; submitit pickles the paths.

    Args:
        folder: where the files are exchanged.
        root: the store, whose lease ``lock`` the doctor holds.
    """

    def __init__(self, folder: str, root: str, lock: str, needs_gpu: bool):
        self.folder, self.root, self.lock, self.needs_gpu = Path(folder), Path(root), lock, needs_gpu

    def __call__(self) -> None:
        deadline = time.monotonic() + UNSEEN
        while _read(self.folder / DOCTOR) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        checks = list(self.checks(_read(self.folder / DOCTOR)))
        seen = _read(self.folder / DOCTOR)  # as late as possible, for the clocks
        write_atomically(self.folder / NODE, json.dumps({"time": time.time(), "seen": seen, "checks": checks}))

    def checks(self, doctor: dict[str, Any] | None) -> Iterator[Check]:
        """Check what only the node knows, given what it sees of the doctor."""
        yield Check("job", True, f"ran on {socket.gethostname()}")
        there, here = versions(), (doctor or {}).get("versions", versions())
        differing = [
            f"{name} {there.get(name)} there, {here.get(name)} here"
            for name in {**here, **there}
            if there.get(name) != here.get(name)
        ]
        same = f"python {there['python']} and distill-bench as here"
        yield either("code", not differing, same, "; ".join(differing), "install it once, where all nodes see it")
        yield check_torch('setup = ["module load …"] in the profile, or another build', self.needs_gpu)
        yield either(
            "store", doctor is not None, "files written there are visible here, and the reverse",
            "a file written here is not visible there", "the store must be on a file system that all nodes share",
        )  # fmt: skip
        with lease(self.root, self.lock) as free:
            yield either(
                "locks", not free, "a lock held here is held there", "a lock held here can be taken there",
                "cells may be computed twice: Lustre needs -o flock (not localflock), NFS its lock service",
            )  # fmt: skip
        answered = queue.run_command("scontrol", "ping") is not None
        yield either(
            "scontrol", answered, "answers there, so a preempted task can queue itself again",
            "not found there, or gets no answer",
            "preempted tasks can't queue themselves again there; bench retry submits them",
        )  # fmt: skip


def check_nodes(
    store: Store, profile: Profile, max_wait: float, on_wait: Callable[[str], None]
) -> Iterator[tuple[str, Check]]:
    """Check a node of each distinct kind; yield the names of its resource classes with each finding.

    Args:
        max_wait: seconds for which each job may wait in the queue.
        on_wait: called with a line about the job about twice a second.
    """
    kinds: dict[tuple[str | None, str | None, str | None], list[tuple[str, Resources]]] = {}
    for name, one in profile.classes().items():
        kinds.setdefault((one.partition, one.gres, one.constraint), []).append((name, one))
    for same in kinds.values():
        for check in _check_node(store, profile, same[0][1], max_wait, on_wait):
            yield ", ".join(name for name, _ in same), check


def _check_node(
    store: Store, profile: Profile, resources: Resources, max_wait: float, on_wait: Callable[[str], None]
) -> list[Check]:
    run = Run(grid="doctor", dataset="", options=Options(store=store.root), profile=profile.name, out=store.root)
    here = Journal.create(store, run)
    lock, found = here.folder.name, []
    call = NodeCheck(str(here.folder), str(store.root), lock, needs_gpu="gpu" in (resources.gres or ""))
    try:
        with lease(store.root, lock):
            brief = Array("doctor", "", resources.model_copy(update={"minutes": _MINUTES}), packs=((),))
            try:
                (job,) = call_sbatch(here, profile, brief, [call])
            except UserError as error:
                reason = str(error).rpartition("in the queue: ")[2].partition("; bench doctor")[0]
                return [Check("job", False, f"sbatch refuses it: {reason}", "does the cluster have what is requested?")]
            found = _wait_for(job, here, max_wait, on_wait)
            return found
    finally:
        (store.root / "leases" / f"{lock}.lock").unlink(missing_ok=True)
        if all(check.ok is not False for check in found):  # else the folder is kept for its log
            shutil.rmtree(here.folder, ignore_errors=True)


def _wait_for(job: str, here: Journal, max_wait: float, on_wait: Callable[[str], None]) -> list[Check]:
    """Return what the node found once it has answered; cancel a job that takes too long."""
    slurm = queue.ThrottledSlurm(every=2.0)
    began = started = gone = time.monotonic()
    try:
        while True:
            now = time.monotonic()
            write_atomically(here.folder / DOCTOR, json.dumps({"time": time.time(), "versions": versions()}))
            if (answer := _read(here.folder / NODE)) is not None:
                job = ""
                return [*(Check(*row) for row in answer["checks"]), clock(answer, time.time())]
            queued = slurm.queued()
            entry = queued.get(job) if queued is not None else None
            if entry is not None and not entry.running:
                started = gone = now
                if now - began >= max_wait:
                    ordinary = entry.reason in _ORDINARY
                    advice = "--wait MINUTES waits longer" if ordinary else "squeue(1) explains it, JOB REASON CODES"
                    return [Check("job", None if ordinary else False, f"it did not start: {entry.reason}", advice)]
                on_wait(f"job {job} waits in the queue ({entry.reason}), {now - began:.0f} s")
            else:
                on_wait(f"job {job} has started, {now - began:.0f} s")
                if entry is not None or queued is None:
                    gone = now
                if now - gone >= UNSEEN or now - started >= _RUNNING:
                    return [_without_answer(job, here)]
            time.sleep(_TICK)
    finally:
        if job:
            queue.cancel([job])


def _without_answer(job: str, here: Journal) -> Check:
    end = queue.ended([job]).get(job)
    try:
        last = (here.folder / f"{job}_0_log.err").read_text(errors="replace").strip().rpartition("\n")[2]
    except OSError:
        last = ""
    found = [f"job {job} gave no answer", end.why if end else "", last]
    advice = f"its log is in {here.folder}" if last else f"does the node see {here.folder}? Its log is there"
    return Check("job", False, "; ".join(filter(None, found)), advice)


def clock(answer: dict[str, Any], now: float) -> Check:
    """Compare two clocks, given the node's answer and when it was seen here.

    What was written on either side was seen late on the other, by unknown times: the difference is in between.
    """
    least, most = answer["time"] - now, answer["time"] - ((answer["seen"] or {}).get("time", float("-inf")))
    good = f"differs from ours by {least:.1f} to {most:.1f} s"
    off = f"the node's is {least:.0f} s ahead" if least > 0 else f"the node's is {-most:.0f} s behind"
    well = least <= _MAX_SKEW and most >= -_MAX_SKEW
    return either("clock", well, good, off, "running cells look dead or never stale: it needs NTP")


def _read(path: Path) -> dict[str, Any] | None:
    """Read a JSON file that another machine wrote; None while it isn't visible."""
    try:
        list(path.parent.iterdir())  # makes NFS look again
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    except (OSError, ValueError):
        return None
