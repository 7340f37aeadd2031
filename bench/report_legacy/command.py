"""Rows → the command that makes them again: for a section of a board as for a single row."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from bench.planning.plan import RANDOM
from bench.planning.protocols import unchanged
from bench.report_legacy.board import Row
from bench.report_legacy.wording import plain
from bench.store.cell import canonical

WIDTH = 90  # characters of a line, as far as options go: no side scroll on GitHub


def command(rows: Iterable[Row], baselines: Collection[str] = ()) -> str:
    """What makes rows again, as a shell reads it; several commands, one after the other, where one would not do.

    Rows of different protocols, or with other settings, come from commands of their own. Baselines ride along by
    themselves, and are left out where no row needs them. A checkpoint is named without its folder, and a protocol
    by its name even where it came from a file.

    Args:
        rows: of a board, in any order.
        baselines: names of methods that ride along with others.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    references: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.key):
        place = (row.dataset, row.protocol)
        if row.ipc is None:
            references.setdefault(place, []).append(row)
        else:
            changed = row.entries[0].changed
            groups.setdefault((*place, canonical(changed) if changed else ""), []).append(row)
    for place, full in references.items():  # they ride along with whatever else is asked for
        groups.setdefault(min((key for key in groups if key[:2] == place), default=(*place, "")), []).extend(full)
    return "\n".join(_one(groups[key], baselines) for key in sorted(groups))


def _one(rows: Sequence[Row], baselines: Collection[str]) -> str:
    entries = [entry for row in rows for entry in row.entries]
    distilled = [row for row in rows if row.ipc is not None]
    methods = _methods(distilled, baselines)
    ride = any(row.ipc is None or (row.base in baselines and row.base not in methods) for row in rows)
    apart = any(entry.student_seed is not None for entry in entries)
    options: list[tuple[str, Iterable[Any]]] = [
        ("--methods", methods),
        ("--ipc", sorted({row.ipc for row in distilled if row.ipc is not None}) or [1]),
        ("--dataset", [rows[0].dataset]),
        ("--students", sorted({row.student for row in rows})),
        ("--seeds", sorted({entry.seed for row in distilled or rows for entry in row.entries})),
        ("--student-seeds", sorted({entry.seeds[1] for entry in entries}) if apart else []),
        ("--protocol", [unchanged(rows[0].protocol)]),
        ("--labels", _labels(distilled, ride)),
    ]
    words = [f"{flag} {_quoted(','.join(map(str, values)))}" for flag, values in options if values]
    words += list(_changes(rows[0].entries[0].changed))
    return _wrapped("python -m bench run", words if ride else [*words, "--no-baselines"])


def _methods(rows: Sequence[Row], baselines: Collection[str]) -> list[str]:
    found = {row.entries[0].via or row.base for row in rows}
    return sorted(name for name in found if name not in baselines) or sorted(found) or [RANDOM]


def _labels(rows: Sequence[Row], ride: bool) -> list[str]:
    """The choices of ``--labels``; empty: what a method's authors give. What rides along needs none of its own."""
    asked = {entry.asked for row in rows for entry in row.entries if entry.asked}
    if not (asked and ride):
        asked |= {_choice(row.labels) for row in rows if not any(entry.asked for entry in row.entries)}
    return [] if asked == {"native"} else sorted(asked) or ["hard"]


def _choice(labels: str) -> str:
    """The choice of ``--labels`` behind a board's word: ``stored:fp16 of projector`` → ``stored:fp16``."""
    choice = labels.partition(" of ")[0]
    return choice if choice.partition(":")[0] in ("stored", "static", "teacher", "hard") else "native"


def _changes(changed: dict[str, Any]) -> Iterator[str]:
    for setting in changed.get("set", ()):
        yield f"--set {_quoted(setting)}"
    for flag in ("clip", "teacher"):
        if flag in changed:
            yield f"--{flag} {_quoted(changed[flag])}"


def _quoted(text: str) -> str:
    return shlex.quote(plain(text))


def _wrapped(start: str, words: Iterable[str]) -> str:
    lines = [start]
    for word in words:
        if len(lines[-1]) + len(word) + 3 > WIDTH:  # a space before, a space and a backslash behind
            lines.append("   ")
        lines[-1] += f" {word}"
    return " \\\n".join(lines)
