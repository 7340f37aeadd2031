"""A row of a board, computed again: which of its cells, and how the numbers compare."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import variance
from typing import Any, NamedTuple

import pandas as pd
from scipy.stats import t

from bench.errors import UserError, unknown
from bench.planning.grid import Grid
from bench.report.rows import pool, records
from bench.store.record import Record

_IPC, _SEED = re.compile(r"ipc(\d+|full)"), re.compile(r"s(?:eed)?(\d+)")
_NAMES = ["base", "method", "labels", "student", "protocol", "dataset"]  # what a word may name
_SAME = ("method", "labels", "ipc", "student", "seed", "protocol", "student_seed")  # of cells that are the same run
_RESULT = ("top1", "oracle_top1", "image_bytes", "label_bytes")
PROCESSOR = ("cpu", "instructions")  # facts that do not change the bits of portable kernels
IGNORED = ("commit", "local_edits", "distill-bench", "code_drift", "python")  # facts that do not change bits


class Again(NamedTuple):
    """A recorded number, the one measured now (fractions), and whether all bits are the same."""

    record: Any
    measured: float
    same_bits: bool

    @classmethod
    def of(cls, record: Record, recorded: Any) -> Again:
        """Hold what was measured now against what the board says."""
        result = record.result
        curve = tuple((int(epoch), float(top1)) for epoch, top1 in result.get("curve", ()))
        same = all(result[name] == getattr(recorded, name) for name in _RESULT)
        return cls(recorded, result["top1"], same and (not recorded.curve or curve == tuple(recorded.curve)))

    @property
    def delta(self) -> float:
        """Measured - recorded."""
        return self.measured - float(self.record.top1)


def choose(words: Sequence[str], frame: pd.DataFrame) -> tuple[Any, list[Any]]:
    """Choose the row that words name: the id of a cell or its beginning, or names as the board has them.

    ``hello projector ipc10 s0``: a method, labels, a student, a protocol or the name of a data set, ``ipc10`` (or
    ``ipcfull``), and the distillation seeds ``s0``.

    Returns:
        The row (of :func:`bench.report.rows.records`), and its finished records.

    Raises:
        UserError: they name no row, several, or one without a number.
    """
    frame = frame[frame["metric"] != "cost"]  # costs are no accuracy
    chosen = matching(words, frame)
    if chosen.empty:
        raise _nothing(words, frame)
    found = [row for row in records(pool(frame)) if set(row.cells) & set(chosen["cell"])]
    found = [row for row in found if row.method in words] or found  # "hello" is not "hello[conv_rank=4]"
    if len(found) > 1:
        shown = "; ".join(title(row) for row in found[:3]) + (f"; {len(found) - 3} more" if len(found) > 3 else "")
        first, *others = map(_place, found)
        more = [one for at, one in enumerate(first) if any(other[at] != one for other in others)]
        again = shlex.join([*words, *more] if more else found[0].cells[:1])
        raise UserError(f"{' '.join(words)} names {len(found)} rows: {shown}; name one, as bench reproduce {again}")
    row = found[0]
    done = chosen[chosen["cell"].isin(row.cells) & (chosen["state"] == "done")]
    if done.empty:
        raise UserError(f"{title(row)} has no number to reproduce: {row.states}")
    return row, records(done)


def matching(words: Sequence[str], frame: pd.DataFrame) -> pd.DataFrame:
    """Return the records that all words name."""
    cells = pd.DataFrame({word: _fits(word, frame) for word in words}).all(axis=1)
    if len(words) == 1 and not cells.any():
        cells = frame["cell"].str.startswith(words[0])
    return frame[cells]


def title(row: Any) -> str:
    """Return the words that name a row."""
    return shlex.join(_place(row))


def _place(row: Any) -> list[str]:
    return [row.dataset, row.method, row.labels, f"ipc{row.ipc or 'full'}", row.student, row.protocol]


def _fits(word: str, frame: pd.DataFrame) -> pd.Series:
    if scale := _IPC.fullmatch(word):
        return frame["ipc"].isna() if scale[1] == "full" else frame["ipc"].eq(int(scale[1])).fillna(False)
    if seed := _SEED.fullmatch(word):
        return frame["seed"].eq(int(seed[1]))
    return frame[_NAMES].eq(word).any(axis=1)


def _nothing(words: Sequence[str], frame: pd.DataFrame) -> UserError:
    if wrong := [word for word in words if not _fits(word, frame).any()]:
        known = {str(name) for column in _NAMES for name in frame[column].unique()}
        known |= {f"ipc{'full' if pd.isna(ipc) else ipc}" for ipc in frame["ipc"].unique()}
        return unknown("word of a row", wrong[0], known | {f"s{seed}" for seed in frame["seed"].unique()})
    return UserError(f"no row of the boards is all of {', '.join(words)}; bench report shows them")


def find(grid: Grid, wanted: Sequence[Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the cells of a grid that compute records again (id → record), and notes on cells whose identity changed.

    Raises:
        UserError: the grid has no such cell.
    """
    places, students = {}, grid.stage("evaluate")
    for cell in students:
        row = {"student_seed": cell.row["seed"], **cell.row}
        places[tuple(row[name] for name in _SAME)] = cell.id
    found, notes, ids = {}, [], {cell.id for cell in students}
    for one in wanted:
        place = tuple(getattr(one, name) for name in _SAME)
        cell_id = one.cell if one.cell in ids else places.get(place)
        if cell_id is None:
            raise UserError(
                f"{one.cell} can't be planned from what its entry says: there is no such row in the grid of "
                f"{', '.join(grid.request.methods)} here; bench diff shows what an entry knows"
            )
        found[cell_id] = one
        if cell_id != one.cell:
            notes.append(f"{one.cell} is {cell_id} here: a version, a default or the data has changed since")
    return found, notes


def verdict(row: Any, results: Sequence[Again], here: Mapping[str, str]) -> tuple[str, bool]:
    """Return one sentence, and whether the row was reproduced.

    Under the recorded circumstances, or with portable kernels under those versions, the bits have to be the same;
    elsewhere the difference of the means has to have zero in its 95 % interval, from the spread of both (Welch).
    """
    if all(one.same_bits for one in results):
        return "reproduced to the last bit", True
    recorded, delta = results[0].record.environment, sum(one.delta for one in results) / len(results)
    portable = recorded.get("kernels") == here.get("kernels") == "portable"
    ignored = (*IGNORED, *(PROCESSOR if portable else ()))
    other = [f"{name} {recorded.get(name, 'none')} → {here.get(name, 'none')}"
             for name in dict.fromkeys([*recorded, *here])
             if name not in ignored and recorded.get(name) != here.get(name)]  # fmt: skip
    said = f"Δ {100 * delta:+.2f} points"
    if not other:
        like = "portable kernels and versions" if portable else "the CPU, the kernels, the threads and the versions"
        return (
            f"{said}; {like} are the recorded ones, so the code or the data is another",
            False,
        )
    why = f"computed elsewhere: {', '.join(other)}"
    half = _half_width([one.measured for one in results], row)
    if half is None:
        return f"{said}; the row has one seed, so no interval to hold it against; {why}", True
    inside = abs(delta) <= half
    where = "inside" if inside else "outside"
    return (
        f"{said}, {where} ± {100 * half:.2f}, the 95 % interval of both runs (n = {row.n}, {len(results)}); {why}",
        inside,
    )


def _half_width(measured: Sequence[float], row: Any) -> float | None:
    """Return half the 95 % interval of a difference of means; a single new run has the spread of the recorded ones."""
    if row.n < 2:
        return None
    first = row.top1_std**2 / row.n
    second = (variance(measured) if len(measured) > 1 else row.top1_std**2) / len(measured)
    freedom = row.n - 1.0
    if len(measured) > 1 and (total := first + second):
        freedom = total**2 / (first**2 / (row.n - 1) + second**2 / (len(measured) - 1))
    return float(t.ppf(0.975, freedom) * sqrt(first + second))
