"""The plan of a grid on the screen: cells by stage, bytes to store, hours, and the job arrays it would become."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from rich.console import Console

from bench.cli import screen
from bench.execution.scheduling import Schedule, survey
from bench.format import size
from bench.planning.cost_estimate import estimate, measured_on
from bench.planning.grid import Grid
from bench.slurm.profile import load
from bench.slurm.submit import accelerator_warning, arrays_of, tasks_in_queue
from bench.store.artifacts import Store
from bench.store.cell import STAGES


def show_plan(out: Console, grid: Grid, arguments: argparse.Namespace) -> None:
    """Show the plan of a grid, changing nothing."""
    store, schedule = None, Schedule(grid, dict.fromkeys((cell.id for cell in grid.cells), "todo"))
    if (arguments.store / "cells").is_dir():
        store = Store(arguments.store)
        schedule = survey(grid, store, check_files=False)
    show_cells(out, schedule, store, arguments.out)
    if arguments.cluster == "slurm" or arguments.profile:
        _show_arrays(out, schedule, store, arguments)


def show_cells(out: Console, schedule: Schedule, store: Store | None, boards: Path) -> None:
    """Show how many cells of each stage are done and to do, the bytes of labels to store, and an estimate of time.

    Args:
        boards: the folder of boards, of which those on efficiency tell times.
    """
    from bench.execution.preflight import label_bytes  # imports numpy

    counts: dict[str, Counter[str]] = {stage: schedule.counts(stage) for stage in STAGES}
    shown = [*counts.items(), ("total", sum(counts.values(), Counter()))]
    rows = [[name, *map(str, (n.total(), n["done"], n.total() - n["done"]))] for name, n in shown]
    numbers = ("cells", "done", "to do")
    out.print(screen.table(["stage", *numbers], rows, right=numbers))
    if line := own_length(schedule.grid):
        out.print(line, markup=False)
    show_changed_code(out, schedule)
    todo = {cell_id for cell_id, state in schedule.state.items() if state != "done"}
    if not todo:
        return
    out.print(f"stored labels to write: {size(label_bytes(schedule.grid, todo))}")
    measured = measured_on(boards / "suites" / "efficiency")
    found = estimate(schedule.grid, todo, store, measured)
    for line in found.lines(measured) if found else ["no estimate of time yet: nothing like it has run here"]:
        out.print(line, markup=False)


def show_changed_code(out: Console, schedule: Schedule) -> None:
    """Say whose code is another than when finished cells were made."""
    if schedule.made:
        from bench.execution.provenance import changed_code  # imports torch

        for line in changed_code(schedule.made):
            out.print(line, markup=False)


def own_length(grid: Grid) -> str:
    """Say which cells don't follow ``--set protocol.epochs``; empty where all do."""
    changed = grid.request.overrides.get("protocol", {})
    full = [cell.fields["protocol"] for cell in grid.stage("evaluate") if cell.row["ipc"] is None]
    if not full or "epochs" not in changed or "full_data" in changed or "full_data" not in full[0]:
        return ""
    own = full[0]["full_data"]
    shorter = json.dumps({**own, "epochs": changed["epochs"]})
    return f"full_data keeps its own {own['epochs']} epochs; --set 'protocol.full_data={shorter}' changes them"


def _show_arrays(out: Console, schedule: Schedule, store: Store | None, arguments: argparse.Namespace) -> None:
    profile = load(arguments.profile).with_limits(processes=arguments.processes)
    in_queue = tasks_in_queue(store, needed=False) if store else {}
    arrays = arrays_of(schedule, store, profile, arguments.jobs, in_queue)
    rows, by = [], {cell.id: cell.by for cell in schedule.grid.cells}
    helpers = Counter(pack for array in arrays if array.helps for pack in array.packs)  # of arrays that come last
    for number, array in enumerate((one for one in arrays if not one.helps), start=1):
        tasks = f"{len(array.packs)} × {array.processes}" if array.processes > 1 else str(len(array.packs))
        if extra := sum(helpers[pack] for pack in array.packs):
            tasks += f" + {extra} that help"
        cells = sum(map(len, array.packs))
        after = [f"{index + 1}, task by task" for index in array.after.each]
        after += [str(index + 1) for index in array.after.all] + [f"job {job}" for job in array.after.jobs]
        after += [f"{index + 1} task {task}" for index, task in array.after.some]
        numbers = [tasks, str(array.max_parallel or ""), str(cells), str(array.resources.minutes)]
        of = sorted({by[one] for pack in array.packs for one in pack})
        labels = [array.stage, ", ".join(of), array.name, array.resources.gres or ""]
        rows.append([str(number), *labels, *numbers, "; ".join(after)])
    headers = ["array", "tasks", "parallel", "cells", "minutes"]
    out.print(f"\njob arrays ({sum(c.id in in_queue for c in schedule.grid.cells)} cells are in the queue already):")
    out.print(screen.table(["array", "stage", "of", "class", "gres", *headers[1:], "after"], rows, right=headers))
    requested = [array.resources for array in arrays]
    if (warning := accelerator_warning(requested, arguments.device, schedule.grid.dataset.image_size)) is not None:
        out.print(warning, markup=False)
