"""One call of sbatch through submitit, with the resources of a profile."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

from bench.errors import UserError
from bench.slurm.arrays import Array
from bench.slurm.journal import Journal
from bench.slurm.profile import Profile


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
    journal.append("submitted", stage=stage, job=names[0].partition("_")[0], packs=array.packs, after=dependency)
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
