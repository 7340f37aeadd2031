"""DD-Ranking's scores, from the rows of a board: how much of an accuracy the images owe to soft labels and to views.

Li, Zhong, Khaki et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation" (arXiv 2505.13300). With
accuracies as fractions:

- HLR, hard label recovery: real images with hard labels, less the distilled images with hard labels;
- IOR, improvement over random: the distilled images, less as many random real ones under the same labels and views;
- LRS, the label robust score, of a = w · IOR - (1 - w) · HLR: (e^a - e^-1) / (e - e^-1);
- ARS, the augmentation robust score, likewise of b = g · IOR with augmentation + (1 - g) · IOR without.

Theirs take the best tested epoch of the best of five learning rates, chosen on the test images; ours are of the last
epoch under the board's protocol.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.planning.plan import RANDOM
from bench.report_legacy.board import Row

WEIGHT = 0.5  # w and g: DD-Ranking's defaults
HARD = "hard"


@dataclass(frozen=True)
class Scores:
    """Of one row; None where a run it takes is not there. ``hlr`` and ``ior`` are differences of fractions."""

    hlr: float | None = None
    ior: float | None = None
    lrs: float | None = None
    ars: float | None = None


def normalized(value: float) -> float:
    """A weighted difference of accuracies in [-1, 1] as a score in [0, 1]; no difference is 0.269."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))


def label_robust(hlr: float, ior: float) -> float:
    """LRS of two differences of fractions."""
    return normalized(WEIGHT * ior - (1 - WEIGHT) * hlr)


def augmentation_robust(with_views: float, without: float) -> float:
    """ARS of the improvement over random with augmentation and without, both as differences of fractions."""
    return normalized(WEIGHT * with_views + (1 - WEIGHT) * without)


def score(rows: Iterable[Row]) -> dict[tuple[Any, ...], Scores]:
    """The scores of every row of distilled images that has one, by :attr:`Row.key`."""
    rows = list(rows)
    real = {_reference(row): row.top1.mean for row in rows if row.ipc is None}
    hard = {(row.table, row.image_cells): row.top1.mean for row in rows if row.labels == HARD and row.image_cells}
    random = {(row.table, row.labels): row for row in rows if row.method == RANDOM}
    distilled = [row for row in rows if row.ipc is not None and row.base != RANDOM]
    improvements = {row.key: _improvement(row, random) for row in distilled}
    plain = {
        _recipe(row): improvements[row.key]
        for row in distilled
        if row.entries[0].recipe and not row.entries[0].augmented
    }
    found = {}
    for row in distilled:
        ior = improvements[row.key]
        hlr = _less(real.get(_reference(row)), hard.get((row.table, row.image_cells)))
        lrs = label_robust(hlr, ior) if hlr is not None and ior is not None else None
        without = plain.get(_recipe(row)) if row.entries[0].augmented else None
        ars = augmentation_robust(ior, without) if ior is not None and without is not None else None
        if (hlr, ior) != (None, None):
            found[row.key] = Scores(hlr, ior, lrs, ars)
    return found


def _reference(row: Row) -> tuple[Any, ...]:
    return (row.dataset, row.protocol, row.protocol_version, row.student)


def _recipe(row: Row) -> tuple[Any, ...]:
    """Rows that agree in this differ in their augmentation at most."""
    return (row.dataset, row.entries[0].recipe, row.ipc, row.student, row.method, row.labels)


def _improvement(row: Row, random: Mapping[tuple[Any, ...], Row]) -> float | None:
    other = random.get((row.table, row.labels))
    if other is None:
        return None
    labellers = [
        {entry.parents["labels"] for entry in one.entries if "labels" in entry.parents} for one in (row, other)
    ]
    # a label model with other settings has the same name on random images
    same = row.labels == HARD or labellers[0] & labellers[1] or row.entries[0].changed == other.entries[0].changed
    return _less(row.top1.mean, other.top1.mean) if same else None


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
