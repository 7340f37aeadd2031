"""The rows of one method under one protocol, and the cells behind them.

A method brings its images, their labels in every choice requested, and one student per (student, seed). Unless told
not to, baselines come along: their images under the same labels, the method's images and theirs under hard labels,
one static label per image next to stored ones, and the whole training set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from types import MappingProxyType

from bench.api import Distiller, EvaluationRequest, GridPoint, Protocol, architectures
from bench.errors import UserError
from bench.planning import variants
from bench.planning.cells import Cells, labels_itself, network_version
from bench.planning.grid import Request
from bench.planning.label_choices import LabelChoice, parse
from bench.planning.protocols import evaluator_of
from bench.planning.variants import Variant
from bench.store.cell import Cell, digest

FULL = "full_data"  # the row of the whole training set
_NOT_IN_NAMES = re.compile(r"[^\w.+-]+")  # of files


@dataclass
class Rows:
    """The planner of the rows of one method under one protocol.

    ``shown`` is the board's name of the method, and ``via`` that of the request: others' images may stand in its rows,
    or others' labels.
    """

    request: Request
    cells: Cells
    protocol: Protocol
    method: Distiller
    variant: Variant
    shown: str
    via: str

    def __post_init__(self) -> None:
        self.name, self.dataset, protocol = self.variant.method, self.cells.dataset, self.protocol
        # a baseline's images under a variant's labels are another row than under the method's own
        self.labels_of_others = variants.shown(self.method.info.labels, self.variant.settings)
        self.evaluator = evaluator_of(protocol)
        self.students = self.request.students or (self.dataset.student,)
        self.student_versions = {student: network_version("student", student) for student in self.students}
        self.protocol_fields = protocol.non_default_fields()
        named = Protocol.model_fields
        self.protocol_digest = digest({key: own for key, own in self.protocol_fields.items() if key not in named})
        own = {student: protocol.for_student(self.dataset.name, student) for student in self.students}
        self._schedule = cache(
            lambda student, ipc, seed: self.evaluator.schedule(own[student], self.dataset, ipc=ipc, seed=seed)
        )
        self._models: dict[tuple[int, int, str], Cell] = {}  # all choices of --labels ask for the same label model

    def add(self, baselines: Mapping[str, Distiller]) -> None:
        """Plan all rows, at every grid point of the request; refuse what can't be."""
        asked = {parse(text, self.method.info, self.protocol.native): text for text in self.request.labels}
        known = self.evaluator.supported_labels
        for choice, text in asked.items():
            if choice.kind not in known:
                raise UserError(
                    f"--labels {text} of {self.name} are {choice.kind} labels, which the students of "
                    f"{self.protocol.name} can't use; choose --labels {','.join(known)}"
                )
        codecs = tuple(choice.codec for choice in asked if choice.kind in ("stored", "static"))
        wanted = list(asked)
        if self.request.baselines:
            if any(choice.kind == "stored" for choice in asked) and "static" in known:
                wanted.append(LabelChoice("static", "fp16"))
            wanted.append(LabelChoice("hard"))
        for ipc, seed in product(dict.fromkeys(self.request.ipc), dict.fromkeys(self.request.seeds)):
            point = GridPoint(dataset=self.dataset, ipc=ipc, seed=seed)
            self.method.check(point)
            self.evaluator.check(
                EvaluationRequest(self.protocol, self.dataset, self.method.info, self.students, codecs)
            )
            for student in () if self.evaluator.students else self.students:
                architectures.check(student)
            images = self.cells.images(self.method, point)
            others = {name: self.cells.images(one, point) for name, one in baselines.items() if name != self.name}
            for choice in dict.fromkeys(wanted):
                self._add_labels(point, choice, asked.get(choice, ""), images, others)
        if self.request.baselines:
            for seed in dict.fromkeys(self.request.student_seeds or self.request.seeds):
                self._evaluate(FULL, "hard", "", None, seed)

    def _add_labels(
        self, point: GridPoint, choice: LabelChoice, asked: str, images: Cell, others: Mapping[str, Cell]
    ) -> None:
        """Plan the rows of one choice of labels: of the method's images, and of others' under the same labels."""
        info, borrowed = self.method.info, choice.kind in ("teacher", "hard")
        own = not borrowed and (labels_itself(self.method) or info.labels == "hard")
        # HeLlO's images are RDED's: so are their rows under labels that are not HeLlO's own
        maker = self.shown if own or images.by == self.name.partition(":")[0] else images.by
        for seed in dict.fromkeys(self.request.student_seeds or (point.seed,)):
            if info.fixed_labels and not borrowed:
                self._check_fixed(choice, point.ipc, seed)
            labels = self._labels(choice, point, images, seed)
            self._evaluate(maker, choice.title(info.labels), asked, point, seed, images, labels)
            if choice.kind == "static" or (info.fixed_labels and choice.kind == "online"):
                continue
            for name, theirs in others.items():
                if theirs.id != images.id:  # a method may take a baseline's
                    labels, title = self._labels(choice, point, theirs, seed), choice.title(self.labels_of_others)
                    self._evaluate(name, title, asked, point, seed, theirs, labels)

    def _labels(self, choice: LabelChoice, point: GridPoint, images: Cell, student_seed: int) -> dict[str, Cell]:
        """Plan the labels of certain images for each student; none: hard labels.

        Labels that are stored belong to the views of one student seed, and to the batches of a student; a label model,
        or one label per image, serves them all.
        """
        if choice.kind == "hard":
            return {}
        if choice.kind == "teacher":
            return dict.fromkeys(self.students, self.cells.teacher_labels(self.method, point, choice.detail))
        key = point.ipc, point.seed, images.id
        if key not in self._models:
            self._models[key] = self.cells.label_model(self.method, point, images)
        model = self._models[key]
        if choice.kind == "online":
            return dict.fromkeys(self.students, self.cells.packed(model, choice.detail) if choice.detail else model)
        return {
            student: self.cells.stored_labels(choice, self._schedule(student, point.ipc, student_seed), images, model)
            for student in self.students
        }

    def _check_fixed(self, choice: LabelChoice, ipc: int, student_seed: int) -> None:
        """Refuse labels that came with a set where they can't serve: before anything is computed."""
        name = self.method.info.name
        if choice.kind != "online":
            raise UserError(
                f"the labels of {name} came with its images and can't be stored anew; choose --labels native, "
                "teacher:fp32 or hard"
            )
        theirs = self.method.label_schedule()
        for shown in (self._schedule(student, ipc, student_seed) for student in self.students):
            if theirs is not None and (odd := shown.differs(theirs)):
                raise UserError(
                    f"the labels of {name} were stored for other views than {self.protocol.name} shows to student seed "
                    f"{student_seed}: {odd}; take the protocol and the seed they were stored for, or --labels "
                    "teacher,hard"
                )

    def _evaluate(
        self,
        method: str,
        title: str,
        asked: str,
        point: GridPoint | None,
        student_seed: int,
        images: Cell | None = None,
        labels: Mapping[str, Cell] = MappingProxyType({}),
    ) -> None:
        """Plan the students of one row and seed.

        Args:
            method, title: the board's names of the images and the labels.
            asked: the choice of --labels that brought the row; empty: a baseline.
            point: None: on the whole training set.
            labels: of each student; none: hard labels.
        """
        ipc, seed = (point.ipc, point.seed) if point else (None, student_seed)
        scale = f"ipc{ipc}" if ipc else "full"
        seeds = f"s{seed}" if student_seed == seed else f"s{seed}-student{student_seed}"
        for student in self.students:
            both = (("images", images), ("labels", labels.get(student)))
            prefix = f"{method.split('[')[0]}-{title}-{self.dataset.name}-{scale}-{student}-{seeds}"
            fields = {"student": student, "seed": student_seed, "protocol": self.protocol_fields}
            row = {
                "dataset": self.dataset.name,
                "title": self.dataset.title,
                "method": method,
                "labels": title,
                "asked": asked,
                "via": self.via,
                "ipc": ipc,
                "student": student,
                "protocol": self.protocol.name,
                "protocol_version": self.protocol.version,
                "protocol_digest": self.protocol_digest,
                "seed": seed,
                "classes": self.dataset.classes,
                **({"student_seed": student_seed} if self.request.student_seeds else {}),
            }
            self.cells.add(
                stage="evaluate",
                by=self.evaluator.name,
                version=self.evaluator.version,
                fields={**self.cells.identity, **fields, **self.student_versions[student]},
                parents={role: cell.id for role, cell in both if cell is not None},
                prefix=_NOT_IN_NAMES.sub("-", prefix),
                row=row,
            )
