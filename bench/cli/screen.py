"""Output for people: tables, progress and numbers in words. The only place that knows the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bench.errors import printable
from bench.execution import heartbeat
from bench.execution.heartbeat import CellProgress
from bench.execution.scheduling import Schedule
from bench.format import duration
from bench.planning.cost_estimate import LikeCells
from bench.store.artifacts import Store
from bench.store.cell import STAGES

LINE_EVERY = 60.0  # seconds between two lines in a log
_MIN_WIDTH = 40  # columns; COLUMNS below that is ignored
_LOG_WIDTH = 160  # columns without a terminal
MOST_RUNNING = 20  # running cells shown
_BAR = 16  # columns
_MAX_NAME, _MAX_WORD = 24, 10  # characters that a narrow screen doesn't break, in the first column and others

Counts = Mapping[str, Mapping[str, int]]  # stage -> state -> cells
_COLOURS = {"done": "green", "running": "cyan", "failed": "red", "blocked": "yellow"}


def prepare_output() -> None:
    """Replace characters that the encoding of the output lacks, and ignore a COLUMNS that is no usable width.

    Closed streams are as if they were thrown away.
    """
    nowhere = Path(os.devnull)
    sys.stdout, sys.stderr = (stream or nowhere.open("w") for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    columns = os.environ.get("COLUMNS", "")
    if not (columns.isdecimal() and int(columns) >= _MIN_WIDTH):
        os.environ.pop("COLUMNS", None)


class _Printable(Console):
    """A console on which text that comes from elsewhere, names say, moves no cursor and changes no colour."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, keep="\n"), style, control)

    def print(self, *objects: Any, **how: Any) -> None:
        """Break prose between words on a terminal; a log's lines and tables stay whole."""
        how.setdefault("soft_wrap", not self.is_terminal or any(isinstance(one, Table) for one in objects))
        super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        """Go on in silence, as `bench run | head` expects: what is computed needs no reader."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Console:
    """Return standard output; styled only on a terminal (rich heeds NO_COLOR)."""
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", _LOG_WIDTH))
    return _Printable(highlight=False, emoji=False, width=width)


class _Table(Table):
    """A plain table whose lines are longer than the screen rather than to break words."""

    def __init__(self) -> None:
        super().__init__(box=None, pad_edge=False, header_style="bold", show_edge=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least = sum((column.min_width or 0) + 2 for column in self.columns)
        return super().__rich_console__(console, options.update_width(max(options.max_width, least)))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """Return a plain table, whose words are not broken; ``right`` names the columns that hold numbers."""
    made = _Table()
    for index, column in enumerate(columns):
        texts = [column, *(row[index] for row in rows)]
        most = _MAX_NAME if index == 0 else _MAX_WORD
        words = [word[:most] for text in texts for word in text.split()]
        justify: Literal["left", "right"] = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold", min_width=max(map(len, words)))
    for row in rows:
        made.add_row(*row)
    return made


def stage_table(counts: Counts, states: Sequence[str], width: int) -> Table:
    """Return a table with a line per stage: a bar, and the number of cells in each state that occurs."""
    shown = [state for state in states if any(found.get(state) for found in counts.values())]
    headers = ["to do" if state == "todo" else state for state in shown]
    bars = _BAR + sum(len(text) + 1 for text in ["evaluate", *headers]) <= width
    made = _Table()
    made.add_column("stage", min_width=max(map(len, STAGES)))
    if bars:
        made.add_column("", min_width=_BAR)
    for text in headers:
        made.add_column(text, justify="right", min_width=len(text))
    for stage, found in counts.items():
        numbers = [Text(str(found.get(state) or "·"), _COLOURS.get(state, "")) for state in shown]
        total = sum(found.values())
        bar = [ProgressBar(total=max(1, total), completed=found.get("done", 0), width=_BAR)] if bars else []
        made.add_row(stage, *bar, *numbers)
    return made


def summary(counts: Counts) -> str:
    """Return the same in one line."""
    parts = []
    for stage, found in counts.items():
        if total := sum(found.values()):
            failed = f" ({found['failed']} failed)" if found.get("failed") else ""
            parts.append(f"{stage} {found.get('done', 0)}/{total}{failed}")
    return "  ".join(parts)


class Running(NamedTuple):
    """A running cell."""

    cell: str
    progress: CellProgress | None
    note: str = ""  # where it runs, or why its progress is unknown


def running_table(cells: Sequence[Running], width: int, more: int = 0) -> RenderableType:
    """Return a table with a line per running cell: bar, percentage, time left; two on a narrow screen.

    Args:
        more: the number of running cells that are not shown.
    """
    longest = max((len(one.cell) for one in cells), default=0)
    wide = longest + 40 + max((len(one.note) for one in cells), default=0) <= width
    made = Table.grid(padding=(0, 1))
    made.add_column(min_width=1)
    for one in cells:
        fraction = one.progress.fraction if one.progress else 0.0
        seconds = one.progress.seconds_left if one.progress else None
        facts = [f"{fraction:4.0%}", "" if seconds is None else f"{duration(seconds)} left", one.note]
        if wide:
            made.add_row("", one.cell, ProgressBar(total=1.0, completed=fraction, width=10), *facts)
        else:
            made.add_row("", one.cell)
            made.add_row("", "  " + "  ".join(filter(None, facts)))
    return Group(made, f"  … and {more} more") if more else made


@contextmanager
def progress_bar(out: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal; yield the function that moves it."""
    from rich.progress import Progress

    with Progress(console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class LiveDisplay:
    """Output that changes: in place on a terminal, a line per minute in a log."""

    def __init__(self, out: Console):
        from rich.live import Live

        self.out, self.live = out, Live(console=out, auto_refresh=False, transient=True)
        self.started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def due(self) -> bool:
        """Return whether to show something now."""
        if not self.out.is_terminal and time.monotonic() - self._last_line < LINE_EVERY:
            return False
        self._last_line = time.monotonic()
        return True

    def show(self, whole: RenderableType, line: str) -> None:
        """Show the whole on a terminal, or the line in a log."""
        if self.out.is_terminal:
            self.live.update(whole, refresh=True)
        else:
            self.out.print(line)


class LiveRun(LiveDisplay):
    """The display of a run.

    Args:
        jobs: maximum parallel cells; None: not known, and neither is the time left.
        ctrl_c: the effect of Ctrl-C.
    """

    def __init__(self, store: Store, out: Console, jobs: int | None = None, ctrl_c: str = "stops, and nothing is lost"):
        super().__init__(out)
        self.store, self.jobs, self.ctrl_c = store, jobs, ctrl_c
        self.like, self.learnt = LikeCells(store if jobs else None), 0

    def update(self, schedule: Schedule) -> None:
        """Show the state of a run; heartbeats are read of the cells shown alone."""
        if not self.due():
            return
        counts: Counts = {stage: found for stage in STAGES if (found := schedule.counts(stage))}
        ids = [cell.id for cell in schedule.grid.cells if schedule.state[cell.id] == "running"]
        shown = [Running(cell_id, heartbeat.read(self.store, cell_id)) for cell_id in ids[:MOST_RUNNING]]
        more, elapsed = len(ids) - len(shown), duration(time.monotonic() - self.started)
        left = self._left(schedule, shown)
        stages = stage_table(counts, ("done", "running", "failed", "blocked", "todo"), self.out.width)
        cells = [running_table(shown, self.out.width, more)] if shown else []
        now = [f"{one.cell} {one.progress.fraction:.0%}" if one.progress else one.cell for one in shown]
        now += [f"and {more} more"] if more else []
        self.show(
            Group(stages, *cells, f"{elapsed} so far{left and f', {left}'}; Ctrl-C {self.ctrl_c}"),
            f"{elapsed:>12}  {summary(counts)}{left and f'  {left}'}  now: {'; '.join(now) or 'nothing'}",
        )

    def _left(self, schedule: Schedule, shown: Sequence[Running]) -> str:
        """Say how long the rest takes, by cells like it and the pace of those that run; empty: nothing is known."""
        if self.jobs is None:
            return ""
        self.like.learn(schedule.computed[self.learnt :])
        self.learnt = len(schedule.computed)
        rest = (cell for cell in schedule.grid.cells if schedule.state[cell.id] in ("todo", "running"))
        return self.like.left(rest, {one.cell: one.progress.seconds_left for one in shown if one.progress}, self.jobs)
