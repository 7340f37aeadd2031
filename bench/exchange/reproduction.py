"""A row of a committed board, run again: which of its cells, and how the numbers compare. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import UserError, unknown
from bench.planning.grid import Grid
from bench.planning.protocols import unchanged
from bench.report.results import to_frame
from bench.report.rows import pool, records
from bench.store.cell import Cell
from bench.store.entries import Entry, in_order
from bench.store.record import Record

COST = "cost"  # the metric of entries without an accuracy
_SCALE = re.compile(r"ipc(\d+|full)")
_SEED = re.compile(r"s(?:eed)?(\d+)")
_NAMES = ("method", "labels", "student", "protocol", "dataset")  # of an entry, which a word may name
_HARDWARE = ("cpu", "device", "accelerator", "threads", "processes")
_NOT_VERSIONS = (*_HARDWARE, "commit", "local_edits", "distill-bench", "code_drift", "python")


@dataclass(frozen=True)
class Chosen:
    """A row (a tuple of :func:`bench.report.rows.records`), and those of its done cells that are to be run again."""

    row: Any
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Again:
    """A number of the board beside the one that was measured now (fractions), and whether all bits are the same."""

    entry: Entry
    measured: float
    same_bits: bool

    @property
    def delta(self) -> float:
        """Measured - recorded."""
        assert self.entry.top1 is not None
        return self.measured - self.entry.top1


def choose(words: Sequence[str], entries: Sequence[Entry]) -> Chosen:
    """The row that words name: the id of a cell or its beginning, or names as they stand on the board.

    ``hello projector ipc10 s0``: a method, labels, a student, a protocol or a data set by name, ``ipc10`` (or
    ``ipcfull``), and the distillation seeds ``s0``.

    Raises:
        UserError: they name no row, several, or one without a number.
    """
    if len(words) == 1 and not any(_fits(words[0], entry) for entry in entries):
        fitting = {entry.cell: entry for entry in entries if entry.cell.startswith(words[0])}
    else:
        fitting = {entry.cell: entry for entry in entries if all(_fits(word, entry) for word in words)}
    if not fitting:
        raise _nothing(words, entries)
    rows = pool(to_frame(in_order(entry for entry in entries if entry.metric != COST)))
    found = [(row, [fitting[cell] for cell in row.cells if cell in fitting]) for row in records(rows)]
    found = [(row, own) for row, own in found if own]
    if exact := [pair for pair in found if pair[0].method in words]:  # hello alone is not hello[conv_rank=4]
        found = exact
    if len(found) > 1:
        shown = "; ".join(title(row) for row, _ in found[:3]) + (f"; {len(found) - 3} more" if len(found) > 3 else "")
        raise UserError(f"{' '.join(words)} names {len(found)} rows: {shown}; say more of one")
    row, own = found[0]
    done = tuple(entry for entry in own if entry.state == "done")
    if not done:
        raise UserError(f"{title(row)} has no number to reproduce: {row.states}")
    return Chosen(row, done)


def title(row: Any) -> str:
    """The words that name a row."""
    scale = "ipcfull" if row.ipc is None else f"ipc{row.ipc}"
    return f"{row.dataset} {row.method} {row.labels!r} {scale} {row.student} {row.protocol}"


def _fits(word: str, entry: Entry) -> bool:
    if scale := _SCALE.fullmatch(word):
        return scale[1] == ("full" if entry.ipc is None else str(entry.ipc))
    if seed := _SEED.fullmatch(word):
        return int(seed[1]) == entry.seed
    return word == entry.base or any(getattr(entry, name) == word for name in _NAMES)


def _nothing(words: Sequence[str], entries: Sequence[Entry]) -> UserError:
    for word in words:
        if not any(_fits(word, entry) for entry in entries):
            scales = {"ipcfull" if entry.ipc is None else f"ipc{entry.ipc}" for entry in entries}
            known = {str(getattr(entry, name)) for entry in entries for name in _NAMES}
            known |= {entry.base for entry in entries}
            return unknown("word of a row", word, known | scales | {f"s{entry.seed}" for entry in entries})
    return UserError(f"no row of the boards is all of {', '.join(words)}; bench report shows them")


def find(grid: Grid, entries: Iterable[Entry]) -> tuple[dict[str, Entry], list[str]]:
    """The cells of a grid that make entries again: id -> entry; and what to say of cells whose identity changed.

    Raises:
        UserError: the grid has no such cell.
    """
    students = grid.stage("evaluate")
    ids = {cell.id for cell in students}
    found: dict[str, Entry] = {}
    notes = []
    for entry in entries:
        if entry.cell in ids:
            found[entry.cell] = entry
            continue
        same = next((cell for cell in students if _stands_for(cell, entry)), None)
        if same is None:
            raise UserError(
                f"{entry.cell} can't be planned from what its entry says: there is no such row in the grid of "
                f"{', '.join(grid.request.methods)} here; bench diff shows what an entry knows"
            )
        found[same.id] = entry
        notes.append(f"{entry.cell} is {same.id} here: a version, a default or the data has changed since")
    return found, notes


def _stands_for(cell: Cell, entry: Entry) -> bool:
    row = cell.row
    names = ("method", "labels", "ipc", "student", "seed", "protocol")
    return all(row[name] == getattr(entry, name) for name in names) and row.get("student_seed") == entry.student_seed


def again(record: Record, entry: Entry) -> Again:
    """What was measured now beside what the board says."""
    result = record.result
    curve = tuple((int(epoch), float(top1)) for epoch, top1 in result.get("curve", ()))
    same = result["top1"] == entry.top1 and result["oracle_top1"] == entry.oracle_top1
    same = same and result["image_bytes"] == entry.image_bytes and result["label_bytes"] == entry.label_bytes
    return Again(entry, result["top1"], same and (not entry.curve or curve == entry.curve))


def verdict(row: Any, results: Sequence[Again], here: dict[str, str]) -> tuple[str, bool]:
    """One sentence, and whether the row was reproduced: to the last bit, or within its 95 % interval.

    Δ is the mean over the cells that were run again.
    """
    if all(one.same_bits for one in results):
        return "reproduced to the last bit", True
    delta = sum(one.delta for one in results) / len(results)
    said = f"Δ {100 * delta:+.2f} points"
    why = _why_other_bits(results, here)
    if row.top1_low is None:
        return f"{said}; the row has one distilled set, so no interval to hold it against; {why}", True
    inside = bool(row.top1_low <= row.top1_mean + delta <= row.top1_high)
    bounds = " to ".join(f"{100 * (bound - row.top1_mean):+.2f}" for bound in (row.top1_low, row.top1_high))
    where = "inside" if inside else "outside"
    return f"{said}, {where} the recorded 95 % interval of {bounds} (n = {row.n}); {why}", inside


def _why_other_bits(results: Sequence[Again], here: dict[str, str]) -> str:
    """Bits are the same on the same kind of CPU with the same number of threads and the same versions."""
    recorded = results[0].entry.environment
    names = [name for name in dict.fromkeys([*recorded, *here]) if name in _HARDWARE or name not in _NOT_VERSIONS]
    other = [f"{name} {recorded.get(name, 'none')} → {here.get(name, 'none')}" for name in names
             if recorded.get(name) != here.get(name)]  # fmt: skip
    if other:
        return "computed elsewhere: " + ", ".join(other)
    return "the CPU, the threads and the versions are the recorded ones, so the code or the data is another"


def checked_protocol(row: Any, known: Collection[str], given: bool) -> None:
    """Refuse a row whose protocol is nobody's here.

    Raises:
        UserError: it came from a file of somebody's own.
    """
    if not given and unchanged(row.protocol) not in known:
        raise UserError(
            f"protocol {row.protocol!r} is none of this installation's (bench list protocols), so it came from a file; "
            "name it with --protocol FILE.toml"
        )
