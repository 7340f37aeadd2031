"""Slurm job arrays through submitit: one or two arrays a stage, each after the one before, the same worker in every
task.

Partition, account, time and the like are the user's: sbatch reads them from SBATCH_PARTITION, SBATCH_ACCOUNT,
SBATCH_TIMELIMIT and so on, over what is set here. Scripts and logs lie in ``STORE/slurm/``.

Tasks don't need whoever follows them: when that stops, they go on. The same command then submits what is not done
once more, and a task that meets its cell at work elsewhere waits for its lease and finds it done. A cell that
failed leaves a record that says why, and its task ends with an exit code other than 0; so does a task whose
parents failed, without a record.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from itertools import chain
from pathlib import Path

from bench.errors import UserError
from bench.harness.identity import STAGES, Cell
from bench.harness.launch import Watcher
from bench.harness.manifest import Manifest
from bench.harness.options import Options
from bench.harness.record import Record
from bench.harness.schedule import Schedule, finished
from bench.harness.store import Damaged, Store

_TICK = 2.0  # seconds between two looks at the store
_ASK_EVERY = 15.0  # seconds between two questions to Slurm, whose controller serves everybody
_GRACE = 60.0  # seconds that a record may come after its job is gone: as long as NFS remembers a folder (acdirmax)
_MINUTES = {"teacher": 24 * 60, "prepare": 24 * 60, "distill": 24 * 60, "label": 24 * 60, "evaluate": 8 * 60}


def answers() -> bool:
    """Is there a Slurm cluster that answers from here?"""
    if not all(map(shutil.which, ("sbatch", "sinfo", "srun"))):
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
        KeyboardInterrupt: the user stopped following; the jobs go on, as its message says.
    """
    store = Store(options.store)
    before = {cell.id: store.failure(cell.id) for cell in schedule.grid.cells}  # a failure of old is no answer
    try:
        tasks = submit(schedule, options, manifest, jobs)
        _follow(schedule, store, before, tasks, watcher)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "what is submitted goes on in Slurm's queue (squeue shows it, scancel ends it); "
            "the same command follows it from here"
        ) from None
    for cell in _without_answer(schedule):
        _note_death(schedule, cell, options, tasks)
    watcher.update(schedule)


def submit(schedule: Schedule, options: Options, manifest: Path, jobs: int | None) -> dict[str, str]:
    """Submit one array for each wave of a stage, each depending on the one before; returns cell id → job id.

    A job id is ``ARRAY_INDEX``, or a plain number where a stage has one cell: submitit makes no array of that.
    """
    import submitit

    tasks: dict[str, str] = {}
    previous = None
    for cells in chain.from_iterable(map(schedule.waves, STAGES)):
        stage = cells[0].stage
        # not AutoExecutor: it takes None for "not given", and a wckey that is given at all, even an empty one,
        # makes some clusters refuse the job (submitit issues 1632 and 1758)
        executor = submitit.SlurmExecutor(_folder(options.store))
        executor.update_parameters(
            job_name=f"bench-{stage}",
            time=_MINUTES[stage],
            cpus_per_task=max(options.threads, 1),
            srun_args=[f"--cpus-per-task={max(options.threads, 1)}"],  # Slurm >= 22.05 doesn't inherit it
            gpus_per_node=1 if options.device.startswith("cuda") else None,
            array_parallelism=jobs or len(cells),
            dependency=f"afterany:{previous}" if previous else None,  # afterok would wait for ever after a failure
            wckey=None,
        )
        calls = [(str(manifest), cell.id, options.model_dump_json()) for cell in cells]
        try:
            with _outside_of_jobs(), redirect_stderr(io.StringIO()):  # submitit prints what sbatch says, and raises
                array = executor.map_array(task, *map(list, zip(*calls, strict=True)))
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            _cancel(tasks.values())
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UserError(
                f"Slurm refused the {stage} jobs ({len(cells)}), and nothing is left submitted: {reason}; "
                "sbatch takes the partition, account and limits from SBATCH_PARTITION, SBATCH_ACCOUNT, …"
            ) from None
        tasks |= {cell.id: job.job_id for cell, job in zip(cells, array, strict=True)}
        previous = array[0].job_id.partition("_")[0]
    return tasks


def task(manifest: str, cell_id: str, options: str) -> str:
    """One task of an array: compute a cell of a grid, or exit non-zero."""
    from bench.harness.failures import note_death
    from bench.harness.worker import run_cell  # imports torch

    grid = Manifest.model_validate_json(Path(manifest).read_bytes()).grid
    cell = next(cell for cell in grid.cells if cell.id == cell_id)
    chosen = Options.model_validate_json(options)
    try:
        while (outcome := run_cell(grid, cell, chosen)) == "busy":
            time.sleep(_TICK)
    except UserError as error:  # elsewhere it stops the run; here nobody looks but at the records
        note_death(cell, chosen, str(error))
        raise SystemExit(f"{cell_id}: {error}") from None
    if outcome not in ("done", "already"):
        raise SystemExit(f"{cell_id}: {outcome}")
    return outcome


def _folder(store: Path) -> Path:
    return store.absolute() / "slurm"


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Inside a job (an interactive one, say), hide its variables: they would shape the jobs submitted from it.

    Where Slurm is and what the user asks of sbatch stays; submitit's own function hides that as well.
    """
    import submitit

    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    with submitit.helpers.clean_env():
        os.environ.update(kept)
        yield


def _follow(
    schedule: Schedule, store: Store, before: Mapping[str, Record | None], tasks: dict[str, str], watcher: Watcher
) -> None:
    """Return when the schedule is over, or when Slurm has been without any of the tasks for a while."""
    asked = time.monotonic()
    gone_since: float | None = None
    while True:
        _look(schedule, store, before)
        _cancel_blocked(schedule, tasks)
        watcher.update(schedule)
        if schedule.over:
            return
        now = time.monotonic()
        if now - asked >= _ASK_EVERY:
            asked = now
            gone_since = None if _in_queue(tasks.values()) else gone_since or now
        if gone_since is not None and now - gone_since >= _GRACE:
            return
        time.sleep(_TICK)


def _look(schedule: Schedule, store: Store, before: Mapping[str, Record | None]) -> None:
    """Read the state of the open cells from the store."""
    for cell in schedule.grid.cells:
        if schedule.state[cell.id] in ("todo", "running"):
            schedule.settle(cell, _state(store, cell, before[cell.id]))
            if schedule.state[cell.id] == "todo" and store.heartbeat(cell.id) is not None:
                schedule.state[cell.id] = "running"


def _state(store: Store, cell: Cell, before: Record | None) -> str:
    try:
        if finished(store, cell):
            return "done"
    except Damaged:
        return "busy"
    return "busy" if store.failure(cell.id) in (None, before) else "failed"


def _cancel_blocked(schedule: Schedule, tasks: dict[str, str]) -> None:
    """Take tasks that wait for nothing out of the queue; one that has started ends by itself."""
    blocked = [cell_id for cell_id in tasks if schedule.state[cell_id] == "blocked"]
    _cancel([tasks.pop(cell_id) for cell_id in blocked], "--state=PENDING")


def _cancel(jobs: Collection[str], *flags: str) -> None:
    if jobs:
        subprocess.run(["scancel", *flags, *jobs], check=False, capture_output=True)


def _in_queue(jobs: Collection[str]) -> bool:
    """Does Slurm still know any of these jobs as pending or running? When it doesn't answer, we wait."""
    arrays = sorted({job.partition("_")[0] for job in jobs})
    done = subprocess.run(
        ["squeue", "--noheader", "--format=%i", f"--jobs={','.join(arrays)}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return "Invalid job id" not in done.stderr
    return bool(done.stdout.strip())


def _without_answer(schedule: Schedule) -> list[Cell]:
    """The cells whose tasks are gone without a word; what stands on them is not among them."""
    for cell_id, state in schedule.state.items():
        if state == "running":  # it left its heartbeat behind when it died
            schedule.state[cell_id] = "todo"
    return schedule.ready()


def _note_death(schedule: Schedule, cell: Cell, options: Options, tasks: Mapping[str, str]) -> None:
    from bench.harness.failures import note_death

    log = _folder(options.store) / f"{tasks[cell.id]}_0_log.err"
    note_death(cell, options, f"its Slurm task {tasks[cell.id]} ended without a record; its log is {log}")
    schedule.settle(cell, "failed")
