"""Who wins at which label budget, and how good a method is over all budgets: of one protocol and one student."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from bench.report_legacy.board import Row
from bench.report_legacy.fronts import Point, hypervolume, reference_budget
from bench.report_legacy.statistics import against_best, tied

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# Tens of bytes; the last affords the labels of every view of ImageNet-21K (1.2 TB at IPC 20: arXiv 2408.08201).
BUDGETS = (0, 10 * KIB, 100 * KIB, MIB, 10 * MIB, 100 * MIB, GIB, 10 * GIB, 100 * GIB, 10 * 1024 * GIB)
HARD = "hard"
ALL = ""  # the name under which all methods together stand


@dataclass(frozen=True)
class Winner:
    """The most accurate row of an IPC whose labels weigh ``least`` bytes or less, and so up to ``most``."""

    ipc: int
    least: int
    most: int | None  # None: whatever is spent
    row: Row
    ties: int  # other rows within the budget that can't be told from it
    others: int  # rows within the budget beside it
    distilled: Row | None  # the best that is no baseline

    @property
    def told(self) -> bool:
        """Are there sets enough to tell any row from it?"""
        return self.row.top1.n > 1


def winners(rows: Sequence[Row], baselines: Collection[str]) -> list[Winner]:
    """By IPC and budget, one for each budget at which another row comes to win.

    Args:
        rows: of one protocol and one student; of equal means the one with fewer label bytes wins.
        baselines: names of methods that ride along.
    """
    measured = sorted((row for row in rows if row.ipc is not None and _weighed(row)), key=lambda row: row.ipc or 0)
    found: list[Winner] = []
    for _, group in groupby(measured, key=lambda row: row.ipc):
        found += _of_one_ipc(list(group), baselines)
    return found


def _of_one_ipc(rows: Sequence[Row], baselines: Collection[str]) -> list[Winner]:
    found: list[Winner] = []
    for budget in BUDGETS:
        within = [row for row in rows if _point(row)[0] <= budget]
        if not within:
            continue
        best = min(within, key=_rank)
        distilled = min((row for row in within if row.base not in baselines), key=_rank, default=None)
        if found and found[-1].row is best and found[-1].distilled is distilled:
            found[-1] = replace(found[-1], most=budget)
            continue
        ties = sum(map(tied, against_best([row.runs for row in within]))) - 1
        found.append(Winner(best.ipc or 0, budget, budget, best, ties, len(within) - 1, distilled))
    return [*found[:-1], replace(found[-1], most=None)] if found else []


def hypervolumes(rows: Sequence[Row]) -> tuple[int, dict[str, dict[int, float]]]:
    """The smallest power of two that affords the labels of every row, in bytes; and method → IPC → the mean of the
    best accuracy that a label budget affords, from one byte to it, each doubling weighing the same.

    :data:`ALL` stands for all methods together.

    Sets under hard labels count for every method that made them, because they take nothing of a method's labels.
    """
    measured = [row for row in rows if row.ipc is not None and _weighed(row)]
    budget = reference_budget([_point(row) for row in measured])
    points: dict[tuple[str, int], list[Point]] = {}
    users: dict[tuple[int, frozenset[str]], set[str]] = {}
    for row in measured:
        if row.image_cells:
            users.setdefault((row.ipc or 0, row.image_cells), set()).add(row.method)
    for row in measured:
        shared = users.get((row.ipc or 0, row.image_cells), set()) if row.labels == HARD else set()
        for method in {row.method, ALL, *shared}:
            points.setdefault((method, row.ipc or 0), []).append(_point(row))
    found: dict[str, dict[int, float]] = {}
    for (method, ipc), own in sorted(points.items()):
        found.setdefault(method, {})[ipc] = hypervolume(own, budget)
    return budget, found


def _weighed(row: Row) -> bool:
    return row.label_bytes is not None and row.top1.mean is not None


def _point(row: Row) -> Point:
    return (row.label_bytes or 0, row.top1.mean or 0.0)


def _rank(row: Row) -> tuple[float, int, str, str]:
    return (-(row.top1.mean or 0.0), row.label_bytes or 0, row.method, row.labels)
