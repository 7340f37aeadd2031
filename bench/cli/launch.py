"""From a planned grid to its board: what ``bench run`` and ``bench retry`` share."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from bench.cli import options as common
from bench.cli import screen
from bench.cli.parser import positive
from bench.errors import UserError
from bench.store.cell import STAGES, Stage

if TYPE_CHECKING:
    from rich.console import Console

    from bench.execution.options import Options
    from bench.execution.scheduling import Schedule
    from bench.planning.grid import Grid
    from bench.report.publish import Board
    from bench.slurm.profile import Profile
    from bench.store.artifacts import Store

MOST_RESULTS = 40  # rows on the screen


def flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The flags that say where and how to compute."""
    group = parser.add_argument_group("where and how to compute it")
    common.store_flag(group)
    group.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="boards (default: results)")
    group.add_argument(
        "--cluster",
        choices=("auto", "inline", "local", "slurm"),
        default="auto",
        help="auto (default): Slurm where a cluster answers, else local; inline: in this process",
    )
    group.add_argument("--profile", metavar="NAME", help="what Slurm is asked for: a TOML file; see bench doctor")
    group.add_argument("--detach", action="store_true", help="on Slurm: submit, and don't wait")
    group.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="cells at a time (default: one a core or accelerator, or one where time is measured; on Slurm as the "
        "profile says)",
    )
    group.add_argument("--threads", type=positive, default=1, help="CPU threads a cell (default: 1)")
    group.add_argument("--device", default="auto", help="cpu, cuda, … (default: an accelerator where there is one)")
    return group


def compute(
    out: Console,
    grid: Grid,
    arguments: argparse.Namespace,
    *,
    force: Iterable[Stage] = (),
    only: set[str] | None = None,
    profile: Profile | None = None,
) -> int:
    """Compute what is not done of a grid and write its board; 1 when a cell failed.

    Args:
        arguments: those of :func:`flags`, and ``data_root``.
        only: the ids of the cells to compute, with what they stand on; None: all.
        profile: instead of the one that ``--profile`` names.
    """
    from bench.api import catalogue
    from bench.execution.environment import code
    from bench.execution.options import Options
    from bench.execution.scheduling import prepare
    from bench.planning import manifest
    from bench.planning.grid import ancestors
    from bench.report import publish
    from bench.slurm.profile import load
    from bench.store.artifacts import Store

    profile = profile or load(arguments.profile)
    store = Store(arguments.store)
    whole = grid
    if only is not None:
        needed = ancestors([cell for cell in grid.cells if cell.id in only], grid)
        grid = grid.model_copy(update={"cells": tuple(cell for cell in grid.cells if cell.id in needed)})
    schedule = prepare(grid, store, force)
    manifest.keep(store, whole)  # what could not be scheduled is on no board
    for line in schedule.remade:
        out.print(f"damaged: {line}; it is made again")
    show_plan(out, schedule)
    options = Options(
        store=store.root,
        data_root=catalogue.root_of(grid.request.dataset, arguments.data_root).absolute(),
        device=arguments.device,
        threads=arguments.threads,
        code=code(),
    )
    started = time.monotonic()
    if not schedule.over and not _launch(out, arguments, schedule, options, profile):
        return 0
    _show_times(out, schedule, store, time.monotonic() - started)
    for path, change, board in publish.update(publish.of_grid(store, grid), arguments.out):
        _show_results(out, board, {cell.id for cell in grid.cells})
        out.print(f"\nwrote {path}: {change}", markup=False)
    return _show_failures(out, schedule, store)


def show_what_would_be_done(out: Console, grid: Grid, arguments: argparse.Namespace) -> None:
    """The plan of a grid, and the job arrays it would become, changing nothing."""
    from bench.execution.scheduling import Schedule, survey
    from bench.store.artifacts import Store

    store = Store(arguments.store) if (arguments.store / "cells").is_dir() else None
    if store is not None:
        schedule = survey(grid, store, check_files=False)
    else:
        schedule = Schedule(grid, dict.fromkeys((cell.id for cell in grid.cells), "todo"))
    show_plan(out, schedule)
    _show_hours(out, schedule, store, arguments.out)
    if arguments.cluster == "slurm" or arguments.profile:
        _show_arrays(out, schedule, arguments)


def _show_hours(out: Console, schedule: Schedule, store: Store | None, boards: Path) -> None:
    from bench.planning.cost_estimate import estimate, in_words, measured_on

    measured = measured_on(boards / "suites" / "efficiency")
    if (found := estimate(schedule, store, measured)) is not None:
        for line in in_words(found, measured):
            out.print(line, markup=False)


def _show_arrays(out: Console, schedule: Schedule, arguments: argparse.Namespace) -> None:
    from bench.slurm.profile import load
    from bench.slurm.submit import arrays_of, tasks_in_queue
    from bench.store.artifacts import Store

    store, profile = Store(arguments.store), load(arguments.profile)
    in_queue = tasks_in_queue(store)
    rows = []
    for number, array in enumerate(arrays_of(schedule, store, profile, arguments.jobs, in_queue), start=1):
        asked = profile.resources_of(array.resources, array.stage)
        tasks = f"{len(array.packs)} × {array.processes}" if array.processes > 1 else str(len(array.packs))
        after = [f"{index + 1}, task by task" for index in array.after.each]
        after += [str(index + 1) for index in array.after.all] + [f"job {job}" for job in array.after.jobs]
        rows.append(
            [
                str(number), array.stage, array.resources, tasks, str(array.at_a_time or ""),
                str(sum(map(len, array.packs))), str(asked.minutes), "; ".join(after),
            ]
        )  # fmt: skip
    numbers = ["array", "tasks", "at once", "cells", "minutes"]
    out.print(f"\njob arrays ({sum(c.id in in_queue for c in schedule.grid.cells)} cells are in the queue already):")
    out.print(screen.table(["array", "stage", "class", *numbers[1:], "after"], rows, right=numbers))


def _launch(
    out: Console, arguments: argparse.Namespace, schedule: Schedule, options: Options, profile: Profile
) -> bool:
    """Work a schedule off; False: it was only submitted."""
    from bench.execution import inline, local
    from bench.slurm import launcher, queue
    from bench.store.artifacts import Store

    store = Store(options.store)
    cluster = arguments.cluster
    if cluster == "auto":
        cluster = "slurm" if queue.answers() else "local"
    if cluster != "slurm" and (arguments.detach or arguments.profile):
        flag = "--detach" if arguments.detach else f"--profile {arguments.profile}"
        raise UserError(
            f"{flag} is for Slurm, and this run is {cluster}: none answers here (sinfo), or --cluster said so"
        )
    if cluster == "slurm":
        if arguments.cluster == "slurm" and not queue.answers():
            raise UserError("--cluster slurm: no Slurm answers here (sinfo fails); use --cluster local")
        submission = launcher.begin(schedule, options, profile, arguments.out, arguments.jobs)
        if submission.folder is not None:
            out.print(f"submitted {submission.submitted} tasks to Slurm; their logs are in {submission.folder}")
        else:
            out.print(f"{len(submission.tasks)} cells are in Slurm's queue already")
        if arguments.detach:
            out.print(f"bench status --store {store.root} --watch follows them; the last job writes the boards")
            return False
        with screen.LiveRun(store, out, ctrl_c="leaves; the jobs go on") as live:
            launcher.follow(schedule, options, submission, live)
        return True
    with screen.LiveRun(store, out) as live:
        if cluster == "local":
            local.run(schedule, options, arguments.jobs or default_jobs(options.threads, schedule.grid), live)
        else:
            inline.run(schedule, options, live)
    return True


def default_jobs(threads: int, grid: Grid) -> int:
    """How many cells are computed at a time on this machine."""
    from bench.api import registry

    if any(registry.evaluator(name).alone for name in {cell.by for cell in grid.stage("evaluate")}):
        return 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return len(visible.split(","))
    if (accelerators := len(list(Path("/proc/driver/nvidia/gpus").glob("*")))) > 0:
        return accelerators
    return max(1, len(os.sched_getaffinity(0)) // threads)


def show_plan(out: Console, schedule: Schedule) -> None:
    rows = []
    for stage in STAGES:
        counts = schedule.counts(stage)
        rows.append([stage, str(counts.total()), str(counts["done"]), str(counts.total() - counts["done"])])
    numbers = ("cells", "done", "to do")
    rows.append(["total", *(str(sum(int(row[i]) for row in rows)) for i in (1, 2, 3))])
    out.print(screen.table(["stage", *numbers], rows, right=numbers))
    if to_store := _bytes_to_store(schedule):
        out.print(f"stored labels to write: {screen.human_bytes(to_store)}")


def _bytes_to_store(schedule: Schedule) -> int:
    """The bytes of the stored labels that are still to do."""
    from bench.api.augmentation import AugmentationSchedule
    from bench.api.stored.codec import LabelCodec
    from bench.api.stored.layout import LabelLayout

    return sum(
        LabelLayout(
            AugmentationSchedule(**cell.call["schedule"]),
            LabelCodec.parse(cell.call["codec"]),
            schedule.grid.dataset.logits,
        ).total
        for cell in schedule.grid.stage("label")
        if cell.by == "stored" and schedule.state[cell.id] != "done"
    )


def _show_times(out: Console, schedule: Schedule, store: Store, wall: float) -> None:
    if not schedule.computed:
        if not any(state in ("failed", "blocked") for state in schedule.state.values()):
            out.print("nothing to do: every cell was done before")
        return
    rows, total = [], 0.0
    for stage in STAGES:
        mine = set(schedule.computed) & {cell.id for cell in schedule.grid.stage(stage)}
        records = [record for cell_id in mine if (record := store.record(cell_id)) is not None]
        seconds = [record.run.seconds for record in records]
        if seconds:
            total += sum(seconds)
            rows.append([stage, str(len(seconds)), f"{sum(seconds):.1f}", f"{max(seconds):.1f}"])
    rows.append(["all", str(len(schedule.computed)), f"{total:.1f}", ""])
    numbers = ("cells", "seconds", "longest")
    out.print("\nwhere the time went (seconds of the cells, side by side with --jobs):")
    out.print(screen.table(["stage", *numbers], rows, right=numbers))
    out.print(f"{screen.duration(wall)} on the clock")


def _show_results(out: Console, board: Board, cells: set[str]) -> None:
    """The rows of a grid that are measured, best mean first."""
    from bench.format import accuracy, size
    from bench.report.rows import records

    if board.rows is None:
        return
    rows = board.rows[board.rows["cells"].map(lambda own: bool(cells & set(own))) & (board.rows["n"] > 0)]
    rows = rows.sort_values(["protocol", "ipc", "student", "top1_mean"], ascending=[True, True, True, False])
    lines = [
        [escape(one.method), escape(one.labels), "full data" if one.ipc is None else str(one.ipc), escape(one.student),
         str(one.n), accuracy(one.top1_mean, one.top1_std), size(one.label_bytes)]
        for one in records(rows)
    ]  # fmt: skip
    right = ("IPC", "n", f"{rows['metric'].iloc[0]} %" if len(rows) else "", "label bytes")
    if lines:
        out.print()
        shown = lines if len(lines) <= MOST_RESULTS else lines[:MOST_RESULTS]
        out.print(screen.table(["method", "labels", "IPC", "student", *right[1:]], shown, right=right))
        if len(lines) > MOST_RESULTS:
            out.print(f"… and {len(lines) - MOST_RESULTS} more rows on the board")


def _show_failures(out: Console, schedule: Schedule, store: Store) -> int:
    failed = [cell.id for cell in schedule.grid.cells if schedule.state[cell.id] == "failed"]
    for cell_id in failed:
        record = store.failure(cell_id)
        out.print(f"failed: {cell_id}: {record.error if record else 'no record'}; see bench show {cell_id}")
    blocked = sum(state == "blocked" for state in schedule.state.values())
    if failed:
        out.print(f"{len(failed)} failed, {blocked} waiting for them; run the same command to try again")
    return 1 if failed else 0
