"""Grid → cells: a pure function of the request, without torch and without reading an image.

Every method of the grid brings its images, their labels in every choice asked for, and one student per (student,
seed). Unless told not to, baselines ride along: random real images under the same labels, the method's images and
random real images under hard labels, one static label an image beside stored ones, and the whole training set.
What two methods share is one cell, because its identity is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from bench.api import (
    TEACHER_LABELS,
    CellSpec,
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
from bench.api.augmentation import AugmentationSchedule
from bench.errors import UserError, unknown
from bench.planning import variants
from bench.planning.grid import Grid, Request
from bench.planning.label_choices import LabelChoice, parse
from bench.planning.protocols import changed, choose, evaluator_of, read_settings
from bench.planning.variants import Variant
from bench.store.artifacts import sha256_of
from bench.store.cell import STAGES, Cell, Stage

TEACHER_VERSION = 1  # raise it when teacher training changes its results
STORED_VERSION = 1  # raise it when stored or static labels change
RANDOM = "random_real"
FULL = "full_data"
SHARED = ("teacher", "protocol", RANDOM)  # whose settings concern every method of a request
_NO_NAME = re.compile(r"[^\w.+-]+")  # what file names do better without


class _Rules(NamedTuple):
    """A protocol, its evaluator, and what of them stands in many cells."""

    protocol: Protocol
    evaluator: Evaluator
    chosen: dict[str, Any]
    schedules: dict[GridPoint, AugmentationSchedule]  # of the settings met so far


class _RowName(NamedTuple):
    method: str
    labels: str
    asked: str  # the choice of --labels that brought the row; empty: it rides along
    via: str  # the method of the request that brought it: others' images may stand in it, or others' labels


def plan(request: Request) -> Grid:
    """All cells of a request.

    Raises:
        UserError: a name nothing answers to, or a setting that can't be.
    """
    return _Planner(request).grid()


class _Planner:
    def __init__(self, request: Request):
        self.request = request
        self.dataset = self._dataset(request)
        self.students = request.students or (self.dataset.student,)
        for student in self.students:
            architectures.check(student)
        self.cells: dict[str, Cell] = {}
        self.teachers: dict[TeacherSpec, str] = {}  # nearly every cell asks for one
        self.labellers: dict[tuple[str, int, int, str], Cell] = {}  # all choices of --labels ask for the same one
        self.identity: dict[str, Any] = {"dataset": self.dataset.name}
        if self.dataset.version != 1:
            self.identity["dataset_version"] = self.dataset.version
        if self.dataset.fingerprint:
            self.identity["fingerprint"] = self.dataset.fingerprint

    @staticmethod
    def _dataset(request: Request) -> DatasetInfo:
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

    def grid(self) -> Grid:
        self._check_numbers()
        asked = {text: variants.read(text) for text in self.request.methods}
        known = (*SHARED, *dict.fromkeys(variant.method for variant in asked.values()))
        for name in self.request.overrides:
            if name not in known:
                raise unknown("method in --set", name, known)
        for wanted in self.request.protocols:
            for text, variant in asked.items():
                protocol = choose(wanted, self.dataset, variant.method)
                protocol = changed(protocol, self.request.overrides.get("protocol", {}))
                rules = _Rules(protocol, evaluator_of(protocol), protocol.non_default_fields(), {})
                self._plan_method(text, variant, rules)
        order = {stage: index for index, stage in enumerate(STAGES)}
        cells = sorted(self.cells.values(), key=lambda cell: order[cell.stage])  # stable: keeps the plan's order
        return Grid(request=self.request, dataset=self.dataset, cells=tuple(cells))

    def _check_numbers(self) -> None:
        for ipc in self.request.ipc:
            if ipc < 1:
                raise UserError(f"--ipc {ipc}: images per class start at 1")
            if ipc > self.dataset.smallest_class:
                raise UserError(
                    f"--ipc {ipc}: the smallest class of {self.dataset.name} has "
                    f"{self.dataset.smallest_class} training images, so that is the largest IPC"
                )
        for flag, seeds in (("seeds", self.request.seeds), ("student-seeds", self.request.student_seeds)):
            for seed in seeds:
                if seed < 0:
                    raise UserError(f"--{flag} {seed}: seeds are whole numbers from 0 on")

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

    # -- cells, stage by stage

    def _add(self, **facts: Any) -> Cell:
        cell = Cell(**facts)
        return self.cells.setdefault(cell.id, cell)

    def _teacher(self, spec: TeacherSpec) -> str:
        if spec in self.teachers:
            return self.teachers[spec]
        fields = {**self.identity, **spec.non_default_fields()}
        fields.pop("file", None)  # where the checkpoint lies is not what it is: that is file_sha256
        prefix = f"teacher-{self.dataset.name}-{spec.arch}"
        cell = self._add(stage="teacher", by="teacher", version=TEACHER_VERSION, fields=fields, prefix=prefix)
        return self.teachers.setdefault(spec, cell.id)

    def _teachers(self, specs: Iterable[TeacherSpec]) -> dict[str, str]:
        """Role -> id: the first is "teacher", the others "teacher-2" and so on."""
        return {
            f"teacher-{index}" if index > 1 else "teacher": self._teacher(spec)
            for index, spec in enumerate(specs, start=1)
        }

    def _recipe_cell(self, stage: Stage, recipe: CellSpec, setting: GridPoint, parents: dict[str, str]) -> Cell:
        fields = {**self.identity, **recipe.fields}
        parts = [stage if stage in ("prepare", "label") else "", recipe.by, self.dataset.name]
        parts += [f"ipc{fields['ipc']}" if "ipc" in fields else "", f"s{fields['seed']}" if "seed" in fields else ""]
        prefix = "-".join(part for part in parts if part)
        return self._add(
            stage=stage,
            by=recipe.by,
            version=recipe.version,
            fields=fields,
            parents=parents,
            prefix=prefix,
            call={"settings": dict(recipe.settings), "ipc": setting.ipc, "seed": setting.seed},
        )

    def _images(self, method: Distiller, setting: GridPoint) -> Cell:
        recipe, parents = method.image_recipe(setting), self._teachers(method.teachers(setting))
        if recipe.needs_prepared is not False:
            parents |= self._prepared(method, setting, parents)
        return self._recipe_cell("distill", recipe, setting, parents)

    def _prepared(self, method: Distiller, setting: GridPoint, teachers: dict[str, str]) -> dict[str, str]:
        """The cell of a method's preparation by its role; nothing where there is nothing to prepare."""
        recipe = method.prepare_recipe(setting)
        return {"prepared": self._recipe_cell("prepare", recipe, setting, dict(teachers)).id} if recipe else {}

    def _labels(
        self,
        method: Distiller,
        shown: str,
        choice: LabelChoice,
        setting: GridPoint,
        images: Cell,
        rules: _Rules,
        student_seed: int,
    ) -> Cell | None:
        """The cell of a method's labels for certain images; None: hard labels. Labels that are stored belong to the
        views of one student seed; a label model, or one answer an image, serves them all."""
        if choice.kind == "hard":
            return None
        if choice.kind == "teacher":
            return self._teacher_labels(method, setting, choice.detail)
        key = (shown, setting.ipc, setting.seed, images.id)
        if key not in self.labellers:
            self.labellers[key] = self._labeller(method, choice, setting, images)
        labeller = self.labellers[key]
        if choice.kind == "online":
            return labeller
        return self._kept_labels(choice, replace(setting, seed=student_seed), images, labeller, rules)

    def _labeller(self, method: Distiller, choice: LabelChoice, setting: GridPoint, images: Cell) -> Cell:
        """The cell of a method's own label model."""
        recipe = method.label_recipe(setting)
        if recipe is None:
            raise UserError(
                f"{method.info.name} has no label model of its own, so no {choice.kind} labels; "
                "choose --labels hard or teacher:fp32"
            )
        if recipe == TEACHER_LABELS:
            return self._teacher_labels(method, setting, "fp32")
        parents = self._teachers(method.teachers(setting))
        if recipe.needs_prepared:
            parents |= self._prepared(method, setting, parents)
        if recipe.needs_images:
            parents["images"] = images.id
        return self._recipe_cell("label", recipe, setting, parents)

    def _teacher_labels(self, method: Distiller, setting: GridPoint, precision: str) -> Cell:
        specs = method.teachers(setting)[:1] or (self.dataset.teacher,)
        recipe = replace(TEACHER_LABELS, fields={} if precision == "fp32" else {"precision": precision})
        return self._recipe_cell("label", recipe, setting, self._teachers(specs))

    def _kept_labels(
        self, choice: LabelChoice, setting: GridPoint, images: Cell, labeller: Cell, rules: _Rules
    ) -> Cell:
        """``setting`` is the student's: it has its seed."""
        fields: dict[str, Any] = {"codec": choice.detail}
        call: dict[str, Any] = {"codec": choice.detail}
        schedule = self._schedule(setting, rules)
        choice.codec.check(self.dataset.logits, schedule.epochs, self.dataset.name)
        if choice.kind == "stored":  # the views are part of what is stored
            fields["schedule"] = schedule.non_default_fields()
            call["schedule"] = schedule.model_dump(mode="json")
        return self._add(
            stage="label",
            by=choice.kind,
            version=STORED_VERSION,
            fields={**self.identity, **fields},
            parents={"images": images.id, "labels": labeller.id},
            prefix=f"{choice.kind}-{choice.detail}-{images.prefix}",
            call=call,
        )

    def _schedule(self, setting: GridPoint, rules: _Rules) -> AugmentationSchedule:
        """The views of a student; ``setting`` has its seed."""
        if setting not in rules.schedules:
            count = setting.ipc * self.dataset.classes
            rules.schedules[setting] = rules.evaluator.schedule(rules.protocol, self.dataset, count, setting.seed)
        return rules.schedules[setting]

    def _check_fixed(self, name: str, recipe: CellSpec, choice: LabelChoice, setting: GridPoint, rules: _Rules) -> None:
        """Refuse labels that came with a set where they can't serve: before anything is computed."""
        if choice.kind != "online":
            raise UserError(
                f"the labels of {name} came with its images and can't be stored anew; choose --labels native, "
                "teacher:fp32 or hard"
            )
        shown = self._schedule(setting, rules)
        if recipe.schedule is not None and recipe.schedule != shown:
            raise UserError(
                f"the labels of {name} were stored for other views than {rules.protocol.name} shows to student seed "
                f"{setting.seed}: {shown.differs(recipe.schedule)}; take the protocol and the seed they were stored "
                "for, or --labels teacher,hard"
            )

    def _evaluate(
        self,
        name: _RowName,
        setting: GridPoint | None,
        images: Cell | None,
        labels: Cell | None,
        rules: _Rules,
        student_seed: int,
    ) -> None:
        parents = {role: cell.id for role, cell in (("images", images), ("labels", labels)) if cell is not None}
        ipc = setting.ipc if setting else None
        seed = setting.seed if setting else student_seed
        for student in self.students:
            fields = {**self.identity, "student": student, "seed": student_seed, "protocol": rules.chosen}
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
                "seed": seed,
                "classes": self.dataset.classes,
            }
            if self.request.student_seeds:
                row["student_seed"] = student_seed
            scale = f"ipc{ipc}" if ipc else "full"
            seeds = f"s{seed}" if student_seed == seed else f"s{seed}-student{student_seed}"
            self._add(
                stage="evaluate",
                by=rules.evaluator.name,
                version=rules.evaluator.version,
                fields=fields,
                parents=parents,
                prefix=_NO_NAME.sub(
                    "-", f"{name.method.split('[')[0]}-{name.labels}-{self.dataset.name}-{scale}-{student}-{seeds}"
                ),
                row=row,
            )

    def _settings(self) -> Iterator[GridPoint]:
        for ipc in dict.fromkeys(self.request.ipc):
            for seed in dict.fromkeys(self.request.seeds):
                yield GridPoint(dataset=self.dataset, ipc=ipc, seed=seed)

    def _plan_method(self, asked_for: str, variant: Variant, rules: _Rules) -> None:
        method, name = self._method(variant), variant.method
        labeller, shown = method.info.labels, self._shown(variant)
        # random images under a variant's labels are another row than under the method's own
        labeller_there = variants.shown(labeller, variant.settings)
        random = self._method(Variant(RANDOM, {}))
        asked = {parse(text, method.info): text for text in self.request.labels}
        codecs = [choice.codec for choice in asked if choice.kind == "stored"]
        for choice, text in asked.items():
            if choice.kind not in rules.evaluator.takes:
                raise UserError(
                    f"--labels {text} of {name} are {choice.kind} labels, which the students of "
                    f"{rules.protocol.name} can't use; choose --labels {','.join(rules.evaluator.takes)}"
                )
        for setting in self._settings():
            method.check(setting)
            rules.evaluator.check(rules.protocol, self.dataset, method.info, self.students, codecs)
            images = self._images(method, setting)
            others = self._images(random, setting) if self.request.baselines and name != RANDOM else None
            if others == images:  # the method's own images are random real ones
                others = None
            # HeLlO's images are RDED's: so are their rows under labels that are not HeLlO's own
            maker = shown if images.by == name.partition(":")[0] else images.by
            recipe = method.label_recipe(setting)
            own, fixed = recipe != TEACHER_LABELS, recipe is not None and recipe.fixed
            wanted = list(asked)
            if self.request.baselines:
                static = "static" in rules.evaluator.takes and any(one.kind == "stored" for one in asked)
                wanted += [LabelChoice("static", "fp16")] if static else []
                wanted += [LabelChoice("hard")]
            for choice in dict.fromkeys(wanted):
                who = shown if own and choice.kind not in ("teacher", "hard") else maker
                row = _RowName(who, choice.title(labeller), asked.get(choice, ""), asked_for)
                for seed in dict.fromkeys(self.request.student_seeds or (setting.seed,)):
                    if recipe is not None and fixed and choice.kind not in ("teacher", "hard"):
                        self._check_fixed(name, recipe, choice, replace(setting, seed=seed), rules)
                    labels = self._labels(method, shown, choice, setting, images, rules, seed)
                    self._evaluate(row, setting, images, labels, rules, seed)
                    if others is not None and choice.kind != "static" and not (fixed and choice.kind == "online"):
                        same = self._labels(method, shown, choice, setting, others, rules, seed)
                        there = row._replace(method=RANDOM, labels=choice.title(labeller_there))
                        self._evaluate(there, setting, others, same, rules, seed)
        if self.request.baselines:
            for seed in dict.fromkeys(self.request.student_seeds or self.request.seeds):
                self._evaluate(_RowName(FULL, "hard", "", asked_for), None, None, None, rules, seed)
