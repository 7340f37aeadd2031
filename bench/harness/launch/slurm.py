"""Slurm job arrays through submitit: one array a stage, each after the one before, the same worker in every task.

A task whose parents failed exits non-zero and leaves no record; what failed has a record that says why.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.errors import UserError
from bench.harness.identity import STAGES, Cell
from bench.harness.launch import Watcher
from bench.harness.manifest import Manifest
from bench.harness.options import Options
from bench.harness.schedule import Schedule, finished
from bench.harness.store import Damaged, Store

_TICK = 2.0  # seconds between two looks at the store
_MINUTES = {"teacher": 24 * 60, "distill": 24 * 60, "label": 24 * 60, "evaluate": 8 * 60}
_GRACE = 30.0  # seconds that a record may come after its job has left the queue (network file systems)


def answers() -> bool:
    """Is there a Slurm cluster that answers from here?"""
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return False
    try:
        done = subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def run(schedule: Schedule, options: Options, manifest: Path, jobs: int | None, watcher: Watcher) -> None:
    """Submit everything that is to do and follow it until it is over.

    Args:
        jobs: most tasks of an array at a time; None: no limit of ours.

    Raises:
        UserError: Slurm refuses the jobs; what was submitted before is cancelled.
    """
    submitted = submit(schedule, options, manifest, jobs)
    gone_since: float | None = None
    while True:
        _look(schedule, options)
        watcher.update(schedule)
        if schedule.over:
            return
        if _in_queue(submitted):
            gone_since = None
        else:
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > _GRACE:
                _give_up(schedule, options)
                watcher.update(schedule)
                return
        time.sleep(_TICK)


def submit(schedule: Schedule, options: Options, manifest: Path, jobs: int | None) -> list[str]:
    """Submit one array a stage, each depending on the one before; returns the job ids."""
    import submitit

    folder = options.store.absolute() / "slurm"
    submitted: list[str] = []
    for stage in STAGES:
        cells = [cell for cell in schedule.grid.stage(stage) if schedule.state[cell.id] == "todo"]
        if not cells:
            continue
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        executor.update_parameters(
            name=f"bench-{stage}",
            timeout_min=_MINUTES[stage],
            cpus_per_task=max(options.threads, 1),
            slurm_srun_args=[f"--cpus-per-task={max(options.threads, 1)}"],  # Slurm >= 22.05 doesn't inherit it
            slurm_array_parallelism=jobs or len(cells),
        )
        if submitted:
            executor.update_parameters(slurm_dependency=f"afterany:{submitted[-1]}")
        try:
            ids = [(str(manifest), cell.id, options.model_dump_json()) for cell in cells]
            array = executor.map_array(task, *map(list, zip(*ids, strict=True)))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            if submitted:
                subprocess.run(["scancel", *submitted], check=False, capture_output=True)
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"Slurm refused the {stage} array, nothing is left submitted: {reason}") from None
        submitted.append(array[0].job_id.split("_")[0])
    return submitted


def task(manifest: str, cell_id: str, options: str) -> str:
    """One task of an array: compute a cell of a grid, or exit non-zero."""
    from bench.harness.worker import run_cell

    grid = Manifest.model_validate_json(Path(manifest).read_bytes()).grid
    cell = next(cell for cell in grid.cells if cell.id == cell_id)
    outcome = "busy"
    while outcome == "busy":
        outcome = run_cell(grid, cell, Options.model_validate_json(options))
        if outcome == "busy":
            time.sleep(_TICK)
    if outcome not in ("done", "already"):
        raise SystemExit(f"{cell_id}: {outcome}")
    return outcome


def _look(schedule: Schedule, options: Options) -> None:
    """Read the state of the open cells from the store."""
    store = Store(options.store)
    for cell in schedule.grid.cells:
        if schedule.state[cell.id] in ("todo", "running"):
            schedule.settle(cell, _state(store, cell))
            if schedule.state[cell.id] == "todo" and store.heartbeat(cell.id) is not None:
                schedule.state[cell.id] = "running"


def _state(store: Store, cell: Cell) -> str:
    try:
        if finished(store, cell):
            return "done"
    except Damaged:
        return "busy"
    return "failed" if store.failure(cell.id) is not None else "busy"


def _in_queue(jobs: Sequence[str]) -> bool:
    """Does Slurm still know any of these jobs as pending or running? When it doesn't answer, we wait."""
    done = subprocess.run(
        ["squeue", "--noheader", "--format=%i", f"--jobs={','.join(jobs)}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return "Invalid job id" not in done.stderr
    return bool(done.stdout.strip())


def _give_up(schedule: Schedule, options: Options) -> None:
    from bench.harness.failures import note_death

    for cell in schedule.ready():
        reason = f"its Slurm task ended without a record; see {options.store / 'slurm'} for its log"
        note_death(cell, options, reason)
        schedule.settle(cell, "failed")
