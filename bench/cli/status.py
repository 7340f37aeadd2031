"""Say what of the grids of a store is done, running, failed and still to do."""

from __future__ import annotations

import argparse

from bench.cli import options as flags
from bench.cli import screen
from bench.harness.identity import STAGES

HELP = "what is done, running and failed"
EXAMPLES = """examples:
  python -m bench status
  python -m bench status --store /shared/me/bench
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench status``."""
    flags.store_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """``bench status``; 1 when a cell failed."""
    from bench.harness import manifest
    from bench.harness.schedule import survey
    from bench.harness.store import Store

    out = screen.console()
    store = Store(flags.existing_store(arguments.store))
    failed = False
    for kept in manifest.newest_first(store):
        schedule = survey(kept.grid, store, check_files=False)
        for cell in kept.grid.cells:
            if schedule.state[cell.id] == "todo":
                if store.heartbeat(cell.id) is not None:
                    schedule.state[cell.id] = "running"
                elif store.failure(cell.id) is not None:
                    schedule.state[cell.id] = "failed"
        rows = []
        for stage in STAGES:
            counts = schedule.counts(stage)
            total = counts.total()
            full = round(10 * counts["done"] / total) if total else 0
            bar = "█" * full + "░" * (10 - full)
            rows.append([stage, bar, *(str(counts[state]) for state in ("done", "running", "failed", "todo"))])
        out.print(f"{kept.grid.id}  (asked {kept.asked[:16].replace('T', ' ')} UTC)")
        out.print(screen.table(["stage", "", "done", "running", "failed", "to do"], rows, right=_NUMBERS))
        for cell in kept.grid.cells:
            if schedule.state[cell.id] == "running":
                out.print(f"  running: {cell.id} {_progress(store.heartbeat(cell.id) or {})}")
            if (failure := store.failure(cell.id)) is not None and schedule.state[cell.id] == "failed":
                out.print(f"  failed: {cell.id}: {failure.error}")
                failed = True
        out.print("")
    return 1 if failed else 0


_NUMBERS = ("done", "running", "failed", "to do")


def _progress(beat: dict[str, object]) -> str:
    return f"{beat.get('done')}/{beat.get('total')} on {beat.get('host')}, process {beat.get('pid')}"
