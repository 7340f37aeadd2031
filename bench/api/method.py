"""Methods: real images in; synthetic images and a label source out."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api.config import BaseConfig
from bench.api.dataset import DatasetInfo, GridPoint, TeacherSpec
from bench.api.labels import Images, LabelSize, LabelSource

if TYPE_CHECKING:
    import torch

    from bench.api.augmentation import AugmentationSchedule
    from bench.kit.data.dataset import Dataset
    from bench.kit.teachers.trajectory import Trajectory


@dataclass(frozen=True)
class CellSpec:
    """What decides an artifact; it becomes the identity of the cell that makes it.

    Two methods whose recipes are equal share the artifact: HeLlO returns RDED's recipe for its images, and they
    are computed once. ``settings`` configure the method that computes it and are not part of the identity:
    ``fields`` must tell apart whatever they change.
    """

    by: str  # the method whose `distill` or `label` computes it
    version: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs_images: bool = False  # of label recipes: are the labels made for particular images?
    needs_prepared: bool | None = None  # does it read what `prepare` wrote? None: images do and label models don't
    fixed: bool = False  # of label recipes: labels that came with the images and can't be made for others
    schedule: AugmentationSchedule | None = None  # of fixed labels: the views they were stored for; None: for any


TEACHER_LABELS = CellSpec(by="teacher", version=1)  # of a label model that is the method's first teacher as it is


class Progress(typing.Protocol):
    """How long work tells where it is; cheap to call once per step."""

    def __call__(self, done: int, total: int, **metrics: float) -> None: ...


@dataclass(frozen=True)
class Task(GridPoint):
    """A setting with everything a computation needs.

    ``work`` is a scratch folder that outlives a kill: what is checkpointed there (``bench.kit.checkpoint``) is
    found again when the cell is run again.
    """

    data: Dataset
    teachers: tuple[Trajectory, ...]  # those the method asked for, in its order
    device: torch.device
    work: Path
    progress: Progress
    prepared: Path | None = None  # what `prepare` wrote, where the method has a recipe for it

    @property
    def teacher(self) -> Trajectory:
        """The first teacher, of most methods the only one."""
        return self.teachers[0]


@dataclass(frozen=True)
class MethodInfo:
    """What `bench list methods` shows of a method."""

    name: str
    title: str
    version: int  # part of every identity: raise it when results change
    paper: str
    labels: str  # the board's word for who labels: "teacher", "projector", "ensemble"; "hard" where nobody does
    masks: bool = False  # does it work on data sets with masks alone?
    stored: str = ""  # the codec in which the method stores its labels ("fp16"); empty: they are given online
    label_files: str = ""  # the format in which the authors' code writes labels: "fkd", or "fkd+index" (image numbers)
    baseline: bool = False  # does it ride along with every run?
    needs: str = ""
    shared: tuple[str, ...] = ()  # stages whose work several processes can share: of prepare, distill and label


class Distiller(ABC):
    """A dataset-distillation method: real images in; synthetic images and a label source out."""

    info: ClassVar[MethodInfo]
    Config: ClassVar[type[BaseConfig]] = BaseConfig
    label_kinds: ClassVar[Mapping[str, str]] = {}  # kind of a label source of its own -> "module:Class"

    def __init__(self, config: BaseConfig | None = None):
        self.config = config if config is not None else self.Config()

    # -- planning: pure, without torch

    def check(self, setting: GridPoint) -> None:  # noqa: B027 — most methods can do every setting
        """Refuse a setting this method can't do, before anything is computed.

        Raises:
            UserError: what is wrong and the nearest setting that works.
        """

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        """The method as it is run on a data set: its settings there, overlaid by the user's."""
        return cls(cls.Config(**overrides))

    def teachers(self, setting: GridPoint) -> tuple[TeacherSpec, ...]:
        """The trajectories this method needs; empty where it needs no teacher."""
        return (setting.dataset.teacher,)

    def prepare_recipe(self, setting: GridPoint) -> CellSpec | None:
        """What decides the method's preparation, which grid points with equal recipes share: a pass over the real
        data, scores of a pool. None where there is nothing to prepare."""
        return None

    def image_recipe(self, setting: GridPoint) -> CellSpec:
        """What decides the images."""
        fields = {**self.config.non_default_fields(), "ipc": setting.ipc, "seed": setting.seed}
        return CellSpec(self.info.name, self.info.version, fields, self.config.non_default_fields())

    def label_recipe(self, setting: GridPoint) -> CellSpec | None:
        """What decides the label model, which can label any view; by default the teacher itself. None where the
        method has hard labels only. Storing its labels is the harness's work, not the method's."""
        return TEACHER_LABELS

    def label_size(self, setting: GridPoint) -> LabelSize | None:
        """What the method's own label model stores; None where only building it would tell, or where it is the
        teacher."""
        return None

    # -- running

    def prepare(self, task: Task, folder: Path) -> None:
        """Write what ``prepare_recipe`` stands for into ``folder``: safetensors and JSON only. Resumable."""
        raise NotImplementedError(f"{self.info.name} prepares nothing")

    @abstractmethod
    def distill(self, task: Task) -> Images:
        """Make the synthetic images. Resumable: may be killed and called again with the same ``task.work``."""

    def label(self, task: Task, images: Images | None) -> LabelSource:
        """Make the label model of a recipe of one's own; ``images`` is None unless the recipe ``needs_images``."""
        raise NotImplementedError(f"{self.info.name} has no label model of its own")
