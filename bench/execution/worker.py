"""Runs one cell: the same function on this machine, in a pool process and in a Slurm task.

It takes the lease, looks at the parents, computes into a draft, and commits. A cell that failed leaves a record
with its traceback, or with the one line of an error that the user can put right; other cells go on. Where several
processes share a cell (:mod:`bench.kit.distributed`), all of them call this: the first decides, all compute, the
first commits. Where a Slurm task helps with a cell that another computes, it makes blocks of it until none is left:
it neither holds the lease nor writes anything else, and what it has made outlives the other's end.
"""

from __future__ import annotations

import errno
import random
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from bench.api import Progress
from bench.api.stored.codec import LabelCodec
from bench.errors import Unusable, UserError
from bench.execution import stages
from bench.execution.datasets import check_leakage, check_same_data, check_untouched, load_data
from bench.execution.environment import Options, choose_kernels, code, device_for, environment, keep_memory
from bench.execution.heartbeat import Heartbeat, log
from bench.execution.provenance import plugins
from bench.execution.scheduling import along, finished
from bench.kit import checkpoint, distributed, peak_memory
from bench.kit.overlap import Leakage, repeated, too_many
from bench.kit.running.blocks import Helped
from bench.kit.validation import Diverged, InvalidResult
from bench.planning.grid import Grid
from bench.store.artifacts import Damaged, Store
from bench.store.cell import Cell
from bench.store.locks import lease, lock
from bench.store.record import Record, RunFacts

Outcome = Literal["done", "already", "busy", "blocked", "failed", "helped"]


def run_cell(grid: Grid, cell: Cell, options: Options, helps: float = 0.0) -> Outcome:
    """Compute a cell unless it is done or somebody else is at it.

    Args:
        grid: of the cell, and of others whose labels may be made along with it.
        helps: begin at this share of its blocks, and leave the cell to another process; 0: compute it.

    Raises:
        UserError: the data, the store or the device can't be used, which concerns every cell; nothing is lost.
        Stopped: a stop was requested and the work is saved.
    """
    choose_kernels(options.portable)
    keep_memory()
    store = Store(options.store)
    main = distributed.is_main() and not helps
    with lease(store.root, cell.id) if main else nullcontext(bool(helps)) as ours:
        outcome = distributed.broadcast_object(_outcome_before(store, cell) if ours else "busy")
        if outcome is not None:
            return outcome
        with along(store, grid, cell) as others:
            return _compute(store, grid, cell, options, helps, others)


def _outcome_before(store: Store, cell: Cell) -> Outcome | None:
    """Say why there is nothing to compute; None: there is."""
    try:
        if finished(store, cell):
            return "already"
    except Damaged:
        store.discard(cell.id)
    try:
        for parent in cell.parents.values():
            store.verify(_made(store, parent))
    except Damaged:
        return "blocked"
    return None


def _made(store: Store, cell_id: str) -> Record:
    record = store.record(cell_id)
    if record is None:
        raise Damaged(f"{cell_id} is not there")
    return record


def _compute(
    store: Store, grid: Grid, cell: Cell, options: Options, helps: float, others: dict[Path, LabelCodec]
) -> Outcome:
    main, started, clock = distributed.is_main() and not helps, datetime.now(UTC), time.monotonic()
    device = device_for(options.device)
    _seed(cell, options.threads)
    peak_memory.reset(device)  # a process may compute several cells, and each has a peak of its own
    log.info("%s  %s", cell.id, "is helped with" if helps else "begins")

    def facts() -> RunFacts:
        on_device = peak_memory.accelerator(device)
        return RunFacts(
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 3),
            peak_memory=peak_memory.host() if on_device is None else on_device,
            environment=_environment(device, options),
        )

    try:
        parents = {role: _made(store, parent) for role, parent in cell.parents.items()}
        with _draft(store, cell, main) as draft, _heartbeat(store, cell, main) as progress:
            folders = {role: (record, store.folder(record.id)) for role, record in parents.items()}
            real = load_data(grid.dataset, options.data_root, options.contents)
            copies = check_leakage(store, real, options.allow_overlap)
            check_same_data(parents.values(), real)
            task = stages.StageTask(
                grid.dataset, cell, folders, draft, store.work(cell.id), real, device, progress,
                claim=partial(_claim, store, cell, helps), helps=helps, along=others,
            )  # fmt: skip
            try:
                made = stages.STAGES[cell.stage](task)
            finally:
                checkpoint.flush()  # the work folder is about to go, or to another process
                check_untouched(real, cell.by)
            overlap = _overlap(made, parents, copies, options.allow_overlap)
            if main:
                record = Record(
                    id=cell.id,
                    cell=cell,
                    state="done",
                    inputs={parent.id: parent.content for parent in parents.values()},
                    result=made.result,
                    files=store.facts(draft),
                    public=made.public,
                    plugins=plugins(cell),
                    data_digest=real.digest,
                    overlap=overlap,
                    run=facts(),
                )
                store.commit(draft, record)
        log.info("%s  done in %.1f s", cell.id, time.monotonic() - clock)
        return "done"
    except Unusable:
        raise
    except Helped:
        log.info("%s  has no blocks left to help with", cell.id)
        if store.folder(cell.id).exists():  # it may have been done just before, so that its work folder is ours
            with suppress(OSError):
                store.work(cell.id).rmdir()
        return "helped"
    except (Exception, SystemExit) as error:  # a plug-in's sys.exit ends its cell, not the run
        if _is_full_disk(error):
            raise Unusable(
                f"no space left for {cell.id} in {store.root}: free some or choose another --store, then run the "
                "same command again; finished cells are kept"
            ) from None
        line = (str(error).strip() or "(no message)").splitlines()[0]
        if not isinstance(error, UserError | InvalidResult | Diverged):  # these say it all
            line = f"{type(error).__name__}: {line}"
        trace = None if isinstance(error, UserError) else traceback.format_exc()
        log.error("%s  failed: %s", cell.id, line, exc_info=error if trace else None)
        if not helps:
            store.fail(Record(id=cell.id, cell=cell, state="failed", run=facts(), error=line, traceback=trace))
        return "failed"


def _overlap(made: stages.Made, parents: Mapping[str, Record], copies: Leakage, allow: bool) -> dict[str, int]:
    """Count the test images that a student may learn from: see :class:`bench.store.record.Record`.

    Raises:
        InvalidResult: a method has too many of them among its images.
    """
    before = parents["images"].overlap if "images" in parents else {}
    found = {"training": int(copies.counts[1])} | {key: before.get(key, 0) for key in ("images", "repeated", "allowed")}
    if copies.refusal:
        found["allowed"] = 1
    if made.images is not None:
        found |= {"images": copies.among(made.images.pixels), "repeated": repeated(made.images)}
        if refusal := too_many(found["images"], len(made.images), "synthetic images are test images"):
            if not allow:
                raise InvalidResult(refusal)
            found["allowed"] = 1
    return {name: count for name, count in found.items() if count}


def _claim(store: Store, cell: Cell, helps: float, path: Path) -> AbstractContextManager[bool]:
    """Try to lock the file of a block of a cell.

    Raises:
        Helped: the cell is done, and its blocks are gone.
    """
    if helps and store.folder(cell.id).exists():
        raise Helped
    return lock(path, wait=False)


@contextmanager
def _draft(store: Store, cell: Cell, main: bool) -> Iterator[Path]:
    """Make a folder to write the artifact in; what other than the main process writes is thrown away."""
    if main:
        with store.draft(cell.id) as draft:
            yield draft
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def _heartbeat(store: Store, cell: Cell, main: bool) -> Heartbeat | nullcontext[Progress]:
    """Show progress; that of other than the main process is the same, or its."""
    return Heartbeat(store, cell.id) if main else nullcontext(lambda done, total, **metrics: None)


def _is_full_disk(error: BaseException) -> bool:
    """Recognise a full disk, also by its number in the text of an error without errno, as of safetensors."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(f"(os error {number})" in str(error) for number in full)


def team_member(options: Options) -> AbstractContextManager[None]:
    """Join the processes that share cells, as the environment says (see :mod:`bench.kit.distributed`)."""
    return distributed.joined(device_for(options.device))


def _seed(cell: Cell, threads: int) -> None:
    """Seed the global random streams, so that they give the same in every run of a cell."""
    seed = int.from_bytes(cell.id[-8:].encode(), "big") % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float32)  # a plug-in may have left another
    torch.set_grad_enabled(True)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False


def _environment(device: torch.device, options: Options) -> dict[str, str]:
    """Collect what may explain a difference: the environment, the processes, and code that has changed."""
    facts = dict(environment(str(device), options.threads))
    if distributed.size() > 1:
        facts["processes"] = str(distributed.size())
    if options.code is not None and options.code != code():  # edited between submission and start
        facts["code_drift"] = "submitted as " + " ".join(f"{name} {value}" for name, value in options.code.items())
    return facts
