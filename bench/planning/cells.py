"""The cells of a grid, stage by stage: their inputs and their identities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.api import AugmentationSchedule, DatasetInfo, Distiller, GridPoint, TeacherSpec, architectures, registry
from bench.api.config import Artifact
from bench.api.stored.columns import label_columns
from bench.errors import UserError
from bench.planning.label_choices import LabelChoice
from bench.planning.protocols import read_settings
from bench.store.cell import Cell, Stage

TEACHER_VERSION = 2  # raise it when teacher training changes its results
STORED_VERSION = 1  # raise it when stored or static labels change
PACKED_VERSION = 1  # raise it when label models are stored otherwise in a precision
TEACHER = "teacher"  # who computes teachers, and labels with one as it is
_STAGES: dict[Artifact, Stage] = {"prepared": "prepare", "images": "distill", "labels": "label"}


class Cells:
    """The cells planned so far; what two methods share is one cell, because its identity is the same."""

    def __init__(self, dataset: DatasetInfo):
        self.dataset = dataset
        self.by_id: dict[str, Cell] = {}
        self._teachers: dict[TeacherSpec, str] = {}  # nearly every cell asks for one
        self.identity: dict[str, Any] = {
            "dataset": dataset.name,
            **({"dataset_version": dataset.version} if dataset.version != 1 else {}),
            **({"fingerprint": dataset.fingerprint} if dataset.fingerprint else {}),
        }

    def add(self, **facts: Any) -> Cell:
        """Add a cell unless its like is there."""
        cell = Cell(**facts)
        return self.by_id.setdefault(cell.id, cell)

    def teachers(self, specs: Iterable[TeacherSpec]) -> dict[str, str]:
        """Plan trajectories; role -> id: the first is "teacher", the others "teacher-2" and so on."""
        return {
            f"teacher-{place}" if place > 1 else "teacher": self._teacher(one) for place, one in enumerate(specs, 1)
        }

    def _teacher(self, spec: TeacherSpec) -> str:
        spec = self.dataset.given(spec)
        if spec not in self._teachers:
            cell = self.add(
                stage="teacher",
                by=TEACHER,
                version=TEACHER_VERSION,
                fields={**self.identity, "config": spec.identity(), **network_version("arch", spec.arch)},
                prefix=f"teacher-{self.dataset.name}-{spec.arch}",
                call={"settings": spec.non_default_fields()},
            )
            self._teachers[spec] = cell.id
        return self._teachers[spec]

    def images(self, method: Distiller, point: GridPoint) -> Cell:
        """Plan a method's images: its own, or those of the method it takes them from."""
        return self.add(**self._images(method, point))

    def _images(self, method: Distiller, point: GridPoint) -> dict[str, Any]:
        source = method.images_from(point)
        start = None if source is None else self._images(source, point)
        if method.distills(point):
            return self._made("images", method, point, start)
        if start is None:
            raise UserError(f"{method.info.name} makes no images: override distill or images_from")
        return start

    def label_model(self, method: Distiller, point: GridPoint, images: Cell | None) -> Cell:
        """Plan the label model of a method: its own, perhaps made for particular ``images``, or its teacher as it is.

        Raises:
            UserError: the method has none.
        """
        if labels_itself(method):
            facts = self._made("labels", method, point)
            if images is not None and "images" in method.needs("labels", point):
                facts["parents"]["images"] = images.id
            return self.add(**facts)
        if method.info.labels == "hard":
            raise UserError(
                f"{method.info.name} has no label model of its own, so no online or stored labels; "
                'choose --labels hard or teacher:fp32; a method whose MethodInfo has labels="teacher" has them'
            )
        return self.teacher_labels(method, point, "fp32")

    def teacher_labels(self, method: Distiller, point: GridPoint, precision: str) -> Cell:
        """Plan the first teacher of a method, or the data set's, as a label source."""
        return self.add(
            stage="label",
            by=TEACHER,
            version=TEACHER_VERSION,
            fields={**self.identity, **({} if precision == "fp32" else {"precision": precision})},
            parents=self.teachers(method.teachers(point)[:1] or (self.dataset.teacher,)),
            prefix=f"label-teacher-{self.dataset.name}",
            call={"precision": precision, "ipc": point.ipc, "seed": point.seed},
        )

    def _made(
        self, artifact: Artifact, method: Distiller, point: GridPoint, start: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Describe the cell of what a method makes itself; ``start`` describes the images that it starts from."""
        needs, parents = method.needs(artifact, point), self.teachers(method.teachers(point))
        fields = dict(self.identity)
        if start is not None:  # they are made again with the method, because files would have lost detail
            parents |= start["parents"]
            own = {key: value for key, value in start["fields"].items() if key not in self.identity}
            fields["start"] = {"by": start["by"], "version": start["version"], **own}
        preparing = method.prepared_from(point) or method
        if "prepared" in needs and artifact != "prepared" and prepares(preparing):
            parents["prepared"] = self.add(**self._made("prepared", preparing, point)).id
        if "labels" in needs and artifact != "labels":
            parents["labels"] = self.label_model(method, point, None).id
        if config := method.config.identity(artifact):
            fields["config"] = config
        stage, name = _STAGES[artifact], method.info.name.partition(":")[0]
        decides = method.depends_on(artifact, point)
        prefix = [*([stage] if stage != "distill" else []), name, self.dataset.name]
        prefix += [f"{sign}{decides[key]}" for sign, key in (("ipc", "ipc"), ("s", "seed")) if key in decides]
        return {
            "stage": stage,
            "by": name,
            "version": method.info.version,
            "fields": {**fields, **decides},
            "parents": parents,
            "prefix": "-".join(prefix),
            "call": {"settings": method.config.non_default_fields(), "ipc": point.ipc, "seed": point.seed},
        }

    def packed(self, model: Cell, precision: str) -> Cell:
        """Plan a label model again, stored in a precision."""
        return self.add(
            stage="label",
            by=model.by,
            version=PACKED_VERSION,
            fields={**self.identity, "precision": precision},
            parents={"labels": model.id},
            prefix=f"{model.prefix}-{precision}",
            call={**model.call, "precision": precision},
        )

    def stored_labels(self, choice: LabelChoice, schedule: AugmentationSchedule, images: Cell, model: Cell) -> Cell:
        """Plan the stored labels of certain images: for every view of a schedule, or one per image."""
        choice.codec.check(self.dataset.logits, schedule.epochs, self.dataset.name, schedule.plan.mix)
        self._check_weight(choice)
        call: dict[str, Any] = {"codec": choice.detail}
        fields = {**self.identity, **call}
        if choice.codec.version != 1:  # of a number format of another package
            fields["codec_version"] = choice.codec.version
        if choice.kind == "stored":  # the views are part of what is stored
            fields["schedule"] = schedule.non_default_fields()
            call["schedule"] = schedule.model_dump(mode="json")
        return self.add(
            stage="label",
            by=choice.kind,
            version=STORED_VERSION,
            fields=fields,
            parents={"images": images.id, "labels": model.id},
            prefix=f"{choice.kind}-{choice.detail}-{images.prefix}",
            call=call,
        )

    def _check_weight(self, choice: LabelChoice) -> None:
        """Refuse to keep some logits in more bytes than all of them have."""
        codec, logits = choice.codec, self.dataset.logits
        some, every = (
            sum(column.row_bytes for column in label_columns(one, logits))
            for one in (codec, codec.model_copy(update={"keep": 0, "renorm": False}))
        )
        if some > every:
            raise UserError(
                f"--labels {choice.kind}:{codec} stores {some} bytes per label, all {logits} logits are {every}; keep "
                "fewer, or leave topk or renorm out"
            )


def method_of(cell: Cell) -> Distiller:
    """Return the method that computes a cell, configured as it was planned."""
    kind = registry.method(cell.by)
    return kind(read_settings(kind.Config, cell.call["settings"], f"the settings of {cell.by}"))


def point_of(cell: Cell, dataset: DatasetInfo) -> GridPoint:
    """Return the grid point of a method's cell."""
    return GridPoint(dataset, cell.call["ipc"], cell.call["seed"])


def network_version(role: str, name: str) -> dict[str, int]:
    """Return what a network of another package adds to an identity: its version, unless it is the first."""
    network = architectures.plugin(name)
    return {f"{role}_version": network.version} if network is not None and network.version != 1 else {}


def labels_itself(method: Distiller) -> bool:
    """Return whether a method has a label model of its own."""
    return type(method).label_model is not Distiller.label_model


def prepares(method: Distiller) -> bool:
    """Return whether a method prepares something."""
    return type(method).prepare is not Distiller.prepare
