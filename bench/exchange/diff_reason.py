"""The sentence that answers why two numbers are not the same: the likeliest of the reasons there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.exchange.comparison import ROW, Change, Level, Side

# what of an environment explains a difference, the likeliest first; the rest comes after in its own order
_CAUSES = ("torch", "device", "accelerator", "threads", "processes", "cpu", "commit", "local_edits", "distill-bench")
_CODE = ("commit", "local_edits", "distill-bench", "code_drift")
_FIELD_WORDS = {"seed": "seed", "ipc": "images per class", "arch": "architecture", "file_sha256": "checkpoint"}
_UNTOLD = ("call.", "row.")  # consequences of fields, and names for people


def reason(a: Side, b: Side, row: Sequence[Change], levels: Sequence[Level]) -> str:
    if a.stage != b.stage:
        return f"they are not of a kind: {a.id} is a {a.stage} cell, {b.id} a {b.stage} cell"
    for side in (a, b):
        if side.state != "done":
            return f"{side.id} is {side.state}, so it has no number"
    if asked := _asked(a, b, row, levels):
        return asked
    if a.id != b.id:
        return _other_identity(levels)
    if a.content is not None and a.content == b.content:
        return "the same cell with the same result, to the last bit"
    if None in (a.content, b.content) and a.metrics.get("top1") == b.metrics.get("top1"):
        return "the same cell with the same number"
    deepest = [level for level in levels if level.path] or list(levels)
    causes = [change for level in reversed(deepest) for change in level.environment]
    causes = causes or [change for level in levels for change in level.environment]
    if causes:
        return f"the same configuration, {_computed(causes)}"
    if len(levels) > 1:
        return f"the same configuration, but made from other files: {' › '.join(levels[-1].path)} came out another"
    return "the same configuration in the same environment, and yet another result: something is not deterministic"


def _asked(a: Side, b: Side, row: Sequence[Change], levels: Sequence[Level]) -> str:
    """What was asked for differently, where that explains it; empty: nothing that could be looked at."""
    named = {change.name: change for change in row}
    if named and named.keys() <= {"seed", "student_seed"}:
        return _seeds(a, b, named)
    if named:
        return "they stand in different rows: " + _joined([f"{ROW[n]} ({_pair(named[n])})" for n in ROW if n in named])
    for level in reversed(levels):  # the deepest decides what stands on it
        if told := _fields(level):
            where = f" of the {level.stage} behind them ({' › '.join(level.path)})" if level.path else ""
            shown = [f"{_word(change.name)} ({_pair(change)})" for change in told[:3]]
            more = f" and {len(told) - 3} more" if len(told) > 3 else ""
            verb = "differs" if len(told) == 1 else "differ"
            return f"{_joined(shown)}{more}{where} {verb}"
    return ""


def _seeds(a: Side, b: Side, named: Mapping[str, Change]) -> str:
    sets, students = named.get("seed"), named.get("student_seed")
    if students is not None and (sets is None or a.parents.get("images") == b.parents.get("images")):
        return f"the student's seed differs ({_pair(students)})"
    assert sets is not None
    if students is None:
        return f"the seed of distillation differs ({_pair(sets)})"
    if (sets.a, sets.b) == (students.a, students.b):
        return f"the seed of distillation and student differs ({_pair(sets)})"
    return f"the seeds of distillation ({_pair(sets)}) and of the student ({_pair(students)}) differ"


def _fields(level: Level) -> list[Change]:
    return [c for c in level.configuration if not c.name.startswith((*_UNTOLD, "made from "))]


def _other_identity(levels: Sequence[Level]) -> str:
    for level in levels:
        if level.absent:
            return f"they were made from other cells, of which {level.absent}"
    roles = [c.name for c in levels[0].configuration if c.name.startswith("made from ")]
    if roles:
        return f"they were {_joined(roles)} of another identity; what decided that is not kept here"
    return "their identities differ, and nothing that is kept here says why"


def _computed(causes: Sequence[Change]) -> str:
    found = {change.name: change for change in causes}
    ordered = sorted(found, key=lambda name: (_CAUSES.index(name) if name in _CAUSES else len(_CAUSES), name))
    first = found[ordered[0]]
    match first.name:
        case "device" | "accelerator":
            said = f"computed on another device ({_pair(first)})"
        case "threads":
            said = f"computed with another number of threads ({_pair(first)})"
        case "processes":
            said = f"computed by another number of processes ({_pair(first)})"
        case "cpu":
            said = f"computed on another CPU ({_pair(first)})"
        case code if code in _CODE:
            said = f"computed by other code ({code} {_pair(first)})"
        case package:
            said = f"computed with other versions of {package} ({_pair(first)})"
    others = [name for name in ordered[1:] if name not in _CODE or first.name not in _CODE]
    return said + (f"; {_joined(others)} {'differs' if len(others) == 1 else 'differ'} too" if others else "")


def _word(name: str) -> str:
    short = name.removeprefix("fields.")
    return _FIELD_WORDS.get(short, short)


def _pair(change: Change) -> str:
    return f"{_shown(change.a)}, {_shown(change.b)}"


def _shown(value: Any) -> str:
    text = "as usual" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
