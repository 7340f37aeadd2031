"""Checks before the first cell: everything that can be refused without computing it.

Networks are built on torch's meta device, teacher files are read and held against their networks, methods look for
their public models, and the store is tried. A plan of the data set's own networks imports no torch.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.api import Distiller, TeacherSpec, registry
from bench.api.augmentation import AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.api.stored.layout import LabelLayout
from bench.errors import UserError
from bench.format import listed, size
from bench.planning.cells import method_of, point_of
from bench.planning.grid import Grid
from bench.store.cell import Cell, canonical
from bench.store.locks import lock

if TYPE_CHECKING:
    from torch import nn


def check(grid: Grid, todo: Collection[str], store: Path, out: Path | None = None) -> None:
    """Check what the cells ``todo`` of a grid need, whose boards are written to ``out``.

    Raises:
        UserError: everything that is wrong, in one line.
    """
    cells = [cell for cell in grid.cells if cell.id in todo]
    found = [*_networks(grid, cells), *_teacher_files(grid, cells), *_methods(grid, cells)]
    if cells:
        found += filter(None, [try_store(store, label_bytes(grid, todo)), try_store(out, flag="--out") if out else ""])
    if found:
        raise UserError("; ".join(dict.fromkeys(found)))


def label_bytes(grid: Grid, todo: Collection[str]) -> int:
    """Count the bytes of the stored labels among the cells ``todo``."""
    return sum(
        LabelLayout(
            AugmentationSchedule(**cell.call["schedule"]), LabelCodec.parse(cell.call["codec"]), grid.dataset.logits
        ).total
        for cell in grid.stage("label")
        if cell.by == "stored" and cell.id in todo
    )


def try_store(root: Path, planned: int = 0, flag: str = "--store") -> str:
    """Write, lock and rename a file where a store is or will be; return what is wrong, or nothing.

    Args:
        planned: the bytes to write there.
        flag: that chooses the place.
    """
    place = root.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        return f"{flag} {root}: {place} is not a folder; choose one with {flag}"
    probe, moved = (place / f".bench-{os.getpid()}-{name}" for name in ("probe", "moved"))
    try:
        probe.touch()
        with lock(probe, wait=False):
            probe.write_text("well")
            probe.replace(moved)
        free = shutil.disk_usage(place).free
    except OSError as error:
        return f"{flag} {root} can't be written to ({error.strerror}); choose a folder of yours with {flag}"
    except UserError as error:
        return str(error)
    finally:
        for path in (probe, moved):
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return f"{size(planned)} of labels are planned, and {root} has {size(free)} free" if free < planned else ""


def _networks(grid: Grid, cells: Collection[Cell]) -> Iterator[str]:
    """Build every student, and teacher that is trained, but those that the data set itself names."""
    info = grid.dataset
    own = {(info.student, info.image_size)}
    if not grid.request.overrides.get("teacher"):
        own.add((info.teacher.arch, info.teacher.image_size))
    wanted = {
        "students": [
            (cell.fields["student"], info.image_size)
            for cell in cells
            if cell.stage == "evaluate" and not registry.evaluator(cell.by).students
        ],
        "teachers": [(spec.arch, spec.image_size) for spec in _teachers(cells)],
    }
    for role, named in wanted.items():
        problems = {one: _problem(grid, *one) for one in dict.fromkeys(named) if one not in own}
        if wrong := {arch: why for (arch, _), why in problems.items() if why}:
            why = listed([f"{arch} ({reason})" for arch, reason in wrong.items()])
            yield f"{role} that {info.name} can't have: {why}; its own is {info.student}, see bench list students"


def _problem(grid: Grid, arch: str, image_size: int) -> str:
    """Say why a network can't be trained at this size; nothing where it can."""
    import torch

    for device in ("meta", "cpu"):  # some networks of others can't be built without numbers
        try:
            with torch.device(device), warnings.catch_warnings(action="ignore"):
                net = _build(grid, arch, image_size)
                logits = net.train()(torch.zeros(2, 3, image_size, image_size))
            if not isinstance(logits, torch.Tensor) or logits.shape != (2, grid.dataset.classes):
                return f"its output is no logits for {grid.dataset.classes} classes"
            return ""
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, UserError):
                reason = reason.partition("; choose another")[0].removeprefix(f"{arch} ")
                if reason.startswith("unknown"):
                    return reason
    return reason


def _build(grid: Grid, arch: str, image_size: int) -> nn.Module:
    from bench.kit.models import build

    return build(arch, grid.dataset.classes, image_size, grid.dataset.mean, grid.dataset.std)


def _teachers(cells: Collection[Cell]) -> list[TeacherSpec]:
    return [TeacherSpec(**cell.call["settings"]) for cell in cells if cell.stage == "teacher"]


def _teacher_files(grid: Grid, cells: Collection[Cell]) -> Iterator[str]:
    """Read every teacher file and hold it against its network."""
    if not (specs := [spec for spec in _teachers(cells) if spec.files]):
        return
    from bench.kit.teachers import foreign
    from bench.kit.teachers.train import network_of

    for spec in specs:
        for path in spec.files:
            try:
                foreign.fitted(network_of(spec, grid.dataset), Path(path), grid.dataset.name, spec.weights)
            except UserError as error:
                yield str(error)


def _methods(grid: Grid, cells: Collection[Cell]) -> Iterator[str]:
    """Let every method look for what it needs from elsewhere."""
    for cell in {canonical([cell.by, cell.call.get("settings")]): cell for cell in cells}.values():
        if cell.by in registry.METHODS and registry.method(cell.by).preflight is not Distiller.preflight:
            try:
                method_of(cell).preflight(point_of(cell, grid.dataset))
            except UserError as error:
                yield str(error)
