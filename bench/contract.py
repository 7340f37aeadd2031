"""The contract between the benchmark and its plug-ins: the only page a plug-in author must read.

A method is a :class:`Distiller` behind an entry point of the group ``bench.methods``; an evaluator is an
:class:`Evaluator` behind one of the group ``bench.evaluators``. Modules named by entry points must import
without torch, because ``bench list`` and ``bench run --dry-run`` load them: import torch and ``bench.kit``
inside the functions that compute (``bench check METHOD`` tells when that is forgotten).

The same two objects serve at planning time and at run time. A :class:`Setting` is known when the grid is
planned and decides which cells exist; a :class:`Task` is the same setting with the real data, the teacher and
a device, and is what computations get.
"""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

from bench.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.kit.data.dataset import Dataset
    from bench.kit.teachers.trajectory import Trajectory
    from bench.kit.views import Views
    from bench.label_codec import LabelCodec
    from bench.view_plan import ViewSchedule


class Settings(BaseModel):
    """Base of every configuration: frozen, and an unknown key is an error.

    A cell's identity holds only the fields that differ from their defaults, so adding a field with a default
    leaves every existing result where it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def chosen(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)


# --------------------------------------------------------------------------------------------------------------
# What a grid is made of


class TeacherSpec(Settings):
    """Which training trajectory must exist before a method can start.

    The defaults are torchvision's recipe for ResNet-18 (METHODS §1.4: SGD .1, momentum .9, weight decay 1e-4,
    a tenth every 30 of 90 epochs, batches of 256).
    """

    arch: str = "resnet18"
    image_size: int = 224
    epochs: int = 90
    batch_size: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine", "constant"] = "step"  # step: a tenth after each third of the epochs
    nesterov: bool = False
    augment: str = "rrc-flip"  # "rrc-flip", "rrc", "shift" (pad and crop), "shift-flip" or "none"
    min_scale: float = 0.08  # smallest area of a random resized crop
    checkpoints: int = 9  # kept along the trajectory, evenly spaced, the last epoch always among them
    seed: int = 0
    file: str | None = None  # a foreign checkpoint: nothing is trained
    file_sha256: str | None = None  # what that file held: part of the identity, unlike its place
    accuracy: float | None = None  # of a foreign checkpoint, as its authors state it (a fraction)


class DatasetInfo(Settings):
    """What can be said of a data set without reading an image."""

    name: str
    title: str
    version: int = 1
    classes: int
    image_size: int  # pixels a side at which the benchmark uses it
    channels: int = 3  # of the source; images are always handed out as RGB
    smallest_class: int  # training images in the smallest class
    train_images: int
    test_images: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    teacher: TeacherSpec  # the data set's default teacher
    clip: str  # the data set's default public CLIP, as `bench.kit.clip.loading.load_clip` names it
    student: str  # the data set's default student
    flip: bool = True  # may a horizontal flip keep the class? (not for digits)
    masks: bool = False  # does every image come with a prompt and the mask of what is prompted for?
    fingerprint: str | None = None  # of user-supplied folders: class names and file names

    @property
    def logits(self) -> int:
        """How many there are in a label: one a class, or of masks one a pixel at a quarter of the resolution, the rate
        at which SAM answers (arXiv 2304.02643)."""
        return (self.image_size // 4) ** 2 if self.masks else self.classes


@dataclass(frozen=True)
class Setting:
    """One point of the grid as a method sees it: the data set, images per class (IPC) and the seed."""

    dataset: DatasetInfo
    ipc: int
    seed: int


@dataclass(frozen=True)
class Recipe:
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
    schedule: ViewSchedule | None = None  # of fixed labels: the views they were stored for; None: for any


TEACHER_LABELS = Recipe(by="teacher", version=1)  # of a label model that is the method's first teacher as it is


class Progress(typing.Protocol):
    """How long work tells where it is; cheap to call once per step."""

    def __call__(self, done: int, total: int, **metrics: float) -> None: ...


@dataclass(frozen=True)
class Task(Setting):
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


# --------------------------------------------------------------------------------------------------------------
# What methods emit


@dataclass(frozen=True)
class Images:
    """A synthetic set: ``pixels`` uint8 (N, 3, S, S) and hard ``labels`` int64 (N,), class-major, IPC a class.

    ``encoding`` is how the method's authors publish them; JPEG is PIL's, at quality 75.

    Of data sets with masks: ``points`` int64 (N, 2), the prompts, as the row and the column of a pixel; ``masks``
    uint8 (N, S, S), 1 where the image shows what its prompt means. Prompts are input and lie with the images; masks are
    dense hard labels, and their bytes are labels' where a student learns from them.
    """

    pixels: Tensor
    labels: Tensor
    encoding: Literal["jpeg", "png"] = "jpeg"
    points: Tensor | None = None
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PublicBase:
    """A frozen public model that a label source builds on; it is counted apart from what a method stores."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ByteCount:
    """What a student needs on disk, measured on the files.

    ``images``: the encoded images. ``labels``: everything beyond images and hard labels (stored tensors with
    their headers, or the weights of the label model). ``public``: frozen public bases, named and counted apart.
    """

    images: int = 0
    labels: int = 0
    public: tuple[PublicBase, ...] = ()


class LabelSource(ABC):
    """Answers a batch of augmented images with soft labels.

    A *stored* source dictates the views its labels were made for; an *online* one labels any view. A source is
    saved as a folder that holds a ``source.json`` with its ``kind`` and nothing that is not counted.
    """

    kind: ClassVar[str]
    dense: ClassVar[bool] = False  # is its answer a mask: a logit a pixel at a quarter of the resolution, row by row?
    complete: bool = True  # does it know the logits of all classes, or only which are likely?

    def schedule(self) -> ViewSchedule | None:
        """The views the labels belong to; None where they are free."""
        return None

    def replay(self, epoch: int) -> Sequence[tuple[int, int]] | None:
        """Which (epoch, batch) of the schedule a student sees in its epoch; None: all batches of that epoch."""
        return None

    def check(self, images: Images, order_hash: str) -> None:  # noqa: B027 — online sources label any image
        """Refuse images these labels were not made for, or another class order.

        Raises:
            UserError: what differs, by name.
        """

    @abstractmethod
    def soft_labels(self, views: Views, step: int) -> Tensor:
        """Logits (B, C), float32, for the augmented batch ``views`` of training step ``step``; C is the number of
        classes, of a dense source that of its mask's pixels."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything a student needs into ``folder``; safetensors and JSON only."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        """Read back what :meth:`save` wrote.

        Raises:
            UserError: a named public base is not to be had.
        """

    def public(self) -> tuple[PublicBase, ...]:
        """The public bases this source stands on."""
        return ()

    def parameters(self) -> int | None:
        """How many numbers of a model it stores, the public bases' left out; None where it stores answers, or where
        nobody counts."""
        return None


@dataclass(frozen=True)
class LabelSize:
    """What a method's own label model stores, said without building it: so many ``numbers`` of ``width`` bytes each.
    ``public`` are the parameters of the frozen public base that answers with it; they are counted apart."""

    numbers: int
    width: int = 4
    public: int = 0


# --------------------------------------------------------------------------------------------------------------
# The plug-ins


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
    baseline: bool = False  # does it ride along with every run?
    needs: str = ""
    shared: tuple[str, ...] = ()  # stages whose work several processes can share: of prepare, distill and label


class Distiller(ABC):
    """A dataset-distillation method: real images in; synthetic images and a label source out."""

    info: ClassVar[MethodInfo]
    Config: ClassVar[type[Settings]] = Settings
    label_kinds: ClassVar[Mapping[str, str]] = {}  # kind of a label source of its own -> "module:Class"

    def __init__(self, config: Settings | None = None):
        self.config = config if config is not None else self.Config()

    # -- planning: pure, without torch

    def check(self, setting: Setting) -> None:  # noqa: B027 — most methods can do every setting
        """Refuse a setting this method can't do, before anything is computed.

        Raises:
            UserError: what is wrong and the nearest setting that works.
        """

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        """The method as it is run on a data set: its settings there, overlaid by the user's."""
        return cls(cls.Config(**overrides))

    def teachers(self, setting: Setting) -> tuple[TeacherSpec, ...]:
        """The trajectories this method needs; empty where it needs no teacher."""
        return (setting.dataset.teacher,)

    def prepare_recipe(self, setting: Setting) -> Recipe | None:
        """What decides the method's preparation, which grid points with equal recipes share: a pass over the real
        data, scores of a pool. None where there is nothing to prepare."""
        return None

    def image_recipe(self, setting: Setting) -> Recipe:
        """What decides the images."""
        fields = {**self.config.chosen(), "ipc": setting.ipc, "seed": setting.seed}
        return Recipe(self.info.name, self.info.version, fields, self.config.chosen())

    def label_recipe(self, setting: Setting) -> Recipe | None:
        """What decides the label model, which can label any view; by default the teacher itself. None where the
        method has hard labels only. Storing its labels is the harness's work, not the method's."""
        return TEACHER_LABELS

    def label_size(self, setting: Setting) -> LabelSize | None:
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


@dataclass(frozen=True)
class EvaluationTask:
    """What an evaluator gets: the images to train on (None: the whole real training set) and their labels
    (None: hard labels)."""

    dataset: DatasetInfo
    data: Dataset
    images: Images | None
    labels: LabelSource | None
    student: str
    protocol: Protocol
    seed: int
    device: torch.device
    work: Path
    progress: Progress


class Protocol(Settings):
    """How students are trained and tested. A record names its protocol and version; a table never mixes two."""

    name: str
    version: int
    evaluator: str = "classification"  # whose protocol it is
    form: Literal["full", "small"] = "full"  # small: fewer seeds and epochs, to see a suite work
    track: Literal["common", "official", "named"]  # one recipe for all methods, a paper's own, or one only to be named
    title: str
    methods: tuple[str, ...] = ()  # official: whose recipe this is
    datasets: tuple[str, ...] = ()  # for these data sets only; empty: for any without one of its own


class Evaluator(ABC):
    """Trains and tests students on what a method made."""

    name: ClassVar[str]
    version: ClassVar[int]
    Config: ClassVar[type[Protocol]]
    protocols: ClassVar[str]  # the package that holds its protocols as TOML files
    alone: ClassVar[bool] = False  # does it take the time, so that nothing should run beside it?
    metric: ClassVar[str] = "top-1"  # what its headline ``top1`` is, as boards call it
    # the kinds of labels its students can learn from: "stored" ones belong to the views of `schedule`
    takes: ClassVar[tuple[str, ...]] = ("online", "teacher", "stored", "static", "hard")

    def check(
        self,
        protocol: Protocol,
        dataset: DatasetInfo,
        method: MethodInfo,
        students: Sequence[str],
        codecs: Sequence[LabelCodec],
    ) -> None:
        """Refuse, before anything is computed, what no student could be trained and tested by; torch-free.

        Args:
            codecs: of the labels that are to be stored for views.

        Raises:
            UserError: one line, with the next step.
        """
        if method.masks:
            raise UserError(
                f"{method.name} labels with masks, which students of {protocol.name} can't learn from; leave out "
                "--protocol"
            )

    @abstractmethod
    def schedule(self, protocol: Protocol, dataset: DatasetInfo, images: int, seed: int) -> ViewSchedule:
        """The views that a student of ``seed`` sees of a synthetic set under a protocol; torch-free, because
        stored labels are planned with it."""

    def shown(self, protocol: Protocol, dataset: DatasetInfo, images: int) -> int:
        """How many images students are shown in all, each as often as it is; torch-free, because the hours of a grid
        are estimated with it."""
        schedule = self.schedule(protocol, dataset, images, seed=0)
        return schedule.epochs * schedule.images

    @abstractmethod
    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        """The metrics of one student, as plain JSON values; ``top1`` (a fraction) is the headline."""
