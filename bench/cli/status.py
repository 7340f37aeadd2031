"""Show which cells of the grids of a store are done, running, queued or failed, and why.

Running cells write heartbeats into the store; squeue and sacct are queried for those that were submitted to Slurm.

``--json`` prints one object on one line: ``schema``, 1; and ``grids``, the newest grid (``--all``: every one), each
with its ``id``; ``asked``, the time of the last request (ISO 8601, UTC); ``counts``, the number of cells per stage and
state; and ``cells``, in which every cell has ``id``, ``stage``, ``state`` (done, running, queued, failed, blocked or
todo), ``why`` (failed: the error; queued: the reason; blocked: the failed cell it depends on; else mostly empty), and,
or null: ``done`` and ``total`` steps, ``metrics``, ``seconds_left``, ``host``, ``process``, ``job`` (as squeue writes
it), ``log`` and ``err`` (paths of its last task's output).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from bench.cli import screen
from bench.cli.options import STORE, existing_store
from bench.errors import UserError, unknown
from bench.planning import manifest
from bench.planning.manifest import Manifest
from bench.slurm.journal import last_tasks
from bench.slurm.queue import ThrottledSlurm
from bench.slurm.status import STATES, CellStatus, GridStatus, collect_status, group_by_reason
from bench.store.artifacts import Store
from bench.store.cell import STAGES

ARGUMENTS = f"""
| --grid ID  a grid's id or its beginning (default: the newest)
| --all  every grid of the store
{STORE}
| --watch  update until nothing is running or queued
| --json  for scripts: one object, as described above
"""
EXAMPLES = """examples:
  python -m bench status
  python -m bench status --watch                        until nothing is running or queued
  python -m bench status --all --store /shared/me/bench   every grid, not just the newest
  python -m bench status --json | jq '.grids[0].cells[] | select(.state == "failed") | .err'
"""
_EVERY = 2.0  # seconds between two looks of --watch
_PAUSE_FACTOR = 4  # --watch pauses this many times as long as a look takes: large grids take seconds
_MOST_REASONS = 10
_EXAMPLES = 3  # cells shown per reason


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench status``; 1 if a cell failed, or a grid can't be read."""
    out, store = screen.console(), existing_store(arguments.store)
    manifests = find_grids(store, None if arguments.all else arguments.grid, arguments.all)
    slurm = ThrottledSlurm()

    def collect() -> list[GridStatus]:
        tasks = last_tasks(store)
        return [collect_status(one.grid, store, tasks, slurm) for one in manifests]

    if arguments.watch:
        found = _watch(out, manifests, collect)
    else:
        found = collect()
        if arguments.json:
            sys.stdout.write(json.dumps({"schema": 1, "grids": list(map(_plain, manifests, found))}) + "\n")
        else:
            out.print(_render(manifests, found, out.width))
    unreadable = manifest.unreadable(store)
    for line in unreadable:
        sys.stderr.write(f"bench: left out: {line}\n")
    return 1 if unreadable or any(one.of("failed") for one in found) else 0


def find_grids(store: Store, beginning: str | None, every: bool = False) -> list[Manifest]:
    """Return the newest grid of a store, the one whose id begins so, or every one.

    Raises:
        UserError: there is none.
    """
    known = manifest.newest_first(store)
    if not known:
        if wrong := manifest.unreadable(store):
            raise UserError(f"{store.root} has no grid that can be read: {'; '.join(wrong)}")
        raise UserError(f"{store.root} has no grid yet; bench run plans one")
    if beginning is None:
        return known if every else known[:1]
    found = [one for one in known if one.grid.id.startswith(beginning)]
    if not found:
        raise unknown("grid", beginning, (one.grid.id for one in known))
    return [min(found, key=lambda one: len(one.grid.id))]  # the newest of those whose id is shortest: the whole id


def _watch(out: Console, manifests: list[Manifest], collect: Callable[[], list[GridStatus]]) -> list[GridStatus]:
    """Show the grids until they are over or Ctrl-C; in a log, whole at first and at last."""
    found, pause = collect(), _EVERY
    if not out.is_terminal:
        out.print(_render(manifests, found, out.width))
    with screen.LiveDisplay(out) as display, suppress(KeyboardInterrupt):
        while not (out.quiet or all(one.over for one in found)):
            if display.due():
                display.show(_render(manifests, found, out.width, out.height), _line(found))
            time.sleep(pause)
            began = time.monotonic()
            found = collect()
            pause = max(_EVERY, _PAUSE_FACTOR * (time.monotonic() - began))
    out.print(_render(manifests, found, out.width))
    return found


def _line(found: list[GridStatus]) -> str:
    counts: dict[str, Counter[str]] = {stage: sum((one.counts(stage) for one in found), Counter()) for stage in STAGES}
    total = sum(counts.values(), Counter())
    now = datetime.now(UTC).strftime("%H:%M:%S UTC")
    return f"{now}  {screen.summary(counts)}  {total['running']} running, {total['queued']} queued"


def _render(manifests: list[Manifest], found: list[GridStatus], width: int, height: int = 1000) -> RenderableType:
    parts: list[RenderableType] = []
    for asked_for, status in zip(manifests, found, strict=True):
        asked = asked_for.asked[:16].replace("T", " ")
        counts: screen.Counts = {stage: status.counts(stage) for stage in STAGES if status.counts(stage)}
        parts += [
            Text.assemble((status.grid.id, "bold"), f"  {len(status.cells)} cells, requested {asked} UTC"),
            screen.stage_table(counts, STATES, width),
            *_details(status, width, max(1, min(screen.MOST_RUNNING, (height - 25) // 2))),
            "",
        ]
    return Group(*parts[:-1])


def _details(status: GridStatus, width: int, most: int) -> Iterator[RenderableType]:
    """Show the running cells, at most ``most``, and why others are queued, stopped or failed."""
    if running := status.of("running"):
        yield Text(f"\nrunning: {len(running)}", style="bold")
        shown = [screen.Running(one.cell.id, one.progress, _where(one)) for one in running[:most]]
        yield screen.running_table(shown, width, more=len(running) - len(shown))
    if reasons := Counter(one.why for one in status.of("queued")):  # in Slurm's words
        waiting = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(_MOST_REASONS))
        yield Text.assemble(("\nqueued: ", "bold"), f"{reasons.total()}; waiting for ", waiting)
    if stopped := [one for one in status.of("todo") if one.why]:  # those whose process is gone
        yield Text(f"\nstopped: {len(stopped)}; bench run resumes them from their checkpoints", style="bold")
        yield _examples([f"{one.cell.id}: {one.why}" for one in stopped], 2)
    if failed := status.of("failed"):
        yield Text(f"\nfailed: {len(failed)}", style="bold red")
        groups = group_by_reason(failed)
        for group in groups[:_MOST_REASONS]:
            yield Padding(Text(f"{len(group)} × {group[0].why}", overflow="fold"), (0, 0, 0, 2))
            yield _examples([one.cell.id for one in group], 6)
        if len(groups) > _MOST_REASONS:
            yield f"  … and {len(groups) - _MOST_REASONS} more reasons; --json has all of them"
        logs = "; bench logs CELL: its log" if any(one.task for one in failed) else ""
        yield f"  bench show CELL: its traceback{logs}; bench retry: again"


def _where(one: CellStatus) -> str:
    process = f"process {one.progress.pid}" if one.progress and not one.job else ""
    job = f"job {one.job}" if one.job else ""
    return ", ".join(part for part in (one.host, job, process, one.why) if part)


def _examples(lines: list[str], indent: int) -> Padding:
    more = [f"… and {len(lines) - _EXAMPLES} more"] if len(lines) > _EXAMPLES else []
    return Padding(Text("\n".join([*lines[:_EXAMPLES], *more]), overflow="fold"), (0, 0, 0, indent))


def _plain(manifest: Manifest, status: GridStatus) -> dict[str, Any]:
    """Return a grid as ``--json`` prints it."""
    return {
        "id": status.grid.id,
        "asked": manifest.asked,
        "counts": {stage: {state: status.counts(stage)[state] for state in STATES} for stage in STAGES},
        "cells": [_plain_cell(one) for one in status.cells.values()],
    }


def _plain_cell(one: CellStatus) -> dict[str, Any]:
    progress, task = one.progress, one.task
    metrics = {name: value for name, value in progress.metrics.items() if math.isfinite(value)} if progress else None
    return {
        "id": one.cell.id,
        "stage": one.cell.stage,
        "state": one.state,
        "why": one.why,
        "done": progress.done if progress else None,
        "total": progress.total if progress else None,
        "metrics": metrics,
        "seconds_left": progress.seconds_left if progress else None,
        "host": one.host,
        "process": progress.pid if progress else None,
        "job": one.job,
        "log": str(task.out) if task else None,
        "err": str(task.err) if task else None,
    }
