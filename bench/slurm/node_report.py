"""Check one node of each kind that a profile requests, by a short job that is submitted as the arrays of a run are."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from bench.errors import UserError
from bench.execution.environment import code
from bench.execution.jobs import Options
from bench.files import write_atomically
from bench.slurm import queue
from bench.slurm.arrays import Array
from bench.slurm.doctor import Check, either
from bench.slurm.journal import Journal, Run
from bench.slurm.node_check import FACTS, HELLO, REPLY, UNSEEN, Facts, NodeCheck, read_file
from bench.slurm.profile import Profile, Resources
from bench.slurm.sbatch import call_sbatch
from bench.store.artifacts import Store
from bench.store.locks import lease

_MINUTES = 10  # time limit of the job
_RUNNING = 420.0  # seconds in which a job that started must answer: the limits of its checks, and a margin
_TICK = 0.5
_MAX_SKEW = 10.0  # seconds between two clocks: heartbeats count as stale after sixty
_ORDINARY = ("None", "Resources", "Priority", "Dependency", "BeginTime", "JobArrayTaskLimit")  # reasons to wait


@dataclass
class _Exchange:
    """The messages exchanged with one job."""

    job: str
    sent: float | None = None  # when the node wrote hello, by its clock
    seen: float | None = None  # when that became visible here, by our clock
    facts: Facts | None = None
    reason: str = ""  # why it still waits


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
        names, resources = ", ".join(name for name, _ in same), same[0][1]
        for check in _check_node(store, profile, resources, max_wait, on_wait):
            yield names, check


def _check_node(
    store: Store, profile: Profile, resources: Resources, max_wait: float, on_wait: Callable[[str], None]
) -> Iterator[Check]:
    facts = {"options": Options(store=store.root), "profile": profile.name, "out": store.root}
    here = Journal.create(store, Run(grid="doctor", dataset="", **facts))
    lock, keep = here.folder.name, True  # the folder is kept for its log
    try:
        with lease(store.root, lock):
            brief = Array("doctor", "", resources.model_copy(update={"minutes": _MINUTES}), packs=((),))
            try:
                (job,) = call_sbatch(here, profile, brief, [NodeCheck(str(here.folder), str(store.root), lock)])
            except UserError as error:
                keep = False
                reason = str(error).rpartition("in the queue: ")[2].partition("; bench doctor")[0]
                yield Check("job", False, f"sbatch refuses it: {reason}", "does the cluster have what is requested?")
                return
            exchange = _exchange(here, _Exchange(job), max_wait, on_wait)
        found = _conclude(exchange, resources, here)
        keep = any(check.ok is False for check in found)
        yield from found
    finally:
        (store.root / "leases" / f"{lock}.lock").unlink(missing_ok=True)
        if not keep:
            shutil.rmtree(here.folder, ignore_errors=True)


def _exchange(here: Journal, exchange: _Exchange, max_wait: float, on_wait: Callable[[str], None]) -> _Exchange:
    """Exchange files with the job until it has answered, is gone, or takes too long; it is cancelled then."""
    slurm = queue.ThrottledSlurm(every=2.0)
    began = started = gone = time.monotonic()
    try:
        while True:
            now = time.monotonic()
            if exchange.seen is None and (hello := read_file(here.folder / HELLO)) is not None:
                exchange.sent, exchange.seen = float(hello["time"]), time.time()
                write_atomically(here.folder / REPLY, json.dumps({"time": exchange.seen}))
            if (facts := read_file(here.folder / FACTS)) is not None:
                with suppress(ValidationError):  # of another version of this code
                    exchange.facts = Facts.model_validate(facts)
                return exchange
            queued = slurm.queued()
            entry = queued.get(exchange.job) if queued is not None else None
            exchange.reason = entry.reason if entry is not None and not entry.running else ""
            if entry is not None and not entry.running:
                started = gone = now
                if now - began >= max_wait:
                    return exchange
                on_wait(f"job {exchange.job} waits in the queue ({entry.reason}), {now - began:.0f} s")
            else:
                on_wait(f"job {exchange.job} has started, {now - began:.0f} s")
                if entry is not None or queued is None:
                    gone = now
                if now - gone >= UNSEEN or now - started >= _RUNNING:
                    return exchange
            time.sleep(_TICK)
    finally:
        if exchange.facts is None:
            queue.cancel([exchange.job])


def _conclude(exchange: _Exchange, resources: Resources, here: Journal) -> list[Check]:
    job = exchange.job
    if exchange.facts is not None and exchange.sent is not None and exchange.seen is not None:
        return interpret(exchange.facts, exchange.sent, exchange.seen, wants_gpu="gpu" in (resources.gres or ""))
    if exchange.reason:
        ordinary = exchange.reason in _ORDINARY
        advice = "--wait MINUTES waits longer" if ordinary else "squeue(1) explains it, see JOB REASON CODES"
        return [Check("job", None if ordinary else False, f"it did not start: {exchange.reason}", advice)]
    end = queue.ended([job]).get(job)
    try:
        last = (here.folder / f"{job}_0_log.err").read_text(errors="replace").strip().rpartition("\n")[2]
    except OSError:
        last = ""
    found = [f"job {job} gave no answer", end.why if end else "", last]
    advice = f"its log is in {here.folder}" if last else f"does the node see {here.folder}? Its log is there"
    return [Check("job", False, "; ".join(filter(None, found)), advice)]


def interpret(facts: Facts, sent: float, seen: float, wants_gpu: bool) -> list[Check]:
    """Turn the facts of a node into findings.

    Args:
        sent: when the node wrote hello, by its clock.
        seen: when that became visible here, by our clock.
    """
    mine, theirs = {"python": platform.python_version(), **code()}, {"python": facts.python, **facts.code}
    pairs = {key: (theirs.get(key), mine.get(key)) for key in {**mine, **theirs}}
    differing = [f"{key} {there} there, {here} here" for key, (there, here) in pairs.items() if there != here]
    torch = facts.torch
    missing = f"{torch.version} finds no accelerator, though gres requests one"
    torch_advice = "is it a build for this driver? nvidia-smi on the node shows the version"
    if torch.error:
        missing, torch_advice = torch.error, 'setup = ["module load …"] in the profile, or another build'
    torch_works = not torch.error and (torch.accelerators > 0 or not wants_gpu)
    # hello came late here and the reply late there, by unknown times: the difference of the clocks is in between
    least, most = sent - seen, (facts.replied if facts.replied is not None else float("inf")) - seen
    off = f"{least:.0f} s ahead" if least > 0 else f"{-most:.0f} s behind"
    return [
        Check("job", True, f"ran on {facts.host}"),
        either(
            "code", not differing, f"python {facts.python} and distill-bench as here", "; ".join(differing),
            "install it once, where all nodes see it",
        ),
        either("torch", torch_works, str(torch), missing, torch_advice),
        either(
            "store", facts.replied is not None, "files written there are visible here, and the reverse",
            "a file written here is not visible there", "the store must be on a file system that all nodes share",
        ),
        either(
            "locks", facts.held, "a lock held here is held there", "a lock held here can be taken there",
            "cells may be computed twice: Lustre needs -o flock (not localflock), NFS its lock service",
        ),
        either(
            "scontrol", facts.scontrol, "answers there, so a preempted task can queue itself again",
            "not found there, or gets no answer",
            "preempted tasks can't queue themselves again there; bench retry submits them",
        ),
        either(
            "clock", least <= _MAX_SKEW and most >= -_MAX_SKEW, f"differs from ours by {least:.1f} to {most:.1f} s",
            f"the node's is {off}", "running cells look dead or never stale: it needs NTP",
        ),
    ]  # fmt: skip
