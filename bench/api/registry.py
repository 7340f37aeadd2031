"""Entry points → plug-ins. Importing this module, or any plug-in it loads, imports no torch."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bench.api.evaluator import Evaluator
from bench.api.method import Distiller
from bench.errors import UserError, unknown

METHODS = "bench.methods"
EVALUATORS = "bench.evaluators"


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name.

    Raises:
        UserError: two installed distributions claim the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise UserError(f"two plug-ins of {group} are called {point.name!r}: {other.value} and {point.value}")
    return dict(sorted(found.items()))


def _load(group: str, kind: str, name: str, base: type) -> Any:
    points = _points(group)
    if name not in points:
        raise unknown(kind, name, points)
    plugin = points[name].load()
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        raise UserError(f"{kind} {name!r}: {points[name].value} is not a {base.__name__}")
    return plugin


def method_names() -> tuple[str, ...]:
    """The names of all installed methods, sorted."""
    return tuple(_points(METHODS))


def evaluator_names() -> tuple[str, ...]:
    """The names of all installed evaluators, sorted."""
    return tuple(_points(EVALUATORS))


def method(name: str) -> type[Distiller]:
    """The method called ``name``; of ``external:NAME``, the method ``external``, whose settings say which set it is.

    Raises:
        UserError: nothing is called that, or what is called that is not a Distiller.
    """
    return _load(METHODS, "method", name.partition(":")[0], Distiller)  # type: ignore[no-any-return]


def evaluator(name: str) -> type[Evaluator]:
    """The evaluator called ``name``.

    Raises:
        UserError: as :func:`method`.
    """
    return _load(EVALUATORS, "evaluator", name, Evaluator)  # type: ignore[no-any-return]
