"""Rows of a board, one a (method, labels, IPC, student, protocol), and the CSV that holds them.

Numbers stay numbers here: fractions, integers of bytes, seconds. How they are worded for people is the
business of :mod:`bench.harness.report.wording`.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from bench.errors import UserError
from bench.harness.identity import STAGES
from bench.harness.record import PublicFacts
from bench.harness.report.entries import Entry, in_order
from bench.harness.report.statistics import Summary, mean, summarize


@dataclass(frozen=True)
class Row:
    """The seeds of one (method, labels, IPC, student, protocol), done or not.

    Accuracies are fractions over the done cells. Bytes are means over the cells that know theirs (sizes of
    encoded images differ a little from seed to seed), None where no cell does. ``label_ratio`` is label bytes
    over what fp16 labels of every view would weigh: epochs · images · classes · 2, the count behind HeLlO's
    572 MB for ImageNet-1K at IPC 1 and 300 epochs (arXiv 2408.08201). ``seconds`` are wall time a stage,
    means over the done cells.
    """

    dataset: str
    protocol: str
    protocol_version: int
    ipc: int | None
    student: str
    method: str
    labels: str
    top1: Summary
    oracle: Summary
    image_bytes: int | None
    label_bytes: int | None
    public_bytes: int | None
    full_label_bytes: int | None
    label_ratio: float | None
    public: tuple[PublicFacts, ...]
    seconds: dict[str, float]
    seconds_total: float | None
    entries: tuple[Entry, ...]  # by seed

    @property
    def expected(self) -> int:
        """How many cells the row should have."""
        return len(self.entries)

    @property
    def states(self) -> str:
        """For instance ``done=2 failed=1``."""
        counts: Counter[str] = Counter(entry.state for entry in self.entries)
        shown = [state for state in ("done", "failed", "missing") if counts[state]]
        return " ".join(f"{state}={counts[state]}" for state in shown)


def make_rows(entries: Iterable[Entry]) -> list[Row]:
    """Group entries into rows, in the order of the board.

    Raises:
        UserError: two different entries claim the same seed of the same row.
    """
    return [_row(tuple(group)) for _, group in groupby(in_order(entries), key=lambda entry: entry.row)]


def _row(entries: tuple[Entry, ...]) -> Row:
    first = entries[0]
    for one, other in pairwise(entries):
        if one.seed == other.seed:
            raise UserError(
                f"{one.cell} and {other.cell} both stand for seed {one.seed} of {one.method} with "
                f"{one.labels} labels on {one.dataset} under {one.protocol}; expected one cell: report one "
                "grid at a time"
            )
    done = [entry for entry in entries if entry.state == "done"]
    weighed = [entry for entry in entries if entry.label_bytes is not None]
    label_bytes = _known(entry.label_bytes for entry in weighed)
    full = _known(entry.full_label_bytes for entry in entries)
    label_mean, full_mean = mean(label_bytes), mean(full)
    bases = {base for entry in entries for base in entry.public}
    timed = [entry.seconds for entry in done if entry.seconds]
    stages = [*STAGES, *sorted({stage for seconds in timed for stage in seconds} - set(STAGES))]
    seconds = {stage: mean([one[stage] for one in timed if stage in one]) for stage in stages}
    return Row(
        dataset=first.dataset,
        protocol=first.protocol,
        protocol_version=first.protocol_version,
        ipc=first.ipc,
        student=first.student,
        method=first.method,
        labels=first.labels,
        top1=summarize(_known(entry.top1 for entry in done)),
        oracle=summarize(_known(entry.oracle_top1 for entry in done)),
        image_bytes=_whole(mean(_known(entry.image_bytes for entry in entries))),
        label_bytes=_whole(label_mean),
        public_bytes=_whole(mean([sum(base.bytes for base in entry.public) for entry in weighed])),
        full_label_bytes=_whole(full_mean),
        label_ratio=label_mean / full_mean if label_mean is not None and full_mean else None,
        public=tuple(sorted(bases, key=lambda base: (base.name, base.sha256, base.bytes))),
        seconds={stage: value for stage, value in seconds.items() if value is not None},
        seconds_total=mean([sum(one[stage] for stage in sorted(one)) for one in timed]),
        entries=entries,
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _record(row: Row, stages: Sequence[str]) -> dict[str, Any]:
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
        "states": row.states,
        "top1_mean": row.top1.mean,
        "top1_std": row.top1.std,
        "top1_ci95": row.top1.ci95,
        "oracle_mean": row.oracle.mean,
        "image_bytes": row.image_bytes,
        "label_bytes": row.label_bytes,
        "public_bytes": row.public_bytes,
        "public_names": " ".join(dict.fromkeys(base.name for base in row.public)),
        "full_label_bytes": row.full_label_bytes,
        "label_ratio": row.label_ratio,
        **{f"seconds_{stage}": row.seconds.get(stage) for stage in stages},
        "seconds_total": row.seconds_total,
    }


def render_csv(rows: Sequence[Row]) -> str:
    """The board as CSV: one line a row, full precision, empty where nothing was measured."""
    stages = [*STAGES, *sorted({stage for row in rows for stage in row.seconds} - set(STAGES))]
    lines = [_record(row, stages) for row in rows]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(lines[0] if lines else [])
    # Nine digits hide the last bit, in which two builds of a numerical library may differ.
    table.writerows([f"{v:.9g}" if isinstance(v, float) else v for v in line.values()] for line in lines)
    return text.getvalue()
