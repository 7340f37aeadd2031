"""Grid → cells: a pure function of the request, without torch and without reading an image.

Every method of the grid brings its images, their labels in every choice asked for, and one student per (student,
seed). Unless told not to, baselines come along: those that say so of themselves (random real images) under the same
labels, the method's images and theirs under hard labels, one static label per image beside stored ones, and the whole
training set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from bench.api import (
    AugmentationSchedule,
    DatasetInfo,
    Distiller,
    Evaluator,
    GridPoint,
    Protocol,
    TeacherSpec,
    architectures,
    catalogue,
    registry,
)
from bench.errors import UserError, unknown
from bench.planning import variants
from bench.planning.cells import Cells, labels_itself
from bench.planning.grid import Grid, Request, levels
from bench.planning.label_choices import LabelChoice, parse
from bench.planning.protocols import changed, choose, evaluator_of, read_settings
from bench.planning.variants import Variant
from bench.store.artifacts import sha256_of
from bench.store.cell import Cell, digest

FULL = "full_data"  # the row of the whole training set
_NO_NAME = re.compile(r"[^\w.+-]+")  # what file names do better without


def baselines() -> tuple[str, ...]:
    """List the methods that come along with every run."""
    return tuple(name for name in registry.method_names() if registry.method(name).info.baseline)


def shared_settings() -> tuple[str, ...]:
    """List whose settings concern every method of a request."""
    return ("teacher", "protocol", *baselines())


def plan(request: Request) -> Grid:
    """Plan all cells of a request.

    Raises:
        UserError: a name nothing answers to, or a setting that can't be.
    """
    return _Planner(request).grid()


class _Rules(NamedTuple):
    """A protocol, its evaluator, and what of them stands in many cells."""

    protocol: Protocol
    evaluator: Evaluator
    chosen: dict[str, Any]
    digest: str
    schedules: dict[GridPoint, AugmentationSchedule]  # of the grid points met so far


class _RowName(NamedTuple):
    method: str
    labels: str
    asked: str  # the choice of --labels that brought the row; empty: a baseline
    via: str  # the method of the request that brought it: others' images may stand in it, or others' labels


class _Planner:
    def __init__(self, request: Request):
        self.request = request
        self.dataset = _dataset(request)
        self.students = request.students or (self.dataset.student,)
        for student in self.students:
            architectures.check(student)
        self.cells = Cells(self.dataset)
        self.label_models: dict[tuple[str, int, int, str], Cell] = {}  # all choices of --labels ask for the same one

    def grid(self) -> Grid:
        _check_numbers(self.request, self.dataset)
        asked = {text: variants.read(text) for text in self.request.methods}
        known = (*shared_settings(), *dict.fromkeys(variant.method for variant in asked.values()))
        for name in self.request.overrides:
            if name not in known:
                raise unknown("method in --set", name, known)
        for wanted in self.request.protocols:
            for text, variant in asked.items():
                protocol = choose(wanted, self.dataset, variant.method)
                protocol = changed(protocol, self.request.overrides.get("protocol", {}))
                told = protocol.non_default_fields(), digest(protocol.model_dump(mode="json"))
                self._plan_method(text, variant, _Rules(protocol, evaluator_of(protocol), *told, {}))
        order = levels(self.cells.by_id.values())
        cells = sorted(self.cells.by_id.values(), key=lambda cell: order[cell.id])  # stable: keeps the plan's order
        return Grid(request=self.request, dataset=self.dataset, cells=tuple(cells))

    def _method(self, variant: Variant) -> Distiller:
        name = variant.method
        method = registry.method(name)
        if ":" in name and name not in self.request.imported:
            raise unknown("method", name, registry.method_names())
        overrides = {**self.request.imported.get(name, {}), **self.request.overrides.get(name, {}), **variant.settings}
        read_settings(method.Config, overrides, f"the settings of {name}")  # unknown keys, in one line
        return method.for_dataset(self.dataset, **overrides)

    def _shown(self, variant: Variant) -> str:
        """The board's name of a method: what differs from the usual shows in brackets."""
        others = {}
        if self.request.clip:
            others["clip"] = self.request.clip
        if self.dataset.teacher.file_sha256:
            others["teacher"] = self.dataset.teacher.file_sha256[:8]
        others |= {f"teacher.{key}": value for key, value in self.request.overrides.get("teacher", {}).items()}
        return variants.shown(
            variant.method, {**self.request.overrides.get(variant.method, {}), **variant.settings}, others
        )

    def _points(self) -> Iterator[GridPoint]:
        for ipc in dict.fromkeys(self.request.ipc):
            for seed in dict.fromkeys(self.request.seeds):
                yield GridPoint(dataset=self.dataset, ipc=ipc, seed=seed)

    def _plan_method(self, asked_for: str, variant: Variant, rules: _Rules) -> None:
        method, name = self._method(variant), variant.method
        labeller, shown = method.info.labels, self._shown(variant)
        # a baseline's images under a variant's labels are another row than under the method's own
        labeller_there = variants.shown(labeller, variant.settings)
        others = {one: self._method(Variant(one, {})) for one in (baselines() if self.request.baselines else ())}
        asked = self._choices(name, method, rules)
        codecs = [choice.codec for choice in asked if choice.kind == "stored"]
        wanted = list(asked)
        if self.request.baselines:
            static = "static" in rules.evaluator.supported_labels and codecs
            wanted += [LabelChoice("static", "fp16")] if static else []
            wanted += [LabelChoice("hard")]
        own = labels_itself(method) or method.info.labels == "hard"
        for point in self._points():
            method.check(point)
            rules.evaluator.check(rules.protocol, self.dataset, method.info, self.students, codecs)
            images = self.cells.images(method, point)
            beside = {one: self.cells.images(other, point) for one, other in others.items() if one != name}
            beside = {one: cell for one, cell in beside.items() if cell != images}  # a method may take a baseline's
            # HeLlO's images are RDED's: so are their rows under labels that are not HeLlO's own
            maker = shown if images.by == name.partition(":")[0] else images.by
            for choice in dict.fromkeys(wanted):
                borrowed = choice.kind in ("teacher", "hard")
                who = shown if own and not borrowed else maker
                row = _RowName(who, choice.title(labeller), asked.get(choice, ""), asked_for)
                for seed in dict.fromkeys(self.request.student_seeds or (point.seed,)):
                    if method.info.fixed_labels and not borrowed:
                        self._check_fixed(method, choice, replace(point, seed=seed), rules)
                    labels = self._labels(method, shown, choice, point, images, rules, seed)
                    self._evaluate(row, point, images, labels, rules, seed)
                    if choice.kind == "static" or (method.info.fixed_labels and choice.kind == "online"):
                        continue
                    for one, cell in beside.items():
                        same = self._labels(method, shown, choice, point, cell, rules, seed)
                        there = row._replace(method=one, labels=choice.title(labeller_there))
                        self._evaluate(there, point, cell, same, rules, seed)
        if self.request.baselines:
            for seed in dict.fromkeys(self.request.student_seeds or self.request.seeds):
                self._evaluate(_RowName(FULL, "hard", "", asked_for), None, None, None, rules, seed)

    def _choices(self, name: str, method: Distiller, rules: _Rules) -> dict[LabelChoice, str]:
        """The choices of --labels for a method, with how each was written."""
        asked = {parse(text, method.info): text for text in self.request.labels}
        known = rules.evaluator.supported_labels
        for choice, text in asked.items():
            if choice.kind not in known:
                raise UserError(
                    f"--labels {text} of {name} are {choice.kind} labels, which the students of "
                    f"{rules.protocol.name} can't use; choose --labels {','.join(known)}"
                )
        return asked

    def _labels(
        self,
        method: Distiller,
        shown: str,
        choice: LabelChoice,
        point: GridPoint,
        images: Cell,
        rules: _Rules,
        student_seed: int,
    ) -> Cell | None:
        """The cell of a method's labels for certain images; None: hard labels. Labels that are stored belong to the
        views of one student seed; a label model, or one label per image, serves them all."""
        if choice.kind == "hard":
            return None
        if choice.kind == "teacher":
            return self.cells.teacher_labels(method, point, choice.detail)
        key = (shown, point.ipc, point.seed, images.id)
        if key not in self.label_models:
            self.label_models[key] = self.cells.label_model(method, point, images)
        model = self.label_models[key]
        if choice.kind == "online":
            return model
        return self.cells.stored_labels(choice, self._schedule(replace(point, seed=student_seed), rules), images, model)

    def _schedule(self, point: GridPoint, rules: _Rules) -> AugmentationSchedule:
        """The views of a student; ``point`` has its seed."""
        if point not in rules.schedules:
            count = point.ipc * self.dataset.classes
            rules.schedules[point] = rules.evaluator.schedule(rules.protocol, self.dataset, count, point.seed)
        return rules.schedules[point]

    def _check_fixed(self, method: Distiller, choice: LabelChoice, point: GridPoint, rules: _Rules) -> None:
        """Refuse labels that came with a set where they can't serve: before anything is computed."""
        name = method.info.name
        if choice.kind != "online":
            raise UserError(
                f"the labels of {name} came with its images and can't be stored anew; choose --labels native, "
                "teacher:fp32 or hard"
            )
        shown, theirs = self._schedule(point, rules), method.label_schedule()
        if theirs is not None and theirs != shown:
            raise UserError(
                f"the labels of {name} were stored for other views than {rules.protocol.name} shows to student seed "
                f"{point.seed}: {shown.differs(theirs)}; take the protocol and the seed they were stored "
                "for, or --labels teacher,hard"
            )

    def _evaluate(
        self,
        name: _RowName,
        point: GridPoint | None,
        images: Cell | None,
        labels: Cell | None,
        rules: _Rules,
        student_seed: int,
    ) -> None:
        parents = {role: cell.id for role, cell in (("images", images), ("labels", labels)) if cell is not None}
        ipc = point.ipc if point else None
        seed = point.seed if point else student_seed
        for student in self.students:
            row = {
                "dataset": self.dataset.name,
                "title": self.dataset.title,
                "method": name.method,
                "labels": name.labels,
                "asked": name.asked,
                "via": name.via,
                "ipc": ipc,
                "student": student,
                "protocol": rules.protocol.name,
                "protocol_version": rules.protocol.version,
                "protocol_digest": rules.digest,
                "seed": seed,
                "classes": self.dataset.classes,
            }
            if self.request.student_seeds:
                row["student_seed"] = student_seed
            scale = f"ipc{ipc}" if ipc else "full"
            seeds = f"s{seed}" if student_seed == seed else f"s{seed}-student{student_seed}"
            prefix = f"{name.method.split('[')[0]}-{name.labels}-{self.dataset.name}-{scale}-{student}-{seeds}"
            self.cells.add(
                stage="evaluate",
                by=rules.evaluator.name,
                version=rules.evaluator.version,
                fields={**self.cells.identity, "student": student, "seed": student_seed, "protocol": rules.chosen},
                parents=parents,
                prefix=_NO_NAME.sub("-", prefix),
                row=row,
            )


def _dataset(request: Request) -> DatasetInfo:
    """The data set as the request has it, with another teacher or CLIP where one was named."""
    info = catalogue.dataset(request.dataset, request.data_root)
    changes: dict[str, Any] = {}
    if request.clip:
        changes["clip"] = request.clip
    if chosen := request.overrides.get("teacher"):
        values = {**info.teacher.non_default_fields(), **chosen}
        info = info.model_copy(update={"teacher": read_settings(TeacherSpec, values, "the settings of teacher")})
        architectures.check(info.teacher.arch)
    if request.teacher:
        if not request.teacher.is_file():
            raise UserError(f"--teacher {request.teacher} is not a file; expected a checkpoint (state dict)")
        changes["teacher"] = info.teacher.model_copy(
            update={"file": str(request.teacher.absolute()), "file_sha256": sha256_of(request.teacher)}
        )
    return info.model_copy(update=changes)


def _check_numbers(request: Request, dataset: DatasetInfo) -> None:
    """Refuse an IPC or a seed that can't be."""
    for ipc in request.ipc:
        if ipc < 1:
            raise UserError(f"--ipc {ipc}: images per class start at 1")
        if ipc > dataset.smallest_class:
            raise UserError(
                f"--ipc {ipc}: the smallest class of {dataset.name} has {dataset.smallest_class} training images, so "
                "that is the largest IPC"
            )
    for flag, seeds in (("seeds", request.seeds), ("student-seeds", request.student_seeds)):
        for seed in seeds:
            if seed < 0:
                raise UserError(f"--{flag} {seed}: seeds are whole numbers from 0 on")
