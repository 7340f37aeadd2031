"""Estimate the accelerator hours of a grid from finished cells like its own, else from what methods state."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from bench.api import MethodCost, TeacherSpec, registry
from bench.api.architectures import STEP, network_hours
from bench.api.stored.codec import LabelCodec
from bench.format import duration
from bench.planning.cells import method_of, point_of
from bench.planning.grid import Grid
from bench.planning.protocols import OFFICIAL, read_settings
from bench.store.artifacts import Damaged, Store
from bench.store.cell import Cell, Stage, canonical
from bench.store.entries import SUFFIX, read_jsonl

LEAST = 128  # px: what is printed says nothing of smaller images, whose cells take minutes
_SEED = re.compile(r"-s\d+(-student\d+)?(?=-|$)")


class Measured(NamedTuple):
    """Student training as measured on an accelerator: (student, method) → milliseconds per image."""

    device: str = ""
    milliseconds: Mapping[tuple[str, str], float] = {}


@dataclass
class Estimate:
    """Hours of the cells to do; ``like``: cells estimated from finished ones; ``unknown``: cells left out.

    ``small``: of images of which no paper says anything, so that finished cells alone tell.
    """

    small: bool = False
    hours: dict[Stage, float] = field(default_factory=lambda: defaultdict(float))
    unknown: Counter[str] = field(default_factory=Counter)
    like: int = 0

    def lines(self, measured: Measured) -> list[str]:
        """Return the lines that open a run."""
        if self.small:
            minutes, cells = max(1, round(60 * sum(self.hours.values()))), self.like + self.unknown.total()
            return [f"about {minutes} min of computing for {self.like} of {cells} cells, as others like them took here"]
        by_stage = ", ".join(f"{stage} {_number(hours)}" for stage, hours in self.hours.items() if hours)
        device = f"; students as measured on {measured.device}" if measured.device else ""
        total = _number(sum(self.hours.values()))
        found = [f"about {total} accelerator hours (RTX 4090 and A5000, as printed{device}): {by_stage}"]
        if self.like:
            found.append(f"of which {self.like} cells as long as others like them took here")
        if self.unknown:
            what = ", ".join(f"{count} {name}" for name, count in sorted(self.unknown.items()))
            found.append(f"without {self.unknown.total()} cells of which nothing is known: {what}")
        return found


def estimate(grid: Grid, todo: Collection[str], store: Store | None, measured: Measured) -> Estimate | None:
    """Estimate the cells ``todo`` of a grid; None where none is to do, or nothing is known of small images."""
    if not todo:
        return None
    like, stated = LikeCells(store), StatedHours(grid, measured)
    found = Estimate(small=grid.dataset.image_size < LEAST)
    for cell in (cell for cell in grid.cells if cell.id in todo):
        if (seconds := like.seconds(cell)) is not None:
            found.like += 1
            found.hours[cell.stage] += seconds / 3600
        elif not found.small and (hours := stated.hours(cell)) is not None:
            found.hours[cell.stage] += hours * (grid.dataset.image_size / 224) ** 2
        else:
            found.unknown[f"{cell.stage} of {cell.by}"] += 1
    return found if found.like or not found.small else None


class LikeCells:
    """Finished cells of a store that differ from others in their seeds alone."""

    def __init__(self, store: Store | None):
        self.store = store
        self.ids: dict[str, list[str]] = defaultdict(list)
        for cell_id in sorted(store.ids("cells")) if store is not None else ():
            self.ids[_SEED.sub("", cell_id.rpartition("-")[0])].append(cell_id)
        self.keys: dict[str, str] = {}  # by cell
        self.known: dict[str, float | None] = {}

    def seconds(self, cell: Cell) -> float | None:
        """Return the mean over the first five cells like this one; None: none is finished."""
        if (key := self.key(cell)) not in self.known:
            took = [*islice(self._took(key, self.ids.get(_SEED.sub("", cell.prefix), ())), 5)]
            self.known[key] = mean(took) if took else None
        return self.known[key]

    def learn(self, cells: Iterable[Cell]) -> None:
        """Count cells that have finished since."""
        for cell in cells:
            self.ids[_SEED.sub("", cell.prefix)].append(cell.id)
            self.known.pop(self.key(cell), None)

    def left(self, cells: Iterable[Cell], paces: Mapping[str, float | None], jobs: int) -> str:
        """Say how long cells take, at most ``jobs`` in parallel; ``paces``: seconds left of those that run."""
        found = [self.seconds(cell) if (pace := paces.get(cell.id)) is None else pace for cell in cells]
        known = [seconds for seconds in found if seconds is not None]
        about, whole = ("at least", math.floor) if None in found else ("about", math.ceil)
        minutes = whole(max(sum(known) / jobs, *known, 0) / 60)
        return f"{about} {duration(60 * minutes).removesuffix(' 00 s')} left" if minutes else ""

    def key(self, cell: Cell) -> str:
        """Return what a cell has in common with those like it, worked out once."""
        if (key := self.keys.get(cell.id)) is None:
            facts = canonical([cell.stage, cell.by, _SEED.sub("", cell.prefix), cell.fields])
            key = self.keys[cell.id] = re.sub(r'"seed":\d+,?', "", facts)
        return key

    def _took(self, key: str, ids: Iterable[str]) -> Iterator[float]:
        for cell_id in ids:
            with suppress(Damaged):
                record = self.store.record(cell_id) if self.store else None
                if record is not None and self.key(record.cell) == key:
                    yield record.run.seconds


class StatedHours:
    """Hours at 224 px by what methods state, what was measured, and the multiplications of networks."""

    def __init__(self, grid: Grid, measured: Measured):
        self.dataset, self.measured = grid.dataset, measured.milliseconds
        self.cells = {cell.id: cell for cell in grid.cells}
        self.shown = cache(self._shown)

    def hours(self, cell: Cell) -> float | None:
        """Return the hours of a cell; None: not known."""
        if cell.stage == "teacher":
            spec = TeacherSpec(**cell.call["settings"])
            seen = self.dataset.test_images if spec.file_sha256 else spec.epochs * self.dataset.train_images
            return network_hours(seen, (spec.arch,), training=not spec.file_sha256)
        if cell.stage == "evaluate":
            return self._student(cell)
        if cell.by in ("stored", "static"):
            images = float(self.dataset.classes * self.cells[cell.parents["images"]].call["ipc"])
            if cell.by == "stored":
                images *= LabelCodec.parse(cell.call["codec"]).kept(cell.call["schedule"]["epochs"])
            return network_hours(images, self._networks(cell.parents["labels"]))
        return 0.0 if "precision" in cell.call else getattr(self._cost(cell), cell.stage)

    def _cost(self, cell: Cell) -> MethodCost:
        return method_of(cell).cost(point_of(cell, self.dataset))

    def _networks(self, labels: str) -> tuple[str, ...]:
        cell = self.cells[labels]
        if cell.by == "teacher":
            return tuple(TeacherSpec(**self.cells[one].call["settings"]).arch for one in cell.parents.values())
        return self._cost(cell).label_networks

    def _student(self, cell: Cell) -> float | None:
        """By its measured time under these labels, else its own passes and what the labels add to them."""
        row, labels = cell.row, cell.parents.get("labels")
        images = self.shown(cell.by, canonical(cell.fields["protocol"]), row["ipc"])
        if images is None:
            return None
        method = row["via"].partition("[")[0] if row["asked"] == "native" else ""
        if milliseconds := self.measured.get((row["student"], method)):
            return images * milliseconds / 3.6e6
        added: float | None = 0.0
        if method and (stated := registry.method(method).info.student_cost):
            added = images * (stated.milliseconds_per_image - STEP) / 3.6e6
        elif labels and self.cells[labels].by not in ("stored", "static"):
            added = network_hours(images, self._networks(labels))
        own = network_hours(images, (row["student"],), training=True)
        return None if own is None or added is None else own + added

    def _shown(self, by: str, fields: str, ipc: int | None) -> int | None:
        evaluator, values = registry.evaluator(by)(), json.loads(fields)
        protocol = read_settings(evaluator.Config, values, "the protocol")
        if ipc is None:
            return values["full_data"]["epochs"] * self.dataset.train_images if values.get("full_data") else None
        return evaluator.samples_seen(protocol, self.dataset, ipc=ipc)


def measured_on(boards: Path) -> Measured:
    """Read student training at ImageNet size on an accelerator from the efficiency boards in a folder.

    Each method is under its authors' recipe; of several devices, it is the alphabetically first.
    """
    found: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(boards.glob(f"*imagenet-1k.*{SUFFIX}")):
        for one in read_jsonl(path).entries:
            device = one.environment.get("accelerator")
            if one.cost is not None and device and one.protocol.startswith(OFFICIAL) and one.asked == "native":
                found[device][one.student, one.base].append(one.cost.milliseconds_per_image)
    device = min(found, default="")
    return Measured(device, {key: median(values) for key, values in found[device].items()})


def _number(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 9.95 else f"{hours:.1f}" if hours >= 0.095 else f"{hours:.2g}"
