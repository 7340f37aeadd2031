"""The titles of the installed methods, for boards."""

from __future__ import annotations

from bench.api import registry


def titles_and_baselines() -> tuple[dict[str, str], tuple[str, ...]]:
    """Method name → title, and the names of the methods that ride along."""
    infos = [registry.method(name).info for name in registry.method_names()]
    titles = {info.name: info.title for info in infos} | {"full_data": "Full data"}
    return titles, (*(info.name for info in infos if info.baseline), "full_data")
