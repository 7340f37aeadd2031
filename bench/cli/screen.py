"""What people see while they wait and when it is over: the only place that writes to the screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from bench.harness.identity import STAGES

if TYPE_CHECKING:
    from bench.harness.schedule import Schedule
    from bench.harness.store import Store

_LINE_EVERY = 60.0  # seconds between two lines in a log


def console() -> Console:
    """Standard output; colours and boxes only where a person looks (rich heeds NO_COLOR)."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A plain table; ``right`` names the columns that hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def human_bytes(count: int) -> str:
    """1536 → ``1.5 KiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def duration(seconds: float) -> str:
    """75 → ``1 min 15 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@contextmanager
def work_bar(out: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for one long piece of work; yields the function that moves it."""
    from rich.progress import Progress

    with Progress(console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class LiveRun:
    """Follows a run: bars on a terminal, one line a minute in a log."""

    def __init__(self, store: Store, out: Console):
        self.store, self.out = store, out
        self.live = None
        if out.is_terminal:
            from rich.live import Live

            self.live = Live(console=out, refresh_per_second=4, transient=True)
        self.started = self.last_line = time.monotonic()

    def __enter__(self) -> LiveRun:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def update(self, schedule: Schedule) -> None:
        """Show where a run is."""
        if self.live:
            self.live.update(self._picture(schedule))
        elif time.monotonic() - self.last_line >= _LINE_EVERY:
            self.last_line = time.monotonic()
            self.out.print(self._line(schedule))

    def _line(self, schedule: Schedule) -> str:
        parts = []
        for stage in STAGES:
            counts = schedule.counts(stage)
            if total := counts.total():
                failed = f" ({counts['failed']} failed)" if counts["failed"] else ""
                parts.append(f"{stage} {counts['done']}/{total}{failed}")
        running = [self._running(cell.id) for cell in schedule.grid.cells if schedule.state[cell.id] == "running"]
        return f"{duration(time.monotonic() - self.started):>12}  {'  '.join(parts)}  now: {'; '.join(running)}"

    def _running(self, cell_id: str) -> str:
        beat = self.store.heartbeat(cell_id)
        if beat is None or not beat.get("total"):
            return cell_id
        return f"{cell_id} {int(str(beat['done'])) / int(str(beat['total'])):.0%}"

    def _picture(self, schedule: Schedule) -> RenderableType:
        grid = Table(box=None, pad_edge=False, show_header=False)
        for stage in STAGES:
            counts = schedule.counts(stage)
            if not (total := counts.total()):
                continue
            notes = [f"{counts[state]} {state}" for state in ("running", "failed", "blocked") if counts[state]]
            bar = ProgressBar(total=total, completed=counts["done"], width=30)
            grid.add_row(stage, bar, f"{counts['done']}/{total}", ", ".join(notes))
        running = Table(box=None, pad_edge=False, show_header=False)
        for cell in schedule.grid.cells:
            if schedule.state[cell.id] == "running":
                beat = self.store.heartbeat(cell.id) or {}
                done, total = int(str(beat.get("done", 0))), int(str(beat.get("total", 1))) or 1
                running.add_row(
                    "  " + cell.id, ProgressBar(total=total, completed=done, width=16), f"{done / total:.0%}"
                )
        return Group(
            grid, running, f"{duration(time.monotonic() - self.started)} so far; Ctrl-C stops, nothing is lost"
        )
