"""Grid → cells: a pure function of the request, without torch and without reading an image.

Every method of the grid brings its images, its native labels and one student per (student, seed). Unless told
not to, baselines ride along: random real images under the same labels, the method's images and random real
images under hard labels, and the whole training set. What two methods share is one cell, because its identity
is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bench import architectures, catalogue, registry
from bench.contract import DatasetInfo, Distiller, Evaluator, Protocol, Recipe, Setting, TeacherSpec
from bench.errors import UserError, unknown
from bench.harness.identity import STAGES, Cell, Stage, digest
from bench.harness.protocols import choose, read_settings
from bench.harness.store import sha256_of

TEACHER_VERSION = 1  # raise it when teacher training changes its results
RANDOM = "random_real"
FULL = "full_data"
EVALUATOR = "classification"


class Request(BaseModel):
    """What the user asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[str, ...]
    ipc: tuple[int, ...] = (1, 10, 50)
    dataset: str = "digits"
    students: tuple[str, ...] = ()  # empty: the data set's own
    seeds: tuple[int, ...] = (0, 1, 2)
    protocols: tuple[str, ...] = ("common",)
    baselines: bool = True
    teacher: Path | None = None  # a foreign checkpoint
    clip: str | None = None
    overrides: dict[str, dict[str, Any]] = {}  # method -> field -> value
    data_root: Path | None = None


class Grid(BaseModel):
    """The cells of a request, parents before children."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: Request
    dataset: DatasetInfo
    cells: tuple[Cell, ...]

    @property
    def id(self) -> str:
        """Stable for the same set of cells."""
        return f"{self.dataset.name}-{digest(sorted(cell.id for cell in self.cells))}"

    def stage(self, stage: Stage) -> list[Cell]:
        """The cells of one stage."""
        return [cell for cell in self.cells if cell.stage == stage]


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
        self.evaluator: type[Evaluator] = registry.evaluator(EVALUATOR)
        self.students = request.students or (self.dataset.student,)
        for student in self.students:
            architectures.check(student)
        self.cells: dict[str, Cell] = {}
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
            values = {**info.teacher.chosen(), **chosen}
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
        for name in self.request.overrides:
            if name not in ("teacher", RANDOM, *self.request.methods):
                raise unknown("method in --set", name, ("teacher", RANDOM, *self.request.methods))
        for wanted in self.request.protocols:
            for name in dict.fromkeys(self.request.methods):
                method = self._method(name)
                self._plan_method(method, choose(self.evaluator, wanted, self.dataset, name))
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
        for seed in self.request.seeds:
            if seed < 0:
                raise UserError(f"--seeds {seed}: seeds are whole numbers from 0 on")

    def _method(self, name: str) -> Distiller:
        method = registry.method(name)
        overrides = self.request.overrides.get(name, {})
        read_settings(method.Config, overrides, f"the settings of {name}")  # unknown keys, in one line
        return method.for_dataset(self.dataset, **overrides)

    def _shown(self, name: str) -> str:
        """The board's name of a method: what differs from the usual shows in brackets."""
        changed = {key: str(value) for key, value in sorted(self.request.overrides.get(name, {}).items())}
        if self.request.clip:
            changed["clip"] = self.request.clip
        if self.dataset.teacher.file_sha256:
            changed["teacher"] = self.dataset.teacher.file_sha256[:8]
        changed |= {f"teacher.{key}": str(value) for key, value in self.request.overrides.get("teacher", {}).items()}
        inner = ",".join(f"{key}={value}" for key, value in changed.items())
        return f"{name}[{inner}]" if inner else name

    # -- cells, stage by stage

    def _add(self, **facts: Any) -> Cell:
        cell = Cell(**facts)
        return self.cells.setdefault(cell.id, cell)

    def _teacher(self, spec: TeacherSpec) -> Cell:
        fields = {**self.identity, **spec.chosen()}
        fields.pop("file", None)  # where the checkpoint lies is not what it is: that is file_sha256
        prefix = f"teacher-{self.dataset.name}-{spec.arch}"
        return self._add(stage="teacher", by="teacher", version=TEACHER_VERSION, fields=fields, prefix=prefix)

    def _recipe_cell(
        self, stage: Stage, recipe: Recipe, setting: Setting, spec: TeacherSpec | None, images: Cell | None
    ) -> Cell:
        parents = {}
        if spec is not None:
            parents["teacher"] = self._teacher(spec).id
        if images is not None:
            parents["images"] = images.id
        fields = {**self.identity, **recipe.fields}
        parts = [stage if stage == "label" else "", recipe.by, self.dataset.name]
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

    def _images(self, method: Distiller, setting: Setting) -> Cell:
        recipe = method.image_recipe(setting)
        return self._recipe_cell("distill", recipe, setting, method.teacher(setting), None)

    def _labels(self, method: Distiller, setting: Setting, images: Cell) -> Cell | None:
        recipe = method.label_recipe(setting)
        if recipe is None:
            return None
        made_for = images if recipe.needs_images else None
        return self._recipe_cell("label", recipe, setting, method.teacher(setting), made_for)

    def _evaluate(
        self,
        method: str,
        label_name: str,
        setting: Setting | None,
        images: Cell | None,
        labels: Cell | None,
        protocol: Protocol,
        seed: int,
    ) -> None:
        parents = {role: cell.id for role, cell in (("images", images), ("labels", labels)) if cell is not None}
        ipc = setting.ipc if setting else None
        for student in self.students:
            fields = {**self.identity, "student": student, "seed": seed, "protocol": protocol.chosen()}
            row = {
                "dataset": self.dataset.name,
                "title": self.dataset.title,
                "method": method,
                "labels": label_name,
                "ipc": ipc,
                "student": student,
                "protocol": protocol.name,
                "protocol_version": protocol.version,
                "seed": seed,
                "classes": self.dataset.classes,
            }
            scale = f"ipc{ipc}" if ipc else "full"
            self._add(
                stage="evaluate",
                by=self.evaluator.name,
                version=self.evaluator.version,
                fields=fields,
                parents=parents,
                prefix=f"{method.split('[')[0]}-{label_name}-{self.dataset.name}-{scale}-{student}-s{seed}",
                row=row,
            )

    def _settings(self) -> Iterator[Setting]:
        for ipc in dict.fromkeys(self.request.ipc):
            for seed in dict.fromkeys(self.request.seeds):
                yield Setting(dataset=self.dataset, ipc=ipc, seed=seed)

    def _plan_method(self, method: Distiller, protocol: Protocol) -> None:
        name = method.info.name
        shown = self._shown(name)
        random = self._method(RANDOM)
        for setting in self._settings():
            method.check(setting)
            images = self._images(method, setting)
            labels = self._labels(method, setting, images)
            self._evaluate(shown, method.info.labels, setting, images, labels, protocol, setting.seed)
            if not self.request.baselines:
                continue
            others = self._images(random, setting)
            if labels is not None:
                maker = method.image_recipe(setting).by  # HeLlO's images are RDED's: so is their hard-label row
                self._evaluate(maker, "hard", setting, images, None, protocol, setting.seed)
                same = self._labels(method, setting, others)
                self._evaluate(RANDOM, method.info.labels, setting, others, same, protocol, setting.seed)
            self._evaluate(RANDOM, "hard", setting, others, None, protocol, setting.seed)
        if self.request.baselines:
            for seed in dict.fromkeys(self.request.seeds):
                self._evaluate(FULL, "hard", None, None, None, protocol, seed)


def ancestors(cells: Iterable[Cell], grid: Grid) -> set[str]:
    """The ids of ``cells`` and of everything they stand on."""
    by_id = {cell.id: cell for cell in grid.cells}
    found: set[str] = set()
    todo = [cell.id for cell in cells]
    while todo:
        cell_id = todo.pop()
        if cell_id not in found:
            found.add(cell_id)
            todo += by_id[cell_id].parents.values()
    return found
