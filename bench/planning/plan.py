"""Grid → cells: a pure function of the request, without torch and without reading an image."""

from __future__ import annotations

from typing import Any

from bench.api import DatasetInfo, Distiller, GridPoint, TeacherSpec, architectures, catalogue, registry
from bench.errors import UserError, unknown
from bench.planning import variants
from bench.planning.cells import Cells
from bench.planning.grid import Grid, Request, levels
from bench.planning.protocols import changed, choose, read_settings
from bench.planning.rows import Rows
from bench.planning.teachers import PRETRAINED, with_pretrained, with_teachers
from bench.planning.variants import Variant
from bench.store.cell import digest


def baselines() -> tuple[str, ...]:
    """List the methods that come along with every run: those that say so of themselves."""
    return tuple(name for name, method in registry.METHODS.usable.items() if method.info.baseline)


def shared_settings() -> tuple[str, ...]:
    """List whose settings concern every method of a request."""
    return ("teacher", "protocol", *baselines())


def plan(request: Request) -> Grid:
    """Plan all cells of a request: the rows of every method under every protocol.

    Raises:
        UserError: a name nothing answers to, or a setting that can't be.
    """
    dataset = _dataset(request)
    _check_numbers(request, dataset)
    asked = {text: variants.read(text) for text in request.methods}
    known = (*shared_settings(), *dict.fromkeys(variant.method for variant in asked.values()))
    for name in request.overrides:
        if name not in known:
            raise unknown("method in --set", name, known)
    if PRETRAINED in request.teacher:
        point = GridPoint(dataset=dataset, ipc=min(request.ipc), seed=0)
        methods = [_method(variant, request, dataset) for variant in asked.values()]
        dataset = with_pretrained(dataset, (spec for method in methods for spec in method.teachers(point)))
    others = {name: _method(Variant(name, {}), request, dataset) for name in (baselines() if request.baselines else ())}
    cells = Cells(dataset)
    for wanted in request.protocols:
        for text, variant in asked.items():
            protocol = changed(choose(wanted, dataset, variant.method), request.overrides.get("protocol", {}))
            usual = protocol.settings if variant.method in protocol.methods else {}
            method = _method(variant, request, dataset, usual)
            Rows(request, cells, protocol, method, variant, _shown(variant, request, dataset, method), text).add(others)
    order = levels(cells.by_id.values())
    in_order = sorted(cells.by_id.values(), key=lambda cell: order[cell.id])  # stable: keeps the plan's order
    return Grid(request=request, dataset=dataset, cells=tuple(in_order))


def _method(variant: Variant, request: Request, dataset: DatasetInfo, usual: dict[str, Any] | None = None) -> Distiller:
    """Configure a method for the data set, with the user's settings of it, or else the ``usual`` ones of a protocol."""
    name = variant.method
    method = registry.method(name)
    if ":" in name and name not in request.imported:
        raise unknown("method", name, registry.method_names())
    overrides = {
        **request.imported.get(name, {}),
        **(usual or {}),
        **request.overrides.get(name, {}),
        **variant.settings,
    }
    read_settings(method.Config, overrides, f"the settings of {name}")  # unknown keys, in one line
    return method.for_dataset(dataset, **overrides)


def _shown(variant: Variant, request: Request, dataset: DatasetInfo, method: Distiller) -> str:
    """Name a method as boards do: what differs from the usual shows in brackets."""
    told = [spec.model_dump(include={"mean", "std", "class_order", "weights"}, exclude_none=True, mode="json")
            for spec in dataset.foreign]  # fmt: skip
    digests = [digest([spec.file_sha256, own]) if own else spec.file_sha256
               for spec, own in zip(dataset.foreign, told, strict=True) if spec.file_sha256]  # fmt: skip
    others = {
        "clip": request.clip,
        "teacher": (digests[0] if len(digests) == 1 else digest(digests))[:8] if digests else "",
    }
    others = {key: value for key, value in others.items() if value}
    others |= {f"teacher.{key}": value for key, value in request.overrides.get("teacher", {}).items()}
    settings = {**request.overrides.get(variant.method, {}), **variant.settings}
    differing = method.config.non_default_fields()
    settings |= {name: differing[name] for name in method.names_show if name in differing}
    return variants.shown(variant.method, settings, others)


def _dataset(request: Request) -> DatasetInfo:
    """Look up the data set, and give it the teacher and the CLIP of the request."""
    info = catalogue.dataset(request.dataset)
    changes: dict[str, Any] = {"clip": request.clip} if request.clip else {}
    if chosen := request.overrides.get("teacher"):
        values = {**info.teacher.non_default_fields(), **chosen}
        info = info.model_copy(update={"teacher": read_settings(TeacherSpec, values, "the settings of teacher")})
        architectures.check(info.teacher.arch)
    info = with_teachers(info, request, chosen or {})
    return info.model_copy(update=changes)


def _check_numbers(request: Request, dataset: DatasetInfo) -> None:
    """Refuse an IPC or a seed that can't be."""
    if (ipc := min(request.ipc, default=1)) < 1:
        raise UserError(f"--ipc {ipc}: images per class start at 1")
    if (ipc := max(request.ipc, default=1)) > dataset.smallest_class:
        raise UserError(
            f"--ipc {ipc}: the smallest class of {dataset.name} has {dataset.smallest_class} training images, so that "
            "is the largest IPC"
        )
    for flag, seeds in (("seeds", request.seeds), ("student-seeds", request.student_seeds)):
        if wrong := [seed for seed in seeds if not 0 <= seed < 2**32]:  # NumPy takes no larger ones
            raise UserError(f"--{flag} {wrong[0]}: seeds are whole numbers from 0 to 4,294,967,295")
