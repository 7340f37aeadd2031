"""Upgrades of what older releases wrote: a step from each schema version to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]

RECORDS: dict[int, Upgrade] = {}  # schema version -> what makes a record of it one of the next


class UnknownVersion(ValueError):
    """Nothing here reads this schema version; the message names it."""


def upgraded(data: Any, current: int, upgrades: Mapping[int, Upgrade]) -> dict[str, Any]:
    """Bring a parsed JSON object to the ``current`` schema version, step by step.

    Raises:
        UnknownVersion: it is of a version that no step leads on from, of a later one, or no object at all.
    """
    if not isinstance(data, dict):
        raise UnknownVersion("it is no JSON object")
    values: dict[str, Any] = data
    version = values.get("schema_version", 1)
    while version != current:
        if type(version) is not int or version not in upgrades:
            raise UnknownVersion(f"schema version {version!r} is not known to this release, which writes {current}")
        values = {**upgrades[version](values), "schema_version": version + 1}
        version += 1
    return values
