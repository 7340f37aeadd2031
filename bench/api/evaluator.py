"""Evaluators: train and test students on what a method made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from bench.api.config import BaseConfig
from bench.api.dataset import Dataset, DatasetInfo
from bench.api.labels import Images, LabelSource
from bench.api.method import MethodInfo
from bench.api.task import Progress
from bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from bench.api.augmentation import AugmentationSchedule
    from bench.api.stored.codec import LabelCodec


class Protocol(BaseConfig):
    """Training and test of students. A record names its protocol and version; a table never mixes two."""

    name: str
    version: int
    evaluator: str = "classification"
    form: Literal["full", "small"] = "full"  # small: fewer seeds and epochs, for a quick run of a suite
    track: Literal["common", "official", "named"]  # one recipe for all methods; a paper's own; or chosen by name only
    title: str
    methods: tuple[str, ...] = ()  # of official protocols: the methods whose recipe it is
    datasets: tuple[str, ...] = ()  # only these data sets; empty: any without a protocol of its own
    settings: dict[str, Any] = Field(default={})  # of those methods, where users give none
    native: Literal["stored", "online"] | None = None  # the authors' labels there, where they differ from the method's

    def for_student(self, dataset: str, student: str) -> Self:
        """Return the protocol with the values of one student on a data set, where they differ from the general."""
        return self


@dataclass(frozen=True)
class EvaluationTask:
    """The inputs of one evaluation.

    ``images`` to train on (None: the whole real training set) and their ``labels`` (None: hard labels).
    """

    dataset: DatasetInfo
    data: Dataset
    images: Images | None
    labels: LabelSource | None
    student: str
    protocol: Protocol
    ipc: int | None  # images per class; None: the whole real training set
    seed: int
    device: torch.device
    work: Path
    progress: Progress
    # takes the predicted class of every test image, int64 (images,) or (steps, images), -1 where a step has none,
    # and the true class, int64 (images,)
    keep_predictions: Callable[[torch.Tensor, torch.Tensor], None] = lambda predicted, labels: None


@dataclass(frozen=True)
class EvaluationRequest:
    """The choices that an evaluator checks before anything is computed.

    ``codecs`` are those of the labels to store, per view or per image.
    """

    protocol: Protocol
    dataset: DatasetInfo
    method: MethodInfo
    students: Sequence[str]
    codecs: Sequence[LabelCodec]


class Evaluator(ABC):
    """Train students on synthetic images and test them."""

    name: ClassVar[str]
    version: ClassVar[int]
    Config: ClassVar[type[Protocol]]
    exclusive: ClassVar[bool] = False  # measures time, so that nothing should run at the same time
    task: ClassVar[str] = "classification"  # of the methods whose images and labels its students learn from
    # networks of its own, name → description, which `check` knows; empty: its students are classifiers
    students: ClassVar[Mapping[str, str]] = MappingProxyType({})
    metric: ClassVar[str] = "top-1"  # what its headline ``top1`` is, as boards call it
    # the kinds of labels that its students can learn from: "stored" ones belong to the views of `schedule`
    supported_labels: ClassVar[tuple[str, ...]] = ("online", "teacher", "stored", "static", "hard")

    def check(self, request: EvaluationRequest) -> None:
        """Refuse, before anything is computed, what no student can be trained on or tested with; torch-free.

        Raises:
            UserError: one line, with the next step.
        """
        method = request.method
        if method.tasks and self.task not in method.tasks:
            raise UserError(
                f"{method.name} is for {', '.join(method.tasks)}, which students of {request.protocol.name} don't "
                "learn; leave out --protocol"
            )

    @abstractmethod
    def schedule(self, protocol: Protocol, dataset: DatasetInfo, *, ipc: int, seed: int) -> AugmentationSchedule:
        """Return the views of a synthetic set that a student of ``seed`` sees with soft labels.

        Torch-free, because stored labels are planned with it.
        """

    def samples_seen(self, protocol: Protocol, dataset: DatasetInfo, *, ipc: int) -> int:
        """Count the training samples over all epochs and students; torch-free, to estimate costs."""
        schedule = self.schedule(protocol, dataset, ipc=ipc, seed=0)
        return schedule.epochs * schedule.images

    @abstractmethod
    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        """Train and test one student, and return its metrics as plain JSON values.

        Among them is the headline ``top1`` (a fraction).
        """
