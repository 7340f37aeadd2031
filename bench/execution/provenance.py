"""Provenance of a cell: its code (distribution, version, source digest, all settings) and its data set's files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.api import DatasetInfo, TeacherSpec, architectures, registry
from bench.api.plugins import Group
from bench.api.stored.codec import FORMATS, LabelCodec
from bench.errors import Unusable, UserError
from bench.format import plural
from bench.kit.data import load, scan
from bench.planning.protocols import read_settings
from bench.store.artifacts import Store
from bench.store.cell import Cell
from bench.store.record import PluginFacts, Record
from bench.version import __version__

HARNESS = "bench.kit"  # the code behind teachers and stored labels
GROUPS: dict[str, Group[Any]] = {
    "method": registry.METHODS, "evaluator": registry.EVALUATORS, "student": architectures.STUDENTS, "codec": FORMATS,
}  # fmt: skip


def plugins(cell: Cell) -> tuple[PluginFacts, ...]:
    """Describe the plug-in that computes a cell, or the harness where it does so itself, and its network or codec."""
    settings, arch = cell.call.get("settings", {}), cell.fields.get("student")
    if cell.stage == "evaluate":
        first = _facts("evaluator", cell.by, cell.fields["protocol"])
    elif cell.by in registry.method_names():
        first = _facts("method", cell.by, settings)
    else:
        if cell.stage == "teacher":
            settings = read_settings(TeacherSpec, settings, cell.id).model_dump(mode="json")
        where = {"distribution": "distill-bench", "version": __version__, "source": source_digest(HARNESS)}
        first = PluginFacts(kind="harness", name=cell.by, settings=settings or cell.call, **where)
    parts = {"student": arch or settings.get("arch", "")}
    if "codec" in cell.call:
        parts["codec"] = LabelCodec.parse(cell.call["codec"]).numbers
    return first, *(_facts(kind, name) for kind, name in parts.items() if name in GROUPS[kind])


def keep_contents(info: DatasetInfo, data_root: Path | None, store: Store) -> Path | None:
    """Keep in the store what the image files of a data set hold, and return the file; None where there are no such.

    Raises:
        Unusable: the data are missing or not those that were planned with, or the store can't be written to.
    """
    try:
        found = scan(info, data_root)
        return None if found is None else found.save(store.root / "datasets", info.name)
    except OSError as error:
        raise Unusable(f"{store.root}: {error.strerror}; free some space, or choose another --store") from None
    except UserError as error:
        raise Unusable(str(error)) from None


def check_data(records: Iterable[Record], info: DatasetInfo, data_root: Path | None, kept: Path | None) -> None:
    """Refuse finished cells of other images than are here now; where none are here, there is nothing to compare.

    Args:
        kept: the file of :func:`keep_contents`; then image files are not listed again.

    Raises:
        UserError: says which stages to force.
    """
    made = [record for record in records if record.data_digest]
    if not made or info.fingerprint:  # which the cells' ids tell
        return
    try:
        here = load(info, data_root, kept).digest
    except UserError:
        return
    if other := [record for record in made if record.data_digest != here]:
        stages = dict.fromkeys(record.cell.stage for record in other)
        raise UserError(
            f"{plural(len(other), 'cell')} of this grid were made of other images of {info.name} than are here now "
            f"(digest {other[0].data_digest[:12]}, here {here[:12]}): put those back, choose another --store, or "
            + " ".join(f"--force {stage}" for stage in stages)
        )


def changed_code(records: Iterable[Record]) -> list[str]:
    """Say whose code is another than when its cells were made, though its version is the same."""
    before: dict[str, list[str]] = {}
    for record in records:
        for one in record.plugins:
            group = GROUPS.get(one.kind)
            module = HARNESS if group is None else group.point(one.name).module if one.name in group else ""
            if module and source_digest(module) != one.source:
                before.setdefault(one.name, []).append(record.cell.stage)
    return [
        f"code of {name} changed since {plural(len(stages), 'cell')}, which stay as they are: raise its version, or "
        + " ".join(f"--force {stage}" for stage in dict.fromkeys(stages))
        for name, stages in before.items()
    ]


def _facts(kind: Any, name: str, values: dict[str, Any] | None = None) -> PluginFacts:
    """Describe a plug-in; ``values`` are its settings that differ from their defaults, None where it has none."""
    point, settings, named = GROUPS[kind].point(name), {}, {}
    if values is not None:
        settings = read_settings(GROUPS[kind].get(name).Config, values, name).model_dump(mode="json")
    if point.dist is not None:  # an editable installation keeps the version that the checkout had when it was installed
        own = point.dist.name == "distill-bench"
        named = {"distribution": point.dist.name, "version": __version__ if own else point.dist.version}
    where = {"distribution": None, "version": None, **named, "source": source_digest(point.module)}
    return PluginFacts(kind=kind, name=name, settings=settings, **where)


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
