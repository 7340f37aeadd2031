"""The code behind a cell: distribution, version, a digest of the source, and all settings."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.api import BaseConfig, TeacherSpec, registry
from bench.planning.protocols import read_settings
from bench.store.cell import Cell
from bench.store.record import PluginFacts
from bench.version import __version__


def plugins(cell: Cell) -> tuple[PluginFacts, ...]:
    """Describe the plug-in that computes a cell, or the harness where it does so itself."""
    if cell.stage == "evaluate":
        evaluator = registry.evaluator(cell.by)
        config: BaseConfig = read_settings(evaluator.Config, cell.fields["protocol"], cell.id)
        where = _installed("bench.evaluators", cell.by, evaluator.__module__)
        return (PluginFacts(kind="evaluator", name=cell.by, **where, settings=config.model_dump(mode="json")),)
    if cell.by in registry.method_names():
        method = registry.method(cell.by)
        config = read_settings(method.Config, cell.call["settings"], cell.id)
        where = _installed("bench.methods", cell.by, method.__module__)
        return (PluginFacts(kind="method", name=cell.by, **where, settings=config.model_dump(mode="json")),)
    settings = cell.call
    if cell.stage == "teacher":
        settings = read_settings(TeacherSpec, cell.call["settings"], cell.id).model_dump(mode="json")
    return (
        PluginFacts(
            kind="harness", name=cell.by, distribution="distill-bench", version=__version__,
            source=source_digest("bench"), settings=settings,
        ),
    )  # fmt: skip


@cache
def _installed(group: str, name: str, module: str) -> dict[str, Any]:
    """Find the distribution behind an entry point; ``module`` stands in for a plug-in that has none."""
    point = next(iter(entry_points(group=group, name=name)), None)
    owner = point.dist if point is not None else None
    return {
        "distribution": owner.name if owner is not None else None,
        "version": owner.version if owner is not None else None,
        "source": source_digest(point.module if point is not None else module),
    }


@cache
def source_digest(module: str) -> str:
    """Return the SHA-256 (hex) of a module's file, or of all Python files of a package by their relative paths."""
    spec = find_spec(module)
    digest = hashlib.sha256()
    if spec is not None and spec.origin is not None:
        origin = Path(spec.origin)
        root = origin.parent
        for path in sorted(root.rglob("*.py")) if spec.submodule_search_locations else [origin]:
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()
