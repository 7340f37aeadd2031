"""What people see while they wait and when it is over: the only place that writes to the screen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.store.cell import STAGES

if TYPE_CHECKING:
    from bench.execution.scheduling import Schedule
    from bench.slurm.status import Beat
    from bench.store.artifacts import Store

LINE_EVERY = 60.0  # seconds between two lines in a log
_LOG_WIDTH = 160  # columns of a table where nobody's screen sets them
_MOST_RUNNING = 20  # cells shown at work

Counts = Mapping[str, Mapping[str, int]]  # stage -> state -> cells
_WORDS = {"todo": "to do"}
_COLOURS = {"done": "green", "running": "cyan", "failed": "red", "blocked": "yellow"}


def console() -> Console:
    """Standard output; colours and boxes only where a person looks (rich heeds NO_COLOR)."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, soft_wrap=True, width=int(os.environ.get("COLUMNS") or _LOG_WIDTH))


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


def plural(count: int, what: str) -> str:
    """``1 cell``, ``2 cells``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def time_left(seconds: float | None) -> str:
    """125 → ``2 min left``; nothing where nothing is known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min left"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min left" if hours < 48 else f"{hours // 24} d {hours % 24} h left"


def bar(width: int, done: int, running: int, total: int) -> Text:
    """``████▒▒░░░░``: full only when everything is done."""
    full = width * done // max(1, total)
    begun = width * (done + running) // max(1, total) - full
    drawn = Text().append("█" * full, style=_COLOURS["done"]).append("▒" * begun, style=_COLOURS["running"])
    return drawn.append("░" * (width - full - begun), style="dim")


def stages(counts: Counts, states: Sequence[str]) -> Table:
    """A line a stage: a bar, and how many of its cells are in each of ``states``."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    made.add_column("stage", no_wrap=True)
    made.add_column("", no_wrap=True)
    for state in states:
        made.add_column(_WORDS.get(state, state), justify="right", no_wrap=True)
    for stage, found in counts.items():
        numbers = [
            Text(str(count), style=_COLOURS.get(state, "")) if (count := found.get(state, 0)) else Text("·", "dim")
            for state in states
        ]
        drawn = bar(16, found.get("done", 0), found.get("running", 0), sum(found.values()))
        made.add_row(stage, drawn, *numbers)
    return made


def summary(counts: Counts) -> str:
    """The same on one line."""
    parts = []
    for stage, found in counts.items():
        if total := sum(found.values()):
            failed = f" ({found['failed']} failed)" if found.get("failed") else ""
            parts.append(f"{stage} {found.get('done', 0)}/{total}{failed}")
    return "  ".join(parts)


class AtWork(NamedTuple):
    """A running cell, as it is shown."""

    cell: str
    beat: Beat | None
    note: str = ""  # where it runs, or why nothing is known of it


def at_work(cells: Sequence[AtWork], width: int) -> Text:
    """How far running cells are: a line each, or two where ``width`` columns don't hold one."""
    longest = max((len(one.cell) for one in cells), default=0)
    wide = 48 + longest + max((len(one.note) for one in cells), default=0) <= width
    lines = Text()
    for one in cells:
        fraction = one.beat.fraction if one.beat else 0.0
        lines.append("\n" if lines else "").append(f"  {one.cell:{longest}}  " if wide else f"  {one.cell}\n      ")
        lines.append(bar(10, int(1000 * fraction), 0, 1000))
        left = time_left(one.beat.seconds_left if one.beat else None)
        lines.append(f" {fraction:4.0%}  {left:16}  {one.note}".rstrip())
    return lines


@contextmanager
def work_bar(out: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for one long piece of work; yields the function that moves it."""
    from rich.progress import Progress

    with Progress(console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class LiveRun:
    """Follows a run: bars on a terminal, one line a minute in a log.

    Args:
        ctrl_c: what Ctrl-C does.
    """

    def __init__(self, store: Store, out: Console, ctrl_c: str = "stops, and nothing is lost"):
        self.store, self.out, self.ctrl_c = store, out, ctrl_c
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
        elif time.monotonic() - self.last_line >= LINE_EVERY:
            self.last_line = time.monotonic()
            self.out.print(self._line(schedule))

    def _line(self, schedule: Schedule) -> str:
        cells, more = self._running(schedule)
        now = [f"{one.cell} {one.beat.fraction:.0%}" if one.beat else one.cell for one in cells]
        now += [f"and {more} more"] if more else []
        spent = duration(time.monotonic() - self.started)
        return f"{spent:>12}  {summary(_counts(schedule))}  now: {'; '.join(now) or 'nothing'}"

    def _running(self, schedule: Schedule) -> tuple[list[AtWork], int]:
        """The first of the running cells, and how many more there are; heartbeats are read of those alone."""
        from bench.slurm.status import read_beat

        count = sum(found.get("running", 0) for found in _counts(schedule).values())
        running = (cell.id for cell in schedule.grid.cells if schedule.state[cell.id] == "running")
        shown = list(islice(running, min(count, _MOST_RUNNING)))
        return [AtWork(cell_id, read_beat(self.store, cell_id)) for cell_id in shown], count - len(shown)

    def _picture(self, schedule: Schedule) -> RenderableType:
        counts = {stage: found for stage, found in _counts(schedule).items() if found}
        cells, more = self._running(schedule)
        parts: list[RenderableType] = [stages(counts, ("done", "running", "failed", "blocked", "todo"))]
        if cells:
            parts.append(at_work(cells, self.out.width))
        if more:
            parts.append(f"  … and {more} more")
        parts.append(f"{duration(time.monotonic() - self.started)} so far; Ctrl-C {self.ctrl_c}")
        return Group(*parts)


def _counts(schedule: Schedule) -> dict[str, Mapping[str, int]]:
    return {stage: schedule.counts(stage) for stage in STAGES}
