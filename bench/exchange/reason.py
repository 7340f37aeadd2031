"""One sentence on why two numbers differ: the likeliest of the reasons there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.exchange.comparison import ROW, Change, Level, RunView
from bench.format import listed

# facts of an environment that explain a difference, the likeliest first; the others follow by name
_CAUSES = ("torch", "device", "accelerator", "threads", "processes", "cpu", "commit", "local_edits", "distill-bench")
_CODE = ("commit", "local_edits", "distill-bench", "code_drift")
_COMPUTED = {
    "device": "on another device", "accelerator": "on another device", "threads": "with another number of threads",
    "processes": "by another number of processes", "cpu": "on another CPU",
}  # fmt: skip
_WORDS = {"seed": "seed", "ipc": "images per class", "arch": "architecture", "file_sha256": "checkpoint"}
IGNORED = ("call.", "row.", "made from ")  # consequences of fields, and names for people


def reason(a: RunView, b: RunView, row: Sequence[Change], levels: Sequence[Level]) -> str:
    """Return the reason for the differences that :func:`bench.exchange.comparison.compare` found."""
    if a.stage != b.stage:
        return f"they are not of a kind: {a.id} is a {a.stage} cell, {b.id} a {b.stage} cell"
    for run in (a, b):
        if run.state != "done":
            return f"{run.id} is {run.state}, so it has no number"
    if configured := _configuration(a, b, row, levels):
        return configured
    if a.id != b.id:
        return _identity(levels)
    if a.content is not None and a.content == b.content:
        return "the same cell with the same result, to the last bit"
    if None in (a.content, b.content) and a.metrics.get("top1") == b.metrics.get("top1"):
        return "the same cell with the same number"
    for candidates in ([level for level in reversed(levels) if level.path], levels):
        if causes := {change.name: change for level in candidates for change in level.environment}:
            return f"the same configuration, {_computed(causes)}"
    if len(levels) > 1:
        return f"the same configuration, but made from other files: {' › '.join(levels[-1].path)} changed"
    return "the same configuration in the same environment, and yet another result: something is not deterministic"


def _configuration(a: RunView, b: RunView, row: Sequence[Change], levels: Sequence[Level]) -> str:
    """Say what is configured differently, where that explains it; empty: nothing that could be looked at."""
    named = {change.name: change for change in row}
    if named and named.keys() <= {"seed", "student_seed"}:
        return _seeds(named, a.parents.get("images") == b.parents.get("images"))
    if named:
        return "they are in different rows: " + listed([f"{ROW[n]} ({_pair(named[n])})" for n in ROW if n in named])
    for level in reversed(levels):  # the deepest decides the others
        if changed := [change for change in level.configuration if not change.name.startswith(IGNORED)]:
            where = f" of the {level.stage} behind them ({' › '.join(level.path)})" if level.path else ""
            names = [change.name.removeprefix("fields.") for change in changed]
            shown = [f"{_WORDS.get(n, n)} ({_pair(change)})" for n, change in zip(names[:3], changed, strict=False)]
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            return f"{listed(shown)}{more}{where} {_differ(changed)}"
    return ""


def _seeds(named: Mapping[str, Change], same_images: bool) -> str:
    sets, students = named.get("seed"), named.get("student_seed")
    if students is not None and (sets is None or same_images):
        return f"the student's seed differs ({_pair(students)})"
    assert sets is not None
    if students is None:
        return f"the seed of distillation differs ({_pair(sets)})"
    if (sets.a, sets.b) == (students.a, students.b):
        return f"the seed of distillation and student differs ({_pair(sets)})"
    return f"the seeds of distillation ({_pair(sets)}) and of the student ({_pair(students)}) differ"


def _identity(levels: Sequence[Level]) -> str:
    if absent := next((level.absent for level in levels if level.absent), ""):
        return f"they were made from other cells, of which {absent}"
    if roles := [change.name for change in levels[0].configuration if change.name.startswith("made from ")]:
        return f"they were {listed(roles)} of another identity; what decided that is not kept here"
    return "their identities differ, and nothing that is kept here says why"


def _computed(causes: Mapping[str, Change]) -> str:
    first, *others = sorted(causes, key=lambda name: (_CAUSES.index(name) if name in _CAUSES else len(_CAUSES), name))
    if first in _CODE:
        said = f"computed by other code ({first} {_pair(causes[first])})"
        others = [name for name in others if name not in _CODE]
    else:
        said = f"computed {_COMPUTED.get(first, f'with other versions of {first}')} ({_pair(causes[first])})"
    return said + (f"; {listed(others)} {_differ(others)} too" if others else "")


def _differ(subjects: Sequence[Any]) -> str:
    return "differs" if len(subjects) == 1 else "differ"


def _pair(change: Change) -> str:
    texts = ["as usual" if value is None else str(value) for value in (change.a, change.b)]
    return ", ".join(text if len(text) <= 60 else f"{text[:57]}…" for text in texts)
