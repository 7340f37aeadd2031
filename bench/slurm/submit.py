"""Submission of a run: all of its arrays in one go, each after those it depends on, and a last job for the boards.

All or nothing: if sbatch refuses one, those before it are cancelled. Submissions to the same store take turns, and
cells that an earlier one left in the queue are waited for, not submitted again: no cell is in the queue twice.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.execution.environment import Options
from bench.execution.scheduling import Schedule, shareable, splittable
from bench.files import write_atomically
from bench.planning.cost_estimate import LEAST as LARGE
from bench.planning.cost_estimate import LikeCells
from bench.slurm import journal, queue
from bench.slurm.arrays import After, Array, plan_arrays
from bench.slurm.journal import ArrayPlan, Journal, Run
from bench.slurm.profile import Profile, Resources
from bench.slurm.profile_values import REPORT
from bench.slurm.task import Report, Task
from bench.store.artifacts import Store
from bench.store.locks import lock
from bench.store.record import Record

_SAVING = 0.75  # share of the time after a warning; in the rest the task is queued again


@dataclass(frozen=True)
class Submission:
    """The tasks of a grid that are in the queue, from this call and from earlier ones."""

    tasks: dict[str, str]  # cell id -> job id
    failures: dict[str, Record | None]  # from before the submission
    folder: Path | None = None  # of this call; None if it had nothing to submit
    submitted: int = 0  # tasks of this call
    warning: str | None = None


def submit(
    schedule: Schedule, options: Options, profile: Profile, out: Path, max_parallel: int | None = None
) -> Submission:
    """Submit all cells that are to do and not yet in the queue.

    Args:
        out: where the last job writes the boards.
        max_parallel: the most running tasks of a stage and resource class; None: the profile's throttle.

    Raises:
        UserError: Slurm doesn't answer, or refuses a job; nothing of this call is left in the queue then.
    """
    store, grid = Store(options.store), schedule.grid
    with lock(store.root / "leases" / "submission.lock"):
        in_queue = tasks_in_queue(store)
        arrays = arrays_of(schedule, store, profile, max_parallel, in_queue)
        ids = {cell.id for cell in grid.cells}
        tasks = {cell_id: job for cell_id, job in in_queue.items() if cell_id in ids}
        failures = {cell_id: store.failure(cell_id) for cell_id in store.ids("failures") & ids}
        if not arrays:
            return Submission(tasks, failures)
        facts = {"dataset": grid.dataset.name, "suite": grid.request.suite, "out": out.absolute()}
        size, requested = grid.dataset.image_size, [array.resources for array in arrays]
        if (warning := accelerator_warning(requested, options.device, size)) is not None and size >= LARGE:
            raise UserError(f"images of {size} px: {warning}")
        here = Journal.create(store, Run(grid=grid.id, options=options, profile=profile.name, **facts))
        name = profile.class_of(REPORT)
        needed = tuple(number for number, array in enumerate(arrays) if not array.helps)
        every = After(all=needed, jobs=tuple(tasks.values()))
        resources = profile.resources_of(name, REPORT).scaled(1)
        last = Array(REPORT, name, resources, packs=((),), after=every)
        jobs: list[list[str]] = []
        try:
            for number, array in enumerate([*arrays, last]):
                calls: list[Callable[[], None]] = [Report(str(here.folder / "run.json"))]
                if array is not last:
                    own = {cell_id for pack in array.packs for cell_id in pack}
                    plan = ArrayPlan(
                        grid=grid.model_copy(update={"cells": tuple(cell for cell in grid.cells if cell.id in own)}),
                        packs=array.packs,
                        options=options,
                        processes=array.processes,
                        helps=array.helps,
                        save_seconds=_SAVING * profile.warning_of(array.resources),
                    )
                    path = here.folder / f"array-{number}.json"
                    write_atomically(path, plan.model_dump_json() + "\n")
                    calls = [Task(str(path), index) for index in range(len(array.packs))]
                names = call_sbatch(here, profile, array, calls, array.after.in_sbatch(jobs))
                jobs.append(names)
                for name, pack in zip(names, () if array.helps else array.packs, strict=not array.helps):
                    tasks |= dict.fromkeys(pack, name)
        except BaseException:  # Ctrl-C too
            # by name: sbatch may have accepted a job whose number never reached us
            for stage in {array.stage for array in [*arrays, last]}:
                queue.cancel_named(here.job_name(stage))
            here.append("cancelled", jobs=[names[0].partition("_")[0] for names in jobs])
            raise
    return Submission(tasks, failures, here.folder, sum(len(array.packs) for array in arrays), warning)


def tasks_in_queue(store: Store, needed: bool = True) -> dict[str, str]:
    """Return the pending and running tasks of a store: cell id → job id.

    Args:
        needed: else a machine where no Slurm answers has none in the queue.

    Raises:
        UserError: Slurm doesn't answer.
    """
    queued = queue.queued()
    if queued is None and not needed:
        return {}
    if queued is None:
        raise UserError("Slurm doesn't answer (squeue fails), so nothing is submitted; try again, or use bench doctor")
    return {cell_id: task.job for cell_id, task in journal.last_tasks(store).items() if task.job in queued}


def arrays_of(
    schedule: Schedule, store: Store | None, profile: Profile, max_parallel: int | None, in_queue: Mapping[str, str]
) -> list[Array]:
    """Return the arrays that a submission would make now; without a store nothing tells how long a cell takes."""
    return plan_arrays(
        schedule,
        profile,
        max_tasks=queue.max_array_tasks(),
        max_parallel=max_parallel,
        shareable=shareable,
        splittable=splittable,
        seconds=LikeCells(store).seconds,
        in_queue=in_queue,
    )


def accelerator_warning(requested: Iterable[Resources], device: str, image_size: int = 0) -> str | None:
    """Return a line if ``--device auto`` leaves tasks without an accelerator that should have one; else None.

    Small images may compute on CPUs as long as some task requests one. ``gres = ""`` says that a class needs none.
    """
    wanted = list(requested)
    plain = [one for one in wanted if one.gres is None]
    by_user = any(name in os.environ for name in ("SBATCH_GRES", "SBATCH_GPUS", "SBATCH_GPUS_PER_NODE"))
    if device != "auto" or by_user or not plain or (len(plain) < len(wanted) and image_size < LARGE):
        return None
    gpus = queue.partitions()
    names = {name for one in plain for name in (one.partition or "").split(",")}
    found = [
        f"partition {name.rstrip('*')} has {', '.join(dict.fromkeys(offered))}"
        for name, offered in gpus.items()
        if offered and (name.rstrip("*") in names or ("" in names and name.endswith("*")))
    ]
    who = "no task requests an accelerator, so all will"
    if len(plain) < len(wanted):
        cells = sorted({cells for one in plain for cells in one.cells}) or ["the default class"]
        who = f"tasks of {', '.join(cells)} request no accelerator, so they will"
    return (
        f"{who} compute on CPUs{''.join(f'; {one}' for one in found)}; "
        'gres = "gpu:1" in the profile or --device cuda requests one, gres = "" or --device cpu confirms'
    )


def call_sbatch(
    journal: Journal, profile: Profile, array: Array, calls: list[Callable[[], None]], dependency: str | None = None
) -> list[str]:
    """Submit an array, with journal entries before and after; return the job ids of its tasks.

    Args:
        calls: the work of each task, which submitit pickles.
        dependency: the value of ``--dependency``.

    Raises:
        UserError: sbatch refuses it.
    """
    import submitit

    run, stage, resources = journal.run(), array.stage, array.resources
    assert run is not None
    gpus = any(array.packs) and run.options.device.startswith("cuda") and resources.gres is None
    cpus = max(run.options.threads, resources.cpus or 1)
    nodes = {key: value for key in ("exclude", "nodelist", "reservation") if (value := getattr(resources, key))}
    # not AutoExecutor: it takes None for "not given", and a wckey that is given at all, even an empty one,
    # makes some clusters refuse the job (submitit issues 1632 and 1758)
    executor = submitit.SlurmExecutor(journal.folder, max_num_timeout=profile.requeues)
    executor.update_parameters(
        job_name=journal.job_name(stage),
        partition=resources.partition,
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        gres=resources.gres or None,
        gpus_per_node=array.processes if gpus else None,
        time=resources.minutes,
        mem=f"{round(resources.memory_gb * 1024)}M" if resources.memory_gb else None,
        ntasks_per_node=array.processes,
        cpus_per_task=cpus,
        # Slurm >= 22.05 doesn't inherit the first; without the second, processes wait for one that died
        srun_args=[f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1"],
        array_parallelism=array.max_parallel or len(calls),
        dependency=dependency,
        setup=list(profile.setup) or None,
        signal_delay_s=profile.warning_of(resources),
        wckey=profile.wckey,
        # a dependency that can't be met any more (a failed task under aftercorr) would wait for ever
        additional_parameters={"requeue": True, "kill-on-invalid-dep": "yes", **nodes},
    )
    journal.append("submitting", stage=stage, resources=array.name, tasks=len(calls))
    try:
        with _outside_of_jobs(), redirect_stderr(io.StringIO()), executor.batch():  # submitit prints sbatch's messages
            jobs = [executor.submit(call) for call in calls]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(
            f"Slurm refused the {stage} jobs ({len(calls)}), and nothing of this call is left in the queue: {reason}; "
            "bench doctor shows what the cluster accepts, a --profile or SBATCH_PARTITION, SBATCH_ACCOUNT, … chooses"
        ) from None
    names = [str(job.job_id) for job in jobs]
    facts = {"packs": array.packs, "after": dependency, "helps": bool(array.helps)}
    journal.append("submitted", stage=stage, job=names[0].partition("_")[0], **facts)
    return names


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables of the surrounding job (an interactive one, say), which would shape the jobs submitted here.

    SLURM_CONF and the user's own SBATCH variables stay; submitit's function hides them as well.
    """
    import submitit

    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    kept = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    with submitit.helpers.clean_env():
        os.environ.update(kept)
        yield
