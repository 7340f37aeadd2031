"""Compute a planned grid and write its boards: the part that ``bench run`` and ``bench retry`` share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterable

from rich.console import Console

from bench.api import catalogue
from bench.cli import plan_tables, result_tables, screen
from bench.cli.options import STORE
from bench.errors import UserError
from bench.execution import local
from bench.execution.environment import Options, choose_kernels, code, device_for
from bench.execution.scheduling import Schedule, prepare
from bench.planning import manifest
from bench.planning.grid import Grid
from bench.slurm import follow, queue, submit
from bench.slurm.profile import Profile, load
from bench.store.artifacts import Store
from bench.store.cell import Stage

ARGUMENTS = f"""
where and how to compute it:
{STORE.strip()}
--out DIR = results  boards (default: results)
--cluster {{auto,inline,local,slurm}} = auto  auto (default): Slurm where a cluster answers, else local; inline: in this
    process
--profile NAME  the resources to request from Slurm: see bench doctor --help
--detach  on Slurm: submit, and don't wait
--jobs N  maximum parallel cells (default: one per core or accelerator, or one where time is measured; on Slurm the
    profile's throttle)
--processes N  processes that share a cell whose work can be shared, each with an accelerator of its own (default: 1; on
    Slurm the profile's)
--threads N = 1  CPU threads per cell (default: 1)
--device NAME = auto  cpu, cuda, … (default: an accelerator where there is one)
--native-kernels  the fastest CPU kernels of this processor; by default those that give the same bits on all
--allow-overlap  compute even where more than 1 %% of the test images are training or synthetic images
--no-preflight  don't try networks, files and the store beforehand
"""
MANY_FILES = 100_000


def preflight(
    grid: Grid, arguments: argparse.Namespace, force: Collection[Stage] = (), only: Collection[str] | None = None
) -> None:
    """Check what the cells to do need, unless ``--no-preflight``; nothing is loaded where there are none.

    The kernels of this process are chosen here: its first computation is a look at files or data, and ``--cluster
    inline`` goes on in it.

    Args:
        arguments: those of :data:`ARGUMENTS`.
        only: the ids of the cells that are wanted, with their ancestors; None: all.

    Raises:
        UserError: everything that is wrong, in one line.
    """
    from bench.execution.preflight import check  # imports numpy

    choose_kernels(not arguments.native_kernels)
    if arguments.no_preflight:
        return
    cells = (grid if only is None else grid.reduced(only)).cells
    there = Store(arguments.store).ids("cells") if (arguments.store / "cells").is_dir() else set()
    todo = {cell.id for cell in cells if cell.id not in there or cell.stage in force}
    check(grid, todo, arguments.store, arguments.out)
    named = getattr(arguments, "dry_run", False) and arguments.device not in ("auto", "cpu")
    slurm = arguments.profile or arguments.cluster == "slurm"
    if todo and named and not slurm and not (arguments.cluster == "auto" and queue.available()):
        device_for(arguments.device)  # as the first cell does


def compute(
    out: Console,
    grid: Grid,
    arguments: argparse.Namespace,
    *,
    force: Iterable[Stage] = (),
    only: set[str] | None = None,
    profile: Profile | None = None,
    kept: bool = True,
) -> int:
    """Compute the cells of a grid that are not done and write its boards; 1 if a cell failed.

    Args:
        arguments: those of :data:`ARGUMENTS`, and ``data_root``.
        only: the ids of the cells to compute, with their ancestors; None: all.
        profile: instead of the one that ``--profile`` names.
        kept: False for a store that is removed afterwards, of which nothing is said.
    """
    from bench.execution.provenance import check_data, keep_contents  # imports torch
    from bench.report import publish  # imports pandas

    profile = profile or load(arguments.profile).with_limits(processes=arguments.processes)
    store = Store(arguments.store)
    whole, grid = grid, grid if only is None else grid.reduced(only)
    schedule = prepare(grid, store, force)
    manifest.keep(store, whole)  # what could not be scheduled is on no board
    for line in schedule.remade:
        out.print(f"damaged: {line}; it is made again", markup=False)
    plan_tables.show_cells(out, schedule, store, arguments.out)
    try:
        data_root = catalogue.root_of(grid.request.dataset, arguments.data_root).absolute()  # tasks run elsewhere
    except UserError:  # without a home folder; a data set that needs one says so when it is read
        data_root = None
    if grid.dataset.train_images > MANY_FILES and not schedule.over:
        out.print(f"looking at the files of {grid.dataset.name}; the first time all are read", markup=False)
    contents = None if schedule.over else keep_contents(grid.dataset, data_root, store)
    check_data(schedule.made, grid.dataset, data_root, contents)
    options = Options(
        store=store.root, data_root=data_root, device=arguments.device, threads=arguments.threads, code=code(),
        contents=contents, allow_overlap=arguments.allow_overlap, portable=not arguments.native_kernels,
    )  # fmt: skip
    started = time.monotonic()
    if not schedule.over and not _launch(out, arguments, schedule, options, profile):
        return 0
    result_tables.show_durations(out, schedule, store, time.monotonic() - started)
    for path, change, board in publish.update_of_grid(store, grid.dataset.name, grid.request.suite, arguments.out):
        result_tables.show_results(out, board, {cell.id for cell in grid.cells})
        if kept or not path.is_relative_to(store.root):
            result_tables.show_places(out, path, change, store if kept else None)
    return result_tables.show_failures(out, schedule, store)


def _launch(
    out: Console, arguments: argparse.Namespace, schedule: Schedule, options: Options, profile: Profile
) -> bool:
    """Work off a schedule; False if it was only submitted."""
    cluster = arguments.cluster
    if cluster in ("auto", "slurm"):
        if queue.available():
            cluster = "slurm"
        elif cluster == "slurm":
            raise UserError("--cluster slurm: no Slurm answers here (sinfo fails); use --cluster local")
        else:
            cluster = "local"
    store = Store(options.store)
    if cluster != "slurm":
        if arguments.detach or arguments.profile:
            flag = "--detach" if arguments.detach else f"--profile {arguments.profile}"
            raise UserError(
                f"{flag} is for Slurm, but this run is {cluster}: none answers (sinfo), or --cluster says so"
            )
        processes = arguments.processes or 1
        if cluster == "inline" and processes > 1:
            raise UserError(f"--processes {processes}: --cluster inline computes in this process; use --cluster local")
        jobs = local.count_slots(schedule.grid, options, arguments.jobs, processes)
        with screen.LiveRun(store, out, 1 if cluster == "inline" else jobs) as live:
            if cluster == "local":
                local.run(schedule, options, jobs, live, processes)
            else:
                local.run_inline(schedule, options, live)
        return True
    submission = submit.submit(schedule, options, profile, arguments.out, arguments.jobs)
    if submission.folder is not None:
        out.print(f"submitted {submission.submitted} tasks to Slurm; their logs are in {submission.folder}")
        if submission.warning:
            out.print(submission.warning, markup=False)
    else:
        out.print(f"{len(submission.tasks)} cells are in Slurm's queue already")
    if arguments.detach:
        out.print(f"bench status --store {options.store} --watch follows them; the last job writes the boards")
        return False
    with screen.LiveRun(store, out, ctrl_c="leaves; the jobs go on") as live:
        follow.follow(schedule, options, submission, live)
    return True
