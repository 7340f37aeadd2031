"""Groups of plug-ins by entry point.

A plug-in that cannot be loaded, or whose name another distribution has taken, is named once on stderr and left out;
requesting it is an error. Names of this distribution win over those of others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from bench.errors import UserError, printable, unknown

OWN = "distill-bench"

T = TypeVar("T")


class Group(Generic[T]):
    """The plug-ins of one entry-point group.

    Args:
        name: of the group, e.g. ``bench.methods``.
        kind: the word for one of its plug-ins in messages.
        expected: the class of a plug-in; where ``attributes`` are given its base class.
        attributes: the class attributes that a plug-in must define.
    """

    def __init__(self, name: str, kind: str, expected: type[Any], attributes: Sequence[str] = ()):
        self.name, self.kind, self.expected, self.attributes = name, kind, expected, attributes

    @cached_property
    def _points(self) -> dict[str, list[EntryPoint]]:
        """The entry points, name to object; those that name the same object count once, and ours come first."""
        found: dict[str, list[EntryPoint]] = {}
        points = entry_points(group=self.name)
        for point in sorted(points, key=lambda one: (_distribution(one) != OWN, one.name, _distribution(one))):
            others = found.setdefault(point.name, [])
            if all(point.value != other.value for other in others):
                others.append(point)
        return found

    def __iter__(self) -> Iterator[str]:
        """Return the names of all plug-ins, usable or not: those of this distribution, then those of others."""
        return iter(self._points)

    def get(self, name: str) -> T:
        """Load the plug-in called ``name``.

        Raises:
            UserError: nothing is called that, it cannot be loaded, or several distributions claim the name.
        """
        if name not in self._points:
            raise unknown(self.kind, name, self._points)
        first, *others = self._points[name]
        if others and _distribution(first) != OWN:
            reason = f"{origin(others[0])} has one of the same name"
        else:
            try:
                plugin = first.load()
                reason = self._unfit(plugin)
            except Exception as error:
                reason = f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"
        if reason:
            raise UserError(f"{self._described(first)} is left out: {reason}")
        return plugin  # type: ignore[no-any-return]

    def _unfit(self, plugin: Any) -> str:
        """Say why an object is no plug-in of this group; empty where it is one."""
        if not self.attributes:
            return "" if isinstance(plugin, self.expected) else f"it is not a {self.expected.__name__}"
        if not (isinstance(plugin, type) and issubclass(plugin, self.expected)):
            return f"it is not a subclass of {self.expected.__name__}"
        missing = [name for name in self.attributes if not hasattr(plugin, name)]
        missing += sorted(getattr(plugin, "__abstractmethods__", ()))
        return f"it does not define {', '.join(missing)}" if missing else ""

    @cached_property
    def usable(self) -> dict[str, T]:
        """All plug-ins that can be loaded, name to object; say on stderr why others can't."""
        found = {}
        for name, (first, *others) in self._points.items():
            try:
                found[name] = self.get(name)
            except UserError as error:
                warn(str(error))
                continue
            for other in others:
                warn(f"{self._described(other)} is left out: {origin(first)} has one of the same name")
        return found

    def point(self, name: str) -> EntryPoint:
        """Return the entry point of a plug-in."""
        return self._points[name][0]

    def _described(self, point: EntryPoint) -> str:
        return f"{self.kind} {point.name!r} ({point.value}) of {origin(point)}"


def warn(line: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"bench: {printable(line)}\n")


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else ""


def origin(point: EntryPoint) -> str:
    """Return the distribution of a plug-in and its version, e.g. ``distill-bench 0.2.0``."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "no distribution"
