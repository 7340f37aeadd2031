"""Compute a grid of methods, images per class (IPC), seeds and students, and write its leaderboard.

What is done already is not done again: a second run of the same grid does no work, and a run that was stopped,
killed or lost its machine goes on where it was."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import options as flags
from bench.cli import screen
from bench.cli.parser import positive
from bench.errors import UserError
from bench.harness.identity import STAGES

if TYPE_CHECKING:
    from rich.console import Console

    from bench.harness.options import Options
    from bench.harness.schedule import Schedule
    from bench.harness.store import Store

HELP = "compute a grid and write its leaderboard"
EXAMPLES = """examples:
  python -m bench run --methods hello,rded --ipc 1,10,50
  python -m bench run --methods hello,rded --ipc 1,10,50 --dataset fashion-mnist --jobs 2
  python -m bench run --methods rded --ipc 10 --dataset folder:/data/pets --students resnet18,vit_b_16 --dry-run
  python -m bench run --methods rded --ipc 10 --dataset imagenet-1k --protocol official --teacher resnet18.pth
  python -m bench run --methods hello --ipc 10 --set hello.conv_rank=4 --force label
  python -m bench run --methods sre2l,rded --ipc 10 --labels native,stored:prune10+topk10,teacher:int8,hard
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench run``."""
    flags.grid_flags(parser)
    group = parser.add_argument_group("where and how to compute it")
    flags.store_flag(parser)
    group.add_argument("--out", type=Path, default=Path("leaderboards"), metavar="DIR", help="default: leaderboards")
    group.add_argument(
        "--cluster",
        choices=("auto", "inline", "local", "slurm"),
        default="auto",
        help="auto (default): Slurm where a cluster answers, else local; inline: in this process",
    )
    group.add_argument(
        "--jobs", type=positive, metavar="N", help="cells at a time (default: one a core, or one an accelerator)"
    )
    group.add_argument("--threads", type=positive, default=1, help="CPU threads a cell (default: 1)")
    group.add_argument("--device", default="auto", help="cpu, cuda, … (default: an accelerator where there is one)")
    group.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    group.add_argument(
        "--force",
        action="append",
        choices=STAGES,
        default=[],
        metavar="STAGE",
        help="compute the cells of a stage again; what stands on them follows if they come out another",
    )


def execute(arguments: argparse.Namespace) -> int:
    """``bench run``; 1 when a cell failed."""
    from bench import catalogue
    from bench.harness import manifest
    from bench.harness.grid import Request
    from bench.harness.options import Options
    from bench.harness.plan import plan
    from bench.harness.schedule import Schedule, prepare, survey
    from bench.harness.store import Store

    request = Request(
        methods=arguments.methods,
        ipc=arguments.ipc,
        dataset=arguments.dataset,
        students=arguments.students,
        seeds=arguments.seeds,
        protocols=arguments.protocol,
        labels=arguments.labels,
        baselines=not arguments.no_baselines,
        teacher=arguments.teacher,
        clip=arguments.clip,
        overrides=flags.overrides(arguments.settings),
        data_root=arguments.data_root,
    )
    out = screen.console()
    grid = plan(request)
    if arguments.dry_run:
        there = (arguments.store / "cells").is_dir()
        empty = Schedule(grid, dict.fromkeys((cell.id for cell in grid.cells), "todo"))
        _show_plan(out, survey(grid, Store(arguments.store), check_files=False) if there else empty)
        return 0
    from bench.harness.report.board_titles import titles_and_baselines
    from bench.harness.report.collect import collect
    from bench.harness.report.publish import publish

    if grid.dataset.fingerprint is None and grid.dataset.name != "digits":
        catalogue.locate(grid.dataset.name, arguments.data_root)  # missing data is said at once
    store = Store(arguments.store)
    schedule = prepare(grid, store, arguments.force)
    for line in schedule.remade:
        out.print(f"damaged: {line}; it is made again")
    _show_plan(out, schedule)
    options = Options(
        store=store.root,
        data_root=catalogue.root_of(request.dataset, request.data_root).absolute(),
        device=arguments.device,
        threads=arguments.threads,
    )
    kept = manifest.keep(store, grid)
    started = time.monotonic()
    if not schedule.over:
        with screen.LiveRun(store, out) as live:
            _launch(arguments, schedule, options, kept, live)
    titles, baselines = titles_and_baselines()
    entries = [entry for entry in collect(store) if entry.dataset == grid.dataset.name]
    for path in publish(entries, arguments.out, titles, baselines):
        out.print(f"wrote {path}")
    _show_times(out, schedule, store, time.monotonic() - started)
    return _show_failures(out, schedule, store)


def _launch(
    arguments: argparse.Namespace, schedule: Schedule, options: Options, kept: Path, live: screen.LiveRun
) -> None:
    from bench.harness.launch import inline, local, slurm

    cluster = arguments.cluster
    if cluster == "auto":
        cluster = "slurm" if slurm.answers() else "local"
    if cluster == "slurm":
        if arguments.cluster == "slurm" and not slurm.answers():
            raise UserError("--cluster slurm: no Slurm answers here (sinfo fails); use --cluster local")
        slurm.run(schedule, options, kept, arguments.jobs, live)
    elif cluster == "local":
        local.run(schedule, options, arguments.jobs or _default_jobs(options.threads), live)
    else:
        inline.run(schedule, options, live)


def _default_jobs(threads: int) -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return len(visible.split(","))
    if (accelerators := len(list(Path("/proc/driver/nvidia/gpus").glob("*")))) > 0:
        return accelerators
    return max(1, len(os.sched_getaffinity(0)) // threads)


def _show_plan(out: Console, schedule: Schedule) -> None:
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
    """What the stored labels that are still to do will weigh."""
    from bench.label_bytes import stored_bytes
    from bench.label_codec import LabelCodec
    from bench.view_plan import ViewSchedule

    return sum(
        stored_bytes(
            ViewSchedule(**cell.call["schedule"]), schedule.grid.dataset.classes, LabelCodec.parse(cell.call["codec"])
        )
        for cell in schedule.grid.stage("label")
        if cell.by == "stored" and schedule.state[cell.id] != "done"
    )


def _show_times(out: Console, schedule: Schedule, store: Store, wall: float) -> None:
    if not schedule.computed:
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


def _show_failures(out: Console, schedule: Schedule, store: Store) -> int:
    failed = [cell.id for cell in schedule.grid.cells if schedule.state[cell.id] == "failed"]
    for cell_id in failed:
        record = store.failure(cell_id)
        out.print(f"failed: {cell_id}: {record.error if record else 'no record'}; see bench show {cell_id}")
    blocked = sum(state == "blocked" for state in schedule.state.values())
    if failed:
        out.print(f"{len(failed)} failed, {blocked} waiting for them; run the same command to try again")
    return 1 if failed else 0
