"""Say how the grids of a store stand: what is done, running, queued, failed, and why.

What runs says so itself, by a heartbeat in the store; squeue and sacct are asked about what was submitted to Slurm.

``--json`` prints one object on one line: ``schema``, 1; and ``grids``, the newest grid (``--all``: every one), each
with its ``id``; ``asked``, when it was asked for last (ISO 8601, UTC); ``counts``, how many cells of each stage are in
each state; and ``cells``, in which every cell has ``id``, ``stage``, ``state`` (done, running, queued, failed, blocked
or todo), ``why`` (failed: the reason; queued: what it waits for; blocked: what it stands on; else mostly empty), and,
or null: ``done`` and ``total`` steps, ``metrics``, ``seconds_left``, ``host``, ``process``, ``job`` (as squeue names
it), ``log`` and ``err`` (paths of its last task's output)."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.cli import options as flags
from bench.cli import screen
from bench.errors import UserError, unknown
from bench.store.cell import STAGES

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from bench.planning.manifest import Manifest
    from bench.slurm.status import Outlook, Standing
    from bench.store.artifacts import Store

HELP = "what is done, running, queued and failed, and why"
EXAMPLES = """examples:
  python -m bench status
  python -m bench status --watch                        until nothing is running or queued
  python -m bench status --all --store /shared/me/bench   every grid, not just the newest
  python -m bench status --json | jq '.grids[0].cells[] | select(.state == "failed") | .err'
"""
_EVERY = 2.0  # seconds between two looks of --watch
_BUSY = 4  # --watch rests this many times as long as a look takes: large grids take seconds
_MOST_RUNNING = 20  # cells at work that are shown
_MOST_REASONS = 10
_EXAMPLES = 3  # cells shown of those that failed for the same reason


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench status``."""
    flags.store_flag(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--grid", metavar="ID", help="this grid, or the one that begins so (default: the newest)")
    which.add_argument("--all", action="store_true", help="every grid of the store")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="look again and again, until nothing is running or queued")
    how.add_argument("--json", action="store_true", help="for scripts: one object, as described above")


def execute(arguments: argparse.Namespace) -> int:
    """``bench status``; 1 when a cell failed."""
    from bench.planning import manifest
    from bench.slurm.queue import ThrottledSlurm
    from bench.slurm.status import look
    from bench.store.artifacts import Store

    out = screen.console()
    store = Store(flags.existing_store(arguments.store))
    kept = grids(store, None if arguments.all else arguments.grid, arguments.all)
    slurm = ThrottledSlurm()

    def looks() -> list[Outlook]:
        return [look(one.grid, store, slurm) for one in kept]

    if arguments.watch:
        found = _watch(out, kept, looks)
    else:
        found = looks()
        if arguments.json:
            sys.stdout.write(json.dumps({"schema": 1, "grids": list(map(_plain, kept, found))}) + "\n")
        else:
            out.print(_picture(kept, found, out.width))
    for line in manifest.unreadable(store):
        sys.stderr.write(f"bench: left out: {line}\n")
    return 1 if any(one.of("failed") for one in found) else 0


def grids(store: Store, beginning: str | None, every: bool = False) -> list[Manifest]:
    """The newest grid of a store, the one whose id begins so, or every one.

    Raises:
        UserError: there is none.
    """
    from bench.planning import manifest

    kept = manifest.newest_first(store)
    if not kept:
        raise UserError(f"no grid was asked for in {store.root} yet; bench run plans one")
    if beginning is None:
        return kept if every else kept[:1]
    fitting = [one for one in kept if one.grid.id == beginning] or [
        one for one in kept if one.grid.id.startswith(beginning)
    ]
    if not fitting:
        raise unknown("grid", beginning, (one.grid.id for one in kept))
    return fitting[:1]


def _watch(out: Console, kept: list[Manifest], looks: Callable[[], list[Outlook]]) -> list[Outlook]:
    """Show the grids again and again: in place on a terminal, a line a minute in a log. Ctrl-C ends it."""
    from rich.live import Live

    found: list[Outlook] = []
    looked, told = 0, time.monotonic()
    on_screen = Live(console=out, auto_refresh=False) if out.is_terminal else nullcontext()
    with on_screen as live, suppress(KeyboardInterrupt):
        while True:
            began = time.monotonic()
            found = looks()
            looked += 1
            if live is not None:
                live.update(_picture(kept, found, out.width, out.height), refresh=True)
            elif looked == 1:
                out.print(_picture(kept, found, out.width))
            elif began - told >= screen.LINE_EVERY:
                told = began
                out.print(_line(found))
            if all(one.over for one in found):
                break
            time.sleep(max(_EVERY, _BUSY * (time.monotonic() - began)))
    if live is None and looked > 1:
        out.print(_picture(kept, found, out.width))
    return found


def _line(found: list[Outlook]) -> str:
    counts: dict[str, Counter[str]] = {stage: Counter() for stage in STAGES}
    for one in found:
        for stage in STAGES:
            counts[stage].update(one.counts(stage))
    everything = sum(counts.values(), Counter())
    now = datetime.now(UTC).strftime("%H:%M:%S UTC")
    return f"{now}  {screen.summary(counts)}  {everything['running']} running, {everything['queued']} queued"


def _picture(kept: list[Manifest], found: list[Outlook], width: int, height: int | None = None) -> RenderableType:
    from bench.slurm.status import STATES

    parts: list[RenderableType] = []
    for manifest, outlook in zip(kept, found, strict=True):
        asked = manifest.asked[:16].replace("T", " ")
        parts.append(Text.assemble((outlook.grid.id, "bold"), f"  {len(outlook.cells)} cells, asked {asked} UTC"))
        parts.append(screen.stages({stage: outlook.counts(stage) for stage in STAGES if outlook.counts(stage)}, STATES))
        most = _MOST_RUNNING if height is None else max(1, min(_MOST_RUNNING, (height - 25) // 2))
        parts += _running(outlook, width, most)
        parts += _waiting(outlook)
        parts += _stopped(outlook)
        parts += _failed(outlook)
        parts.append("")
    return Group(*parts[:-1])


def _running(outlook: Outlook, width: int, most: int) -> Iterator[RenderableType]:
    running = outlook.of("running")
    if not running:
        return
    yield Text(f"\nrunning: {len(running)}", style="bold")
    yield screen.at_work([screen.AtWork(one.cell.id, one.beat, _where(one)) for one in running[:most]], width)
    if len(running) > most:
        yield f"  … and {len(running) - most} more"


def _where(one: Standing) -> str:
    process = f"process {one.beat.pid}" if one.beat and not one.job else ""
    job = f"job {one.job}" if one.job else ""
    return ", ".join(part for part in (one.host, job, process, one.why) if part)


def _waiting(outlook: Outlook) -> Iterator[RenderableType]:
    """What queued cells wait for, in Slurm's words."""
    reasons = Counter(one.why for one in outlook.of("queued"))
    if reasons:
        told = [f"{reason} ({count})" for reason, count in reasons.most_common(_MOST_REASONS)]
        yield Text.assemble(("\nqueued: ", "bold"), f"{reasons.total()}; waiting for ", ", ".join(told))


def _stopped(outlook: Outlook) -> Iterator[RenderableType]:
    """Cells whose process is gone; the others that are to do need no word."""
    stopped = [one for one in outlook.of("todo") if one.why]
    if stopped:
        yield Text(f"\nstopped: {len(stopped)}; bench run goes on from what they saved", style="bold")
        yield _examples(stopped, [f"  {one.cell.id}: {one.why}" for one in stopped[:_EXAMPLES]], "  ")


def _failed(outlook: Outlook) -> Iterator[RenderableType]:
    from bench.slurm.status import by_reason

    failed = outlook.of("failed")
    if not failed:
        return
    yield Text(f"\nfailed: {len(failed)}", style="bold red")
    groups = by_reason(failed)
    for group in groups[:_MOST_REASONS]:
        reason = Table.grid(padding=(0, 1))
        reason.add_column(justify="right", no_wrap=True)
        reason.add_column(overflow="fold")
        reason.add_row(f"  {len(group)} ×", Text(group[0].why))
        yield reason
        yield _examples(group, [f"      {one.cell.id}" for one in group[:_EXAMPLES]], "      ")
    if len(groups) > _MOST_REASONS:
        yield f"  … and {len(groups) - _MOST_REASONS} more reasons; --json has all of them"
    yield "  bench show CELL: its traceback; bench logs CELL: its log; bench retry: again"


def _examples(cells: list[Standing], lines: list[str], indent: str) -> Text:
    if len(cells) > len(lines):
        lines = [*lines, f"{indent}… and {len(cells) - len(lines)} more"]
    return Text("\n".join(lines))


def _plain(manifest: Manifest, outlook: Outlook) -> dict[str, Any]:
    """A grid as ``--json`` shows it."""
    from bench.slurm.status import STATES

    return {
        "id": outlook.grid.id,
        "asked": manifest.asked,
        "counts": {stage: {state: outlook.counts(stage)[state] for state in STATES} for stage in STAGES},
        "cells": [_plain_cell(one) for one in outlook.cells.values()],
    }


def _plain_cell(one: Standing) -> dict[str, Any]:
    beat, task = one.beat, one.task
    metrics = {name: value for name, value in beat.metrics.items() if math.isfinite(value)} if beat else None
    return {
        "id": one.cell.id,
        "stage": one.cell.stage,
        "state": one.state,
        "why": one.why,
        "done": beat.done if beat else None,
        "total": beat.total if beat else None,
        "metrics": metrics,
        "seconds_left": beat.seconds_left if beat else None,
        "host": one.host,
        "process": beat.pid if beat else None,
        "job": one.job,
        "log": str(task.out) if task else None,
        "err": str(task.err) if task else None,
    }
