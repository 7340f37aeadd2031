"""The stages of a method on a data set, run in one process and kept in a temporary folder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bench.api import AugmentationConfig, Dataset, Distiller, GridPoint, Images, LabelSource, TeacherSpec, Trajectory
from bench.api.config import Artifact
from bench.conformance.runner import killed_after
from bench.errors import UserError
from bench.kit import running
from bench.kit.data.dataset import Resident
from bench.kit.labels.online import OnlineTeacher
from bench.kit.running import RunningTask
from bench.kit.teachers import trajectory
from bench.kit.teachers.train import train_trajectory
from bench.kit.views import AugmentationStream
from bench.planning.cells import labels_itself, prepares


class Workbench:
    """Share what the tests of a method need; each artifact is made when the first of them needs it.

    ``steps`` are the (done, total) pairs of all progress so far.
    """

    def __init__(self, method: Distiller, data: Dataset, ipc: int, folder: Path, seed: int = 0):
        self.method, self.data, self.ipc, self.folder = method, data, ipc, folder
        self.device = torch.device("cpu")
        self.point = GridPoint(data.info, ipc, seed)
        self.steps: list[tuple[int, int]] = []
        self._prepared: dict[str, dict[str, Tensor]] = {}
        self._trained: dict[TeacherSpec, Trajectory] = {}

    def with_seed(self, seed: int) -> Workbench:
        """Return a workbench for another seed that shares the trained teachers."""
        other = Workbench(self.method, self.data, self.ipc, self.folder, seed)
        other._trained = self._trained
        return other

    @cached_property
    def maker(self) -> Distiller:
        """The method that makes the images: this one, or another.

        Raises:
            UserError: nobody makes them.
        """
        made_by: Distiller | None = self.method
        while made_by is not None:
            if made_by.distills(self.point):
                return made_by
            made_by = made_by.images_from(self.point)
        raise UserError(f"{self.method.info.name} makes no images: override distill or images_from")

    @cached_property
    def start(self) -> Images | None:
        """The images that the method's own images start from."""
        source = self.maker.images_from(self.point)
        return None if source is None else running.distill(source, self._task("start", source, "images"))

    @cached_property
    def images(self) -> Images:
        return self.distill("images")

    @cached_property
    def source(self) -> LabelSource:
        """The method's label model, or its teacher."""
        return self.label_model("labels")

    def preparing(self, method: Distiller) -> Distiller | None:
        """Return the method that prepares what ``method`` needs, if any does."""
        found = method.prepared_from(self.point) or method
        return found if prepares(found) else None

    def prepared(self, method: Distiller) -> dict[str, Tensor]:
        """Return what is prepared for a method; empty where nothing is."""
        if (maker := self.preparing(method)) is None:
            return {}
        if (name := maker.info.name) not in self._prepared:
            self._prepared[name] = running.prepare(maker, self._task(f"prepared-{name}", maker, "prepared"))
        return self._prepared[name]

    def prepare_again(self, place: str, stop_after: int | None = None) -> dict[str, Tensor]:
        """Run ``prepare`` for the images in the work folder ``place``.

        Args:
            stop_after: stop it as a kill would after so many progress calls.
        """
        preparing = self.preparing(self.maker)
        assert preparing is not None
        return running.prepare(preparing, self._task(place, preparing, "prepared", stop_after))

    def distill(self, place: str, stop_after: int | None = None) -> Images:
        """Run ``distill``, as :meth:`prepare_again`."""
        return running.distill(self.maker, self._task(place, self.maker, "images", stop_after, images=self.start))

    def label_model(self, place: str, stop_after: int | None = None) -> LabelSource:
        """Run ``label_model``, as :meth:`prepare_again`."""
        if not labels_itself(self.method):
            teacher = self._teacher((self.method.teachers(self.point) or (self.data.info.teacher,))[0])
            assert isinstance(teacher, trajectory.Trajectory)
            return OnlineTeacher.of(teacher)
        images = self.images if "images" in self.method.needs("labels", self.point) else None
        return running.label_model(self.method, self._task(place, self.method, "labels", stop_after, images=images))

    def logits(self, source: LabelSource) -> Tensor:
        """Return the soft labels of one batch of views of all images."""
        schedule = source.schedule()
        views = AugmentationConfig(size=self.data.info.image_size, min_scale=0.5, flip=True, mix="cutmix")
        stream = AugmentationStream(views if schedule is None else schedule.plan, len(self.images))
        known = Resident(self.images.pixels, self.images.labels, channels=source.channels(self.images))
        batch, indices = next(stream.batches(0, len(self.images)))
        made = stream.make(*known.on(self.device), indices, 0, batch)
        return source.soft_labels(made, 0)

    def _task(
        self,
        place: str,
        method: Distiller,
        artifact: Artifact,
        stop_after: int | None = None,
        images: Images | None = None,
    ) -> RunningTask:
        """Return the task of making one artifact, with the others that it needs."""
        (work := self.folder / f"seed-{self.point.seed}" / place).mkdir(parents=True, exist_ok=True)
        needs = method.needs(artifact, self.point)
        return RunningTask(
            **vars(self.point),
            data=self.data,
            teachers=tuple(self._teacher(spec) for spec in method.teachers(self.point)),
            device=self.device,
            work=work,
            on_progress=killed_after(stop_after, self.steps),
            prepared=self.prepared(method) if "prepared" in needs and artifact != "prepared" else {},
            images=images,
            labels=self.source if "labels" in needs and artifact != "labels" else None,
        )

    def _teacher(self, spec: TeacherSpec) -> Trajectory:
        if spec not in self._trained:
            made, work = (self.folder / f"{part}-{len(self._trained)}" for part in ("teacher", "teacher-work"))
            made.mkdir()
            work.mkdir()
            brief = spec.model_copy(
                update={"epochs": min(spec.epochs, spec.checkpoints)}
            )  # nothing here needs accuracy
            train_trajectory(brief, self.data, made, work, self.device, killed_after(None, self.steps))
            self._trained[spec] = trajectory.Trajectory.load(made, self.device)
        return self._trained[spec]
