"""Rows of a board, one a (method, labels, IPC, student, protocol), and how the rows of a table stand to each other.

Numbers stay numbers here: fractions, integers of bytes, seconds. How they are worded for people is the
business of :mod:`bench.report_legacy.wording`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

from bench.errors import UserError
from bench.report_legacy.entries import Entry, in_order
from bench.report_legacy.fronts import pareto
from bench.report_legacy.statistics import (
    Components,
    Runs,
    Summary,
    against_best,
    components,
    mean,
    summarize_sets,
    tied,
)
from bench.store.cell import STAGES
from bench.store.record import BackboneFacts


@dataclass(frozen=True)
class Row:
    """The distilled sets of one (method, labels, IPC, student, protocol) with their students, done or not.

    Accuracies are fractions over the done cells; ``top1.n`` counts distilled sets. Bytes are means over the cells
    that know theirs (sizes of encoded images differ a little from seed to seed), None where no cell does.
    ``label_ratio`` is label bytes over what fp16 labels of every view would weigh: epochs · images · classes · 2,
    the count behind HeLlO's 572 MB for ImageNet-1K at IPC 1 and 300 epochs (arXiv 2408.08201). ``seconds`` are wall
    time a stage, means over the done cells.

    ``p_best`` and ``on_front`` compare it with the other rows of its table, which hold one student, one IPC and one
    protocol; both are None of full data.
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
    spread: Components  # of top1: from set to set, from student to student
    image_bytes: int | None
    label_bytes: int | None
    label_parameters: int | None
    public_bytes: int | None
    full_label_bytes: int | None
    label_ratio: float | None
    public: tuple[BackboneFacts, ...]
    seconds: dict[str, float]
    seconds_total: float | None
    entries: tuple[Entry, ...]  # by seed and student seed
    p_best: float | None = None  # of the difference to the best mean, corrected for the whole table; 1: it is the best
    on_front: bool | None = None  # is no other row at least as accurate with fewer label bytes?

    @property
    def key(self) -> tuple[Any, ...]:
        """Which row it is; sorts a board by protocol, IPC (full data last) and names."""
        return self.entries[0].row

    @property
    def table(self) -> tuple[Any, ...]:
        """The rows it is compared with agree in this."""
        return (self.dataset, self.protocol, self.protocol_version, self.ipc, self.student)

    @property
    def base(self) -> str:
        """The method without its settings: ``hello`` of ``hello[conv_rank=4]``."""
        return self.entries[0].base

    @property
    def settings(self) -> str:
        """What stands in the brackets behind a method: ``conv_rank=4``; empty where all is as usual."""
        return self.method.partition("[")[2].removesuffix("]")

    @property
    def image_cells(self) -> frozenset[str]:
        """The cells of its distilled sets. HeLlO's are RDED's, so under hard labels they stand in a row of RDED."""
        return frozenset(entry.parents["images"] for entry in self.entries if "images" in entry.parents)

    @property
    def runs(self) -> Runs:
        """Top-1 of the done cells: distillation seed → student seed → fraction."""
        return _runs((entry, entry.top1) for entry in self.entries if entry.state == "done")

    @property
    def expected(self) -> int:
        """How many distilled sets the row should have."""
        return len({entry.seed for entry in self.entries})

    @property
    def done(self) -> int:
        """How many of its students are done."""
        return sum(entry.state == "done" for entry in self.entries)

    @property
    def ties(self) -> bool:
        """Is its mean the best, or can't it be told from the best?"""
        return tied(self.p_best)

    @property
    def states(self) -> str:
        """For instance ``done=2 failed=1``."""
        counts: Counter[str] = Counter(entry.state for entry in self.entries)
        shown = [state for state in ("done", "failed", "missing") if counts[state]]
        return " ".join(f"{state}={counts[state]}" for state in shown)


def make_rows(entries: Iterable[Entry]) -> list[Row]:
    """Group entries into rows, in the order of the board, and compare the rows of each table.

    Raises:
        UserError: two different entries claim the same seed of the same row.
    """
    rows = [_row(tuple(group)) for _, group in groupby(in_order(entries), key=lambda entry: entry.row)]
    return [row for _, table in groupby(rows, key=lambda row: row.table) for row in _compare(list(table))]


def _row(entries: tuple[Entry, ...]) -> Row:
    first = entries[0]
    for one, other in pairwise(entries):
        if one.seeds == other.seeds:
            raise UserError(
                f"{one.cell} and {other.cell} both stand for seed {one.seed} of {one.method} with "
                f"{one.labels} labels on {one.dataset} under {one.protocol}; expected one cell: report one "
                "grid at a time"
            )
    done = [entry for entry in entries if entry.state == "done"]
    runs = _runs((entry, entry.top1) for entry in done)
    weighed = [entry for entry in entries if entry.label_bytes is not None]
    label_mean = mean(_known(entry.label_bytes for entry in weighed))
    full_mean = mean(_known(entry.full_label_bytes for entry in entries))
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
        top1=summarize_sets(runs),
        oracle=summarize_sets(_runs((entry, entry.oracle_top1) for entry in done)),
        spread=components([list(students.values()) for students in runs.values()]),
        image_bytes=_whole(mean(_known(entry.image_bytes for entry in entries))),
        label_bytes=_whole(label_mean),
        label_parameters=_whole(mean(_known(entry.label_parameters for entry in entries))),
        public_bytes=_whole(mean([sum(base.bytes for base in entry.public) for entry in weighed])),
        full_label_bytes=_whole(full_mean),
        label_ratio=label_mean / full_mean if label_mean is not None and full_mean else None,
        public=tuple(sorted(bases, key=lambda base: (base.name, base.sha256, base.bytes))),
        seconds={stage: value for stage, value in seconds.items() if value is not None},
        seconds_total=mean([sum(one[stage] for stage in sorted(one)) for one in timed]),
        entries=entries,
    )


def _compare(rows: Sequence[Row]) -> list[Row]:
    if rows[0].ipc is None:
        return list(rows)
    p_values = against_best([row.runs for row in rows])
    weighed = [row for row in rows if row.label_bytes is not None and row.top1.mean is not None]
    front = pareto([(row.label_bytes or 0, row.top1.mean or 0.0) for row in weighed])
    on_front = {row.key: one for row, one in zip(weighed, front, strict=True)}
    return [
        replace(row, p_best=p_value, on_front=on_front.get(row.key))
        for row, p_value in zip(rows, p_values, strict=True)
    ]


def _runs(values: Iterable[tuple[Entry, float | None]]) -> dict[int, dict[int, float]]:
    runs: dict[int, dict[int, float]] = {}
    for entry, value in values:
        if value is not None:
            seed, student_seed = entry.seeds
            runs.setdefault(seed, {})[student_seed] = value
    return runs


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
