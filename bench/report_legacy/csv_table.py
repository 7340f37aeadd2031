"""The board as CSV, for programs: one line a row, full precision, empty where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report_legacy.board import Row
from bench.report_legacy.csv_text import csv_text
from bench.report_legacy.scores import Scores
from bench.store.cell import STAGES


def render_csv(rows: Sequence[Row], scores: Mapping[tuple[Any, ...], Scores]) -> str:
    """One line a row.

    Args:
        rows: of a board, in its order.
        scores: :func:`~bench.report_legacy.scores.score` of them.
    """
    stages = [*STAGES, *sorted({stage for row in rows for stage in row.seconds} - set(STAGES))]
    lines = [_line(row, stages, scores.get(row.key, Scores())) for row in rows]
    return csv_text(tuple(lines[0]) if lines else (), [tuple(line.values()) for line in lines])


def _line(row: Row, stages: Sequence[str], scores: Scores) -> dict[str, Any]:
    return {
        "dataset": row.dataset,
        "protocol": row.protocol,
        "protocol_version": row.protocol_version,
        "ipc": row.ipc,
        "student": row.student,
        "method": row.method,
        "labels": row.labels,
        "n": row.top1.n,
        "n_expected": row.expected,
        "students": row.done,
        "states": row.states,
        "top1_mean": row.top1.mean,
        "top1_std": row.top1.std,
        "top1_ci95": row.top1.ci95,
        "top1_std_sets": row.spread.sets,
        "top1_std_students": row.spread.students,
        "p_best": row.p_best,
        "on_front": None if row.on_front is None else int(row.on_front),
        "oracle_mean": row.oracle.mean,
        "image_bytes": row.image_bytes,
        "label_bytes": row.label_bytes,
        "label_parameters": row.label_parameters,
        "public_bytes": row.public_bytes,
        "public_names": " ".join(dict.fromkeys(base.name for base in row.public)),
        "full_label_bytes": row.full_label_bytes,
        "label_ratio": row.label_ratio,
        **{f"seconds_{stage}": row.seconds.get(stage) for stage in stages},
        "seconds_total": row.seconds_total,
        "hlr": scores.hlr,
        "ior": scores.ior,
        "lrs": scores.lrs,
        "ars": scores.ars,
    }
