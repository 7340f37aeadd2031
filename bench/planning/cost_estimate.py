"""How many accelerator hours a grid will take, by what is printed (``costs.toml``) or was measured. Torch-free.

For data sets at ImageNet size alone: what is printed at 224 px says nothing of small images, whose cells take minutes.

Assumed, where nothing is printed: time grows with pixels; a network costs as its multiplications say, but none less
than ResNet-18, because small ones wait for memory; a backward pass costs two forward ones; and training a network costs
an image what SRe2L's student costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.api import TeacherSpec, registry
from bench.api.label_codec import LabelCodec
from bench.execution.durations import expected_seconds
from bench.execution.scheduling import Schedule
from bench.planning.costs import costs
from bench.planning.protocols import OFFICIAL, read_settings
from bench.store.artifacts import Store
from bench.store.cell import Cell, Stage

LEAST = 128  # px: smaller images are not estimated
PRINTED = 224  # px
PLAIN, ONLINE = "sre2l", "rded"  # whose student is taken for training as such, and whose has its teacher beside it
USUAL = "resnet18"  # students and teachers alike, where it was printed
FORWARD = 1 / 3  # of a training step


class Measured(NamedTuple):
    """Student training that was measured on an accelerator: (student, method) → milliseconds an image."""

    device: str
    milliseconds: dict[tuple[str, str], float]


NOTHING = Measured("", {})


@dataclass
class Estimate:
    """Hours of the cells that are to do."""

    hours: dict[Stage, float] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)  # "distill of NAME" -> cells that are left out
    like: int = 0  # cells that take as long as others like them took

    @property
    def total(self) -> float:
        return sum(self.hours.values())


def estimate(schedule: Schedule, store: Store | None = None, measured: Measured = NOTHING) -> Estimate | None:
    """The hours of what is to do in a grid; None where nothing is, or where the images are small.

    Args:
        store: where cells like these may have been computed; how long they took is better than any reckoning.
        measured: of :func:`measured_on`; it takes the place of printed figures of students.
    """
    todo = [cell for cell in schedule.grid.cells if schedule.state[cell.id] != "done"]
    if schedule.grid.dataset.image_size < LEAST or not todo:
        return None
    took = expected_seconds(schedule, store) if store is not None else lambda cell: None
    reckon = _Reckoner(schedule, measured)
    found = Estimate()
    for cell in todo:
        seconds = took(cell)
        found.like += seconds is not None
        seconds = reckon.seconds(cell) if seconds is None else seconds
        if seconds is None:
            found.unknown[f"{cell.stage} of {cell.by}"] += 1
        else:
            found.hours[cell.stage] = found.hours.get(cell.stage, 0.0) + seconds / 3600
    return found


class _Reckoner:
    """Seconds of cells of one grid."""

    def __init__(self, schedule: Schedule, measured: Measured):
        self.dataset = schedule.grid.dataset
        self.cells = {cell.id: cell for cell in schedule.grid.cells}
        self.pixels = (self.dataset.image_size / PRINTED) ** 2
        self.costs, self.measured = costs(), measured.milliseconds
        self.students = {one.method: one.milliseconds_per_image for one in self.costs.students}
        self.students |= {method: ms for (student, method), ms in self.measured.items() if student == USUAL}
        self.jobs = {(job.stage, job.method): job for job in self.costs.jobs}
        self.passes = {(one.stage, one.method): one for one in self.costs.passes}
        self.images_shown: dict[tuple[Any, ...], int | None] = {}
        self.milliseconds: dict[tuple[str, str | None], float | None] = {}  # (student, label cell)

    def seconds(self, cell: Cell) -> float | None:
        """None: nobody knows."""
        if cell.stage == "teacher":
            return self._teacher(cell)
        if cell.stage == "evaluate":
            return self._student(cell)
        if cell.by in ("stored", "static"):
            return self._kept_labels(cell)
        if job := self.jobs.get((cell.stage, cell.by)):
            sizes = (self._size(name, cell) / of for name, of in job.of.items())
            return 3600 * job.hours * prod(sizes) * self.pixels
        if passes := self.passes.get((cell.stage, cell.by)):
            networks = [_clip(cell)] if passes.network == "clip" else self._teachers(cell)
            images = prod(self._size(name, cell) for name in passes.over)
            return self._passes(networks, images, 1.0 if passes.backward else FORWARD)
        return None

    def _size(self, name: str, cell: Cell) -> float:
        """A number of the setting, or a setting of the method."""
        if name == "ipc":
            return float(cell.call["ipc"])
        if name in ("classes", "train_images", "test_images"):
            return float(getattr(self.dataset, name))
        config = registry.method(cell.by).Config.model_validate(cell.call["settings"])
        return float(getattr(config, name))

    def _weight(self, network: str | None) -> float | None:
        """What a network costs, ResNet-18 being 1."""
        own = self.costs.multiplications.get(network or "")
        return None if own is None else max(1.0, own / self.costs.multiplications[USUAL])

    def _passes(self, networks: Sequence[str | None], images: float, share: float) -> float | None:
        """Seconds in which each network sees the images, for ``share`` of what a training step costs."""
        weights = [self._weight(network) for network in networks]
        if None in weights:
            return None
        return sum(w for w in weights if w) * images * share * self.students[PLAIN] / 1e3 * self.pixels

    def _teacher(self, cell: Cell) -> float | None:
        spec = TeacherSpec(**cell.call["settings"])
        if spec.file_sha256:
            return self._passes([spec.arch], self.dataset.test_images, FORWARD)
        return self._passes([spec.arch], spec.epochs * self.dataset.train_images, 1.0)

    def _teachers(self, cell: Cell) -> list[str]:
        """The architectures of a cell's teachers."""
        spec = TeacherSpec()
        parents = [self.cells[parent] for parent in cell.parents.values()]
        return [str(parent.call["settings"].get("arch", spec.arch)) for parent in parents if parent.stage == "teacher"]

    def _labeller(self, cell: Cell) -> list[str | None]:
        """The networks behind a label model; [None]: nobody knows."""
        if "clip" in cell.fields:
            return [_clip(cell)]
        known = self.passes.get(("label", cell.by))
        return [*self._teachers(cell)] if known is not None and known.network == "teachers" else [None]

    def _kept_labels(self, cell: Cell) -> float | None:
        images = float(self.dataset.classes * self.cells[cell.parents["images"]].call["ipc"])
        if cell.by == "stored":
            images *= cell.call["schedule"]["epochs"] / LabelCodec.parse(cell.call["codec"]).prune
        return self._passes(self._labeller(self.cells[cell.parents["labels"]]), images, FORWARD)

    def _student(self, cell: Cell) -> float | None:
        row, labels = cell.row, cell.parents.get("labels")
        key = (row["protocol"], row["protocol_version"], row["ipc"])
        if key not in self.images_shown:
            self.images_shown[key] = self._shown(cell)
        pair = (row["student"], labels)
        if pair not in self.milliseconds:
            self.milliseconds[pair] = self._milliseconds(*pair)
        images, milliseconds = self.images_shown[key], self.milliseconds[pair]
        return None if images is None or milliseconds is None else images * milliseconds / 1e3 * self.pixels

    def _shown(self, cell: Cell) -> int | None:
        evaluator = registry.evaluator(cell.by)()
        protocol = read_settings(evaluator.Config, cell.fields["protocol"], cell.id)
        if cell.row["ipc"] is None:
            full = cell.fields["protocol"].get("full_data")
            return full["epochs"] * self.dataset.train_images if full else None
        return evaluator.samples_seen(protocol, self.dataset, ipc=cell.row["ipc"])

    def _milliseconds(self, student: str, labels: str | None) -> float | None:
        """Of a student for one image, under the labels of a cell: as measured, or else what training the student takes,
        and what ResNet-18 was printed to take longer under such labels."""
        method, networks = self._like(None if labels is None else self.cells[labels])
        if method is None or None in networks:
            return None
        if (student, method) in self.measured and sum(networks) == 1:
            return self.measured[student, method]
        weight, plain = self._weight(student), self.students[PLAIN]
        return None if weight is None else weight * plain + sum(networks) * (self.students[method] - plain)

    def _like(self, labels: Cell | None) -> tuple[str | None, list[Any]]:
        """The method whose students learn as these do, and what each network that labels costs beside that method's."""
        if labels is None:
            return PLAIN, [1.0]
        if labels.by in ("stored", "static"):
            return {"g_vbsm": "g_vbsm"}.get(self.cells[labels.parents["labels"]].by, PLAIN), [1.0]
        if "clip" in labels.fields:
            return labels.by if labels.by in self.students else None, [1.0]
        return ONLINE, [self._weight(network) for network in self._labeller(labels)]


def _clip(cell: Cell) -> str:
    """The architecture of the public CLIP of a label cell: ``RN50`` of ``RN50:openai``."""
    return str(cell.fields["clip"]).partition(":")[0].partition("@")[0]


def measured_on(boards: Path) -> Measured:
    """What the efficiency boards in a folder say of student training at ImageNet size on an accelerator, each method in
    its authors' batches; of several devices, the first by name. Nothing where there are none."""
    from bench.report_legacy.entries import read_jsonl

    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for path in sorted(boards.glob("made-up-imagenet-1k.*.records.jsonl")):
        for entry in read_jsonl(path).entries:
            device = entry.environment.get("accelerator")
            if entry.cost is not None and device and entry.protocol.startswith(OFFICIAL) and entry.asked == "native":
                of_device = found.setdefault(device, {})
                of_device.setdefault((entry.student, entry.base), []).append(entry.cost.milliseconds_per_image)
    if not found:
        return NOTHING
    device = min(found)
    return Measured(device, {key: median(values) for key, values in found[device].items()})


def in_words(found: Estimate, measured: Measured) -> list[str]:
    """The lines that ``--dry-run`` prints."""
    by_stage = ", ".join(f"{stage} {_number(hours)}" for stage, hours in found.hours.items() if hours)
    device = f"; students as measured on {measured.device}" if measured.device else ""
    lines = [f"about {_number(found.total)} accelerator hours (RTX 4090 and A5000, as printed{device}): {by_stage}"]
    if found.like:
        lines.append(f"of which {found.like} cells by how long others like them took here")
    if found.unknown:
        what = ", ".join(f"{count} {name}" for name, count in sorted(found.unknown.items()))
        lines.append(f"without {found.unknown.total()} cells of which nothing is known: {what}")
    return lines


def _number(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 9.95 else f"{hours:.1f}" if hours >= 0.095 else f"{hours:.2g}"
