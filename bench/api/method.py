"""Methods: real images in; synthetic images and a label source out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api.architectures import TeacherSpec
from bench.api.config import Artifact, BaseConfig
from bench.api.dataset import Dataset, DatasetInfo, GridPoint
from bench.api.labels import Encoding, Images, LabelSize, LabelSource
from bench.api.task import ImageBlock, Task

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api.augmentation import AugmentationSchedule


@dataclass(frozen=True)
class MethodCost:
    """Hours of a method's stages at 224 px on one grid point, and the networks that answer a view; None: not known."""

    prepare: float | None = None
    distill: float | None = None
    label: float | None = None
    label_networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudentCost:
    """The printed cost of training ResNet-18 at 224 px under a method's own labels."""

    batch_size: int
    seconds: float  # per iteration
    mebibytes: int
    reference: bool = False  # whether the paper holds the others against it

    @property
    def milliseconds_per_image(self) -> float:
        """Milliseconds per image shown."""
        return 1e3 * self.seconds / self.batch_size


@dataclass(frozen=True)
class MethodInfo:
    """The facts on a method that `bench list methods` shows and that plans are made with."""

    name: str
    title: str
    version: int  # part of every identity: raise it when results change
    paper: str
    labels: str  # the board's word for who labels: "teacher", "projector", "ensemble"; "hard" where nobody does
    tasks: tuple[str, ...] = ("classification",)  # of the data sets that it is for; empty: any
    stored: str = ""  # the codec in which the method stores its labels ("fp16"); empty: they are given online
    label_files: str = ""  # the format in which the authors' code writes labels: "fkd", or "fkd+index" (image numbers)
    student_cost: StudentCost | None = None  # as printed, under the method's own labels
    baseline: bool = False  # does it come along with every run?
    needs: str = ""
    shared: tuple[str, ...] = ()  # stages whose work several processes can share: of prepare, distill and label
    imported: bool = False  # is it called NAME:SET, with settings that say which set?
    fixed_labels: bool = False  # did the labels come with the images, and can't be made for others?
    look: int | None = None  # place of colour and marker in figures; None: the next free one


class Distiller:
    """A dataset-distillation method: real images in; synthetic images and a label source out.

    What a method does not override it does not have: without ``prepare`` nothing is prepared, and without
    ``label_model`` the teacher labels, or nobody where ``info.labels`` is "hard".
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[type[BaseConfig]] = BaseConfig
    names_show: ClassVar[tuple[str, ...]] = ()  # fields that rows' names show wherever they differ from the defaults
    label_kinds: ClassVar[Mapping[str, str]] = {}  # kind of a label source of its own -> "module:Class"
    quick: ClassVar[Mapping[str, Any]] = {}  # settings of a run of seconds, for the conformance suite

    def __init__(self, config: BaseConfig | None = None):
        self.config = config if config is not None else self.Config()

    # -- planning: pure, without torch

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        """Configure the method for a data set: its settings there, overlaid by the user's."""
        return cls(cls.Config(**overrides))

    def check(self, point: GridPoint) -> None:
        """Refuse a grid point this method can't do, before anything is computed.

        Raises:
            UserError: what is wrong and the nearest setting that works.
        """

    def preflight(self, point: GridPoint) -> None:
        """Look for what the method needs from elsewhere (a public model, a file), once before a run; torch may be used.

        Raises:
            UserError: it is not there, with the next step.
        """

    def teachers(self, point: GridPoint) -> tuple[TeacherSpec, ...]:
        """Name the trajectories this method needs: by default the data set's teacher, and none for hard labels."""
        return () if self.info.labels == "hard" else (point.dataset.teacher,)

    def images_from(self, point: GridPoint) -> Distiller | None:
        """Return the configured method whose images these are, e.g. ``RDED(self.config.images)``; None: its own.

        They are computed once for both. Where this method :meth:`distills` from them, they are ``task.images``, as
        they are before they become files.
        """
        return None

    def prepared_from(self, point: GridPoint) -> Distiller | None:
        """Return the configured method whose preparation this one uses, computed once for both; None: its own."""
        return None

    def distills(self, point: GridPoint) -> bool:
        """Return whether this method makes images itself; False: those of :meth:`images_from` as they are."""
        return type(self).distill is not Distiller.distill

    def needs(self, artifact: Artifact, point: GridPoint) -> Sequence[Artifact]:
        """Name the method's other artifacts that making ``artifact`` takes.

        They arrive as ``task.prepared``, ``task.images`` and ``task.labels``.
        """
        return ("prepared",) if artifact == "images" else ()

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        """Name what decides an artifact besides the configuration and what it is made from, as plain JSON values."""
        return {"ipc": point.ipc, "seed": point.seed} if artifact == "images" else {"seed": point.seed}

    def label_schedule(self) -> AugmentationSchedule | None:
        """Return the views that fixed labels were stored for; None: any."""
        return None

    def label_size(self, point: GridPoint) -> LabelSize | None:
        """Say what the method's own label model stores; None where only building it would tell."""
        return None

    def shared(self) -> tuple[str, ...]:
        """Say which stages several processes can share under these settings."""
        return self.info.shared

    def cost(self, point: GridPoint) -> MethodCost:
        """State the accelerator time of the method's stages at ImageNet size, as printed or by passes of networks."""
        return MethodCost()

    def encoding(self, point: GridPoint) -> Encoding:
        """Say how the method's authors publish images."""
        return "jpeg"

    # -- running: resumable, may be killed and called again

    def prepare(self, task: Task) -> Mapping[str, Tensor] | Iterator[Mapping[str, Tensor]]:
        """Make what all IPC share: a pass over the real data, scores of a pool.

        Of yielded blocks equal keys are concatenated in the order of the items, and others come together.
        """
        raise NotImplementedError(f"{self.info.name} prepares nothing")

    def distill(self, task: Task) -> Images | Iterator[ImageBlock]:
        """Make the synthetic images, or yield them in blocks (see :meth:`Task.blocks`)."""
        raise NotImplementedError(f"{self.info.name} makes no images")

    def label_model(self, task: Task) -> LabelSource:
        """Make the label model, which can label any view. Storing its labels is the harness's work."""
        raise NotImplementedError(f"{self.info.name} has no label model of its own")

    @classmethod
    def example_data(cls) -> Dataset | None:
        """Make tiny data for the conformance checks; None: four classes of stripes at 16 px."""
        return None
