"""Runs one cell: the same function on this machine, in a pool process and in a Slurm task.

It takes the lease, looks at the parents, computes into a draft, and commits. A cell that failed leaves a record
with its traceback; an error the user can put right is passed on.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import socket
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import torch

from bench.errors import UserError
from bench.harness import stages
from bench.harness.environment import environment
from bench.harness.grid import Grid
from bench.harness.identity import Cell
from bench.harness.lease import lease
from bench.harness.options import Options
from bench.harness.record import PublicFacts, Record, RunFacts
from bench.harness.schedule import finished
from bench.harness.store import Damaged, Store

Outcome = Literal["done", "already", "busy", "blocked", "failed"]
_BEAT_EVERY = 1.0  # seconds between two heartbeats


def run_cell(grid: Grid, cell: Cell, options: Options) -> Outcome:
    """Compute a cell unless it is done or somebody else is at it.

    Raises:
        UserError: something the user can put right; nothing is lost.
    """
    store = Store(options.store)
    with lease(store.root, cell.id) as ours:
        if not ours:
            return "busy"
        try:
            if finished(store, cell):
                return "already"
        except Damaged:
            store.discard(cell.id)
        try:
            parents = {role: _parent(store, parent) for role, parent in cell.parents.items()}
        except Damaged:
            return "blocked"
        return _compute(store, grid, cell, parents, options)


def _parent(store: Store, cell_id: str) -> Record:
    record = store.record(cell_id)
    if record is None:
        raise Damaged(f"{cell_id} is not there")
    store.verify(record)
    return record


def _compute(store: Store, grid: Grid, cell: Cell, parents: dict[str, Record], options: Options) -> Outcome:
    started, clock = datetime.now(UTC), time.monotonic()
    device = torch.device(_device(options.device))
    _settle(cell, options.threads)

    def facts() -> RunFacts:
        return RunFacts(
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 3),
            peak_memory=_peak_memory(device),
            environment=environment(str(device), options.threads),
        )

    try:
        with store.draft(cell.id) as draft:
            task = stages.StageTask(
                grid=grid,
                cell=cell,
                parents={role: (record, store.folder(record.id)) for role, record in parents.items()},
                draft=draft,
                work=store.work(cell.id),
                data_root=options.data_root,
                device=device,
                progress=_heart(store, cell),
            )
            made = stages.STAGES[cell.stage](task)
            record = Record(
                id=cell.id,
                cell=cell,
                state="done",
                inputs={parent.id: parent.content for parent in parents.values()},
                result=made.result,
                files=store.facts(draft),
                public=tuple(PublicFacts(name=p.name, sha256=p.sha256, bytes=p.bytes) for p in made.public),
                run=facts(),
            )
            store.commit(draft, record)
        return "done"
    except UserError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left for {cell.id} in {store.root}: free some or choose another --store, then run the "
                "same command again; finished cells are kept"
            ) from None
        return _failed(store, cell, error, facts())
    except Exception as error:
        return _failed(store, cell, error, facts())
    finally:
        store.still(cell.id)


def _failed(store: Store, cell: Cell, error: Exception, facts: RunFacts) -> Outcome:
    line = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else '(no message)'}"
    store.fail(Record(id=cell.id, cell=cell, state="failed", run=facts, error=line, traceback=traceback.format_exc()))
    return "failed"


def _device(wanted: str) -> str:
    there = torch.cuda.is_available()
    if wanted.startswith("cuda") and not there:
        raise UserError(f"--device {wanted}: torch {torch.__version__} finds no CUDA device here; use --device cpu")
    if wanted != "auto":
        return wanted
    return "cuda" if there else "cpu"


def _settle(cell: Cell, threads: int) -> None:
    """Leave nothing to chance: what draws from a global stream draws the same in every run of a cell."""
    seed = int.from_bytes(cell.id[-8:].encode(), "big") % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False


def _heart(store: Store, cell: Cell) -> Callable[..., None]:
    """A progress callback that notes a heartbeat at most once a second."""
    last = 0.0

    def beat(done: int, total: int, **metrics: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _BEAT_EVERY and done < total:
            return
        last = now
        where: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time()}
        store.beat(cell.id, {"done": done, "total": total, "metrics": metrics, **where})

    return beat


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
