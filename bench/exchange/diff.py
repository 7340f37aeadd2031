"""Why are two numbers not the same? Two outcomes side by side: what was asked, where it ran, what came out.

Where two cells are made from different ones, their ancestry is followed down to the cells that differ in something of
their own: those decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.exchange.comparison import Change, Level, Side
from bench.exchange.diff_reason import reason


@dataclass(frozen=True)
class Difference:
    """The answer: one sentence, and the places that differ, the two themselves first, every pair of cells once."""

    reason: str
    row: tuple[Change, ...]
    levels: tuple[Level, ...]


def compare(a: Side, b: Side) -> Difference:
    """What is not the same, and most likely why."""
    row = tuple(changes(a.row, b.row, both=a.kind != b.kind))
    levels = tuple(_levels(a, b, (), set()))
    return Difference(reason(a, b, row, levels), row, levels)


def changes(a: Mapping[str, Any], b: Mapping[str, Any], both: bool = False) -> Iterator[Change]:
    """The names whose values differ, sorted as ``a`` has them, then ``b``.

    Args:
        both: look at names alone that both have.
    """
    for name in dict.fromkeys([*a, *b]):
        if a.get(name) != b.get(name) and not (both and (name not in a or name not in b)):
            yield Change(name, a.get(name), b.get(name))


def _made_from(side: Side) -> dict[str, str]:
    return {f"made from {role}": parent for role, parent in sorted(side.parents.items())}


def _levels(a: Side, b: Side, path: tuple[str, ...], seen: set[tuple[str, str]]) -> Iterator[Level]:
    seen.add((a.id, b.id))
    mixed = a.kind != b.kind
    absent = []
    below: list[Level] = []
    for role in sorted(a.parents.keys() & b.parents.keys()):
        one, other = a.parents[role], b.parents[role]
        same = one == other and a.inputs.get(one) == b.inputs.get(other)
        if same or (one, other) in seen:
            continue
        mine, theirs = a.parent(one), b.parent(other)
        if mine is None or theirs is None:
            if one != other:
                absent.append(one if mine is None else other)
            continue
        below += _levels(mine, theirs, (*path, role), seen)
    configuration = list(changes(a.own, b.own, both=mixed))
    configuration += changes(_made_from(a), _made_from(b), both=mixed)
    yield Level(
        path=path,
        a=a.id,
        b=b.id,
        stage=a.stage,
        configuration=tuple(configuration),
        environment=tuple(changes(a.environment, b.environment)),
        artifacts=() if mixed else tuple(changes(a.made, b.made)),
        metrics=tuple(changes(a.metrics, b.metrics, both=mixed)),
        absent=f"{', '.join(absent)} can't be looked at: not in the store" if absent else "",
    )
    yield from below
