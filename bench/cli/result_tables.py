"""The end of a run on the screen: where the time went, the results, their places, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from bench.cli import screen
from bench.cli.plan_tables import show_changed_code
from bench.format import accuracy, duration, plural
from bench.planning.variants import split
from bench.store.cell import STAGES

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from bench.execution.scheduling import Schedule
    from bench.report.publish import Change
    from bench.report.results import Board
    from bench.store.artifacts import Store

MOST_RESULTS = 40  # rows on the screen


def show_durations(out: Console, schedule: Schedule, store: Store, wall: float) -> None:
    """Show the seconds of the cells that were computed, by stage."""
    if not schedule.computed:
        if not any(state in ("failed", "blocked") for state in schedule.state.values()):
            out.print("nothing to do: every cell was done before")
        return
    seconds: dict[str, list[float]] = {}
    records = [store.record(cell.id) for cell in schedule.computed]
    for record in sorted(filter(None, records), key=lambda record: STAGES.index(record.cell.stage)):
        seconds.setdefault(record.cell.stage, []).append(record.run.seconds)
    rows = [[stage, str(len(own)), f"{sum(own):.1f}", f"{max(own):.1f}"] for stage, own in seconds.items()]
    rows.append(["all", str(len(schedule.computed)), f"{sum(map(sum, seconds.values())):.1f}", ""])
    numbers = ("cells", "seconds", "longest")
    out.print("\nwhere the time went (seconds of the cells, which run in parallel with --jobs):")
    out.print(screen.table(["stage", *numbers], rows, right=numbers))
    out.print(f"{duration(wall)} in all")


def show_results(out: Console, board: Board, cells: set[str]) -> None:
    """Show the rows of a grid that are measured, best mean first."""
    from bench.report.columns import label_bytes
    from bench.report.rows import pool, records

    if board.rows is None:
        return
    asked = board.frame["cell"].isin(cells)
    rows = board.rows if asked.all() else pool(board.frame[asked])  # other seeds of a row are of other requests
    rows = rows[rows["n"] > 0]
    if rows.empty:
        return
    rows = rows.sort_values(["protocol", "ipc", "student", "top1_mean"], ascending=[True, True, True, False])
    score = f"{rows['metric'].iloc[0]} %"
    lines = [
        {"method": escape(_short(one.method)), "labels": escape(one.labels),
         "IPC": "full data" if one.ipc is None else str(one.ipc), "student": escape(one.student), "n": str(one.n),
         score: accuracy(one.top1_mean, one.top1_std), "label bytes": label_bytes(one)}
        for one in records(rows[:MOST_RESULTS])
    ]  # fmt: skip
    same = [name for name in ("student", "n") if len({line[name] for line in lines}) == 1]
    shown = [name for name in lines[0] if name not in same]
    out.print("\nresults" + (" of " + ", ".join(f"{name} {lines[0][name]}" for name in same) if same else "") + ":")
    numbers = [name for name in shown if name not in ("method", "labels", "student")]
    out.print(screen.table(shown, [[line[name] for name in shown] for line in lines], right=numbers))
    if len(rows) > MOST_RESULTS:
        out.print(f"… and {len(rows) - MOST_RESULTS} more rows on the board")
    if unfinished := int((board.frame["state"][~asked] != "done").sum()):
        out.print(
            f"the board also holds {plural(unfinished, 'student')} of other requests, not done; to finish them, run "
            "what it says under “To reproduce”; for a board without them choose another --store and --out"
        )


def _short(method: str) -> str:
    """Return a method as the screen names it: without settings of the teacher, which ``--set`` gives to all."""
    name, bracket, inner = method.partition("[")
    settings = [one for one in split(inner.removesuffix("]")) if not one.startswith("teacher.")] if bracket else []
    return f"{name}[{','.join(settings)}]" if settings else name


def show_places(out: Console, board: Path, change: Change, store: Store | None) -> None:
    """Say where a board and its page are, and the records, unless they are not kept."""
    records = f"; records are in {store.root}" if store else ""
    page = f", with its page {board.with_suffix('.html').name}" if board.with_suffix(".html").is_file() else ""
    out.print(f"\nwrote {board}: {change}{page}{records}", markup=False)


def show_failures(out: Console, schedule: Schedule, store: Store) -> int:
    """Name the cells that failed; 1 if any did."""
    failed = [cell.id for cell in schedule.grid.cells if schedule.state[cell.id] == "failed"]
    for cell_id in failed:
        record = store.failure(cell_id)
        error = record.error if record else "no record"
        out.print(f"failed: {cell_id}: {error}; see bench show {cell_id}", markup=False)
    blocked = sum(state == "blocked" for state in schedule.state.values())
    if failed:
        out.print(f"{len(failed)} failed, {blocked} depend on them; run the same command to try again")
        show_changed_code(out, schedule)
    return 1 if failed else 0
