"""A short job for each kind of node that a profile asks for, submitted as the arrays of a run are."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from bench.errors import UserError
from bench.execution.environment import code
from bench.execution.options import Options
from bench.slurm import queue
from bench.slurm.doctor import Check, classes
from bench.slurm.journal import Journal, Run
from bench.slurm.node_check import FACTS, HELLO, REPLY, UNSEEN, Facts, Probe, read_file
from bench.slurm.profile import Profile, Resources
from bench.slurm.sbatch import send
from bench.store.artifacts import Store, write_atomically
from bench.store.locks import lease

_MINUTES = 10  # time limit of the job
_AT_WORK = 420.0  # seconds in which a job that has begun must answer: the probe's own limits, and a margin
_TICK = 0.5
_MOST_SKEW = 10.0  # seconds between two clocks: heartbeats are taken for stale after sixty
_ORDINARY = ("None", "Resources", "Priority", "Dependency", "BeginTime", "JobArrayTaskLimit")  # reasons to wait


@dataclass
class Visit:
    """What came of one job."""

    job: str
    said: float | None = None  # when the node said hello, by its clock
    seen: float | None = None  # when that was seen here, by ours
    facts: Facts | None = None
    reason: str = ""  # why it still waits


def nodes(store: Store, profile: Profile, patience: float, tell: Callable[[str], None]) -> Iterator[tuple[str, Check]]:
    """Visit a node of each distinct kind; yields the names of the resource classes, and a finding.

    Args:
        patience: seconds for which each job may wait in the queue.
        tell: is told what we are waiting for, about twice a second.
    """
    kinds: dict[tuple[str | None, str | None, str | None], list[tuple[str, Resources]]] = {}
    for name, one in classes(profile).items():
        kinds.setdefault((one.partition, one.gres, one.constraint), []).append((name, one))
    for same in kinds.values():
        names, asked = ", ".join(name for name, _ in same), same[0][1]
        for check in _visit(store, profile, asked, patience, tell):
            yield names, check


def _visit(
    store: Store, profile: Profile, asked: Resources, patience: float, tell: Callable[[str], None]
) -> Iterator[Check]:
    run = Run(
        asked=datetime.now(UTC).isoformat(timespec="seconds"),
        grid="doctor",
        dataset="",
        options=Options(store=store.root),
        profile=profile.name,
        out=store.root,
    )
    here = Journal.begin(store, run)
    lock = f"doctor-{here.token}"
    well = False  # nothing is left to be looked into
    try:
        with lease(store.root, lock):
            probe = Probe(str(here.folder), str(store.root), lock)
            brief = asked.model_copy(update={"minutes": _MINUTES})
            try:
                (job,) = send(here, profile, brief, "doctor", [probe], None)
            except UserError as error:
                well = True  # no log was left to be read
                reason = str(error).rpartition("in the queue: ")[2].partition("; bench doctor")[0]
                yield Check("job", False, f"sbatch refuses it: {reason}", "does the profile ask for what is there?")
                return
            visit = _wait(here, Visit(job), patience, tell)
        found = _conclude(visit, asked, here)
        well = all(check.ok is not False for check in found)
        yield from found
    finally:
        (store.root / "leases" / f"{lock}.lock").unlink(missing_ok=True)
        if well:
            shutil.rmtree(here.folder, ignore_errors=True)


def _wait(here: Journal, visit: Visit, patience: float, tell: Callable[[str], None]) -> Visit:
    """Exchange words with the job until it has answered, is gone, or takes too long; it is cancelled then."""
    slurm = queue.ThrottledSlurm(every=2.0)
    began = at_work = gone = time.monotonic()
    try:
        while True:
            now = time.monotonic()
            if visit.seen is None and (hello := read_file(here.folder / HELLO)) is not None:
                visit.said, visit.seen = float(hello["time"]), time.time()
                write_atomically(here.folder / REPLY, json.dumps({"time": visit.seen}))
            if (facts := read_file(here.folder / FACTS)) is not None:
                try:
                    visit.facts = Facts.model_validate(facts)
                except ValidationError:  # of another version of this code; the next check says so
                    return visit
                return visit
            queued = slurm.queued()
            entry = queued.get(visit.job) if queued is not None else None
            if entry is not None and not entry.at_work:
                visit.reason, at_work, gone = entry.reason, now, now
                if now - began >= patience:
                    return visit
                tell(f"job {visit.job} waits in the queue ({entry.reason}), {now - began:.0f} s")
            else:
                visit.reason = ""
                tell(f"job {visit.job} is on its way, {now - began:.0f} s")
                if entry is not None or queued is None:
                    gone = now
                if now - gone >= UNSEEN or now - at_work >= _AT_WORK:
                    return visit
            time.sleep(_TICK)
    finally:
        if visit.facts is None:
            queue.cancel([visit.job])


def _conclude(visit: Visit, asked: Resources, here: Journal) -> list[Check]:
    if visit.facts is not None and visit.said is not None and visit.seen is not None:
        return judge(visit.facts, visit.said, visit.seen, wants_accelerator="gpu" in (asked.gres or ""))
    if visit.reason:
        ordinary = visit.reason in _ORDINARY
        advice = "--wait MINUTES waits longer" if ordinary else "squeue(1), JOB REASON CODES, says what that means"
        return [Check("job", None if ordinary else False, f"it did not start: {visit.reason}", advice)]
    end = queue.ended([visit.job]).get(visit.job)
    said = _last_line(here, visit.job)
    found = [f"job {visit.job} gave no answer", end.why if end else "", said]
    advice = f"does the node see {here.folder}? Its log is there" if not said else f"its log is in {here.folder}"
    return [Check("job", False, "; ".join(filter(None, found)), advice)]


def _last_line(here: Journal, job: str) -> str:
    try:
        lines = (here.folder / f"{job}_0_log.err").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def judge(facts: Facts, said: float, seen: float, wants_accelerator: bool) -> list[Check]:
    """What the facts of a node mean.

    Args:
        said, seen: when the node said hello by its clock, and when that was seen here by ours; the reply carried
            the second.
    """
    checks = [Check("job", True, f"ran on {facts.host}")]
    mine, theirs = {"python": platform.python_version(), **code()}, {"python": facts.python, **facts.code}
    if mine == theirs:
        checks.append(Check("code", True, f"python {facts.python} and distill-bench as here"))
    else:
        odd = [f"{key} {theirs.get(key)} there, {mine.get(key)} here" for key in {**mine, **theirs}]
        differing = [
            text for key, text in zip({**mine, **theirs}, odd, strict=True) if mine.get(key) != theirs.get(key)
        ]
        checks.append(Check("code", False, "; ".join(differing), "install it where all nodes see it, and once"))
    torch = facts.torch
    if torch.error:
        checks.append(Check("torch", False, torch.error, 'setup = ["module load …"] in the profile, or another build'))
    elif wants_accelerator and not torch.accelerators:
        advice = "is it a build for this driver? nvidia-smi on the node says which that is"
        checks.append(Check("torch", False, f"{torch.version} sees no accelerator, though gres asks for one", advice))
    else:
        there = f"{torch.accelerators} × {torch.name}" if torch.accelerators else "no accelerator"
        checks.append(Check("torch", True, f"{torch.version}, {there}"))
    if facts.heard is None:
        advice = "the store must lie on a file system that all nodes share"
        checks.append(Check("store", False, "a file written here is not seen there", advice))
    else:
        checks.append(Check("store", True, "written there and read here, written here and read there"))
    if facts.held:
        checks.append(Check("locks", True, "a lock held here is held there"))
    else:
        advice = "cells may be computed twice: Lustre needs -o flock (not localflock), NFS its lock service"
        checks.append(Check("locks", False, "a lock held here can be taken there", advice))
    if facts.scontrol:
        checks.append(Check("scontrol", True, "answers there, so a preempted task can queue itself again"))
    else:
        advice = "preempted tasks can't queue themselves again there; bench retry submits them"
        checks.append(Check("scontrol", False, "not found there, or gets no answer", advice))
    checks.append(_clocks(facts, said, seen))
    return checks


def _clocks(facts: Facts, said: float, seen: float) -> Check:
    """Hello came to us late and the reply to the node, by unknown times: the clocks differ by between ``said - seen``
    and ``heard - seen`` seconds (theirs minus ours)."""
    least, most = said - seen, (facts.heard if facts.heard is not None else float("inf")) - seen
    if least > _MOST_SKEW or most < -_MOST_SKEW:
        by = f"{least:.0f} s ahead" if least > 0 else f"{-most:.0f} s behind"
        return Check("clock", False, f"the node's is {by}", "running cells look dead or never stale: it needs NTP")
    return Check("clock", True, f"differs from ours by between {least:.1f} and {most:.1f} s")
