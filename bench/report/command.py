"""Rows → the command that makes them again: for a section of a board as for a single row."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from bench.format import plain
from bench.planning.plan import baselines
from bench.planning.protocols import unchanged
from bench.store.cell import canonical

WIDTH = 90  # characters of a line, as far as options go: no side scroll on GitHub
NATIVE = "native"


def command(rows: Iterable[Any]) -> str:
    """Command that makes rows again, as a shell reads it; several, one after the other, where one would not do.

    Rows of other protocols or settings come from commands of their own. Baselines come along by themselves, and are
    left out where no row needs them. A checkpoint is named without its folder, and a protocol by its name even where
    it came from a file.

    Args:
        rows: tuples of :func:`bench.report.rows.records`.
    """
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for row in sorted(rows, key=lambda row: row.ipc is None):  # full data come along with whatever else is asked for
        place = (row.changed.get("dataset", row.dataset), row.protocol)
        changed = {key: value for key, value in row.changed.items() if key != "dataset"}
        own = (*place, canonical(changed) if changed else "")
        beside = min((key for key in groups if row.ipc is None and key[:2] == place), default=own)
        groups.setdefault(beside, []).append(row)
    return "\n".join(_one(groups[key], key[0]) for key in sorted(groups))


def _one(rows: Sequence[Any], dataset: str) -> str:
    distilled = [row for row in rows if row.ipc is not None]
    own = {row.via or row.base for row in distilled}
    methods = sorted(own - {row.base for row in distilled if row.baseline}) or sorted(own) or list(baselines())
    beside = any(row.ipc is None or (row.baseline and row.base not in methods) for row in rows)
    apart = any(row.students_expected > row.n_expected or row.seeds != row.student_seeds for row in rows)
    student_seeds = sorted({seed for row in rows for seed in row.student_seeds})
    options: list[tuple[str, Iterable[Any]]] = [
        ("--methods", methods),
        ("--ipc", sorted({row.ipc for row in distilled}) or [1]),
        ("--dataset", [dataset]),
        ("--students", sorted({row.student for row in rows})),
        ("--seeds", sorted({seed for row in distilled or rows for seed in row.seeds})),
        ("--student-seeds", student_seeds if apart else []),
        ("--protocol", [unchanged(rows[0].protocol)]),
        ("--labels", _labels(distilled, beside)),
        *(("--set", [setting]) for setting in rows[0].changed.get("set", ())),
        *(
            (f"--{flag.replace('_', '-')}", [rows[0].changed[flag]])
            for flag in ("clip", "teacher", "teacher_trajectory")
            if flag in rows[0].changed
        ),
    ]
    lines = ["python -m bench run"]
    words = [f"{flag} {shlex.quote(plain(','.join(map(str, values))))}" for flag, values in options if values]
    for word in words if beside else [*words, "--no-baselines"]:
        if len(lines[-1]) + len(word) + 3 > WIDTH:  # a space before, a space and a backslash behind
            lines.append("   ")
        lines[-1] += f" {word}"
    return " \\\n".join(lines)


def _labels(rows: Sequence[Any], beside: bool) -> list[str]:
    """Choices of ``--labels``; empty: what a method's authors give. Baselines need none of their own."""
    asked = {choice for row in rows for choice in row.asked}
    if not (asked and beside):
        asked |= {_choice(row.labels) for row in rows if not row.asked}
    return [] if asked == {NATIVE} else sorted(asked) or ["hard"]


def _choice(labels: str) -> str:
    """Choice of ``--labels`` behind a board's word: ``stored:fp16 of projector`` → ``stored:fp16``."""
    choice = labels.partition(" of ")[0]
    return choice if choice.partition(":")[0] in ("stored", "static", "teacher", "hard") else NATIVE
