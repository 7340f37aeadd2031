"""Evaluators: train and test students on what a method made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.api.config import BaseConfig
from bench.api.dataset import DatasetInfo
from bench.api.labels import Images, LabelSource
from bench.api.method import MethodInfo, Progress
from bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from bench.api.augmentation import AugmentationSchedule
    from bench.api.stored.codec import LabelCodec
    from bench.kit.data.dataset import Dataset


class Protocol(BaseConfig):
    """How students are trained and tested. A record names its protocol and version; a table never mixes two."""

    name: str
    version: int
    evaluator: str = "classification"  # whose protocol it is
    form: Literal["full", "small"] = "full"  # small: fewer seeds and epochs, to see a suite work
    track: Literal["common", "official", "named"]  # one recipe for all methods, a paper's own, or one only to be named
    title: str
    methods: tuple[str, ...] = ()  # official: whose recipe this is
    datasets: tuple[str, ...] = ()  # for these data sets only; empty: for any without one of its own


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
    # takes the predicted class of every test image, int64 (images,) or (steps, images), -1 where a step has none,
    # and the true class, int64 (images,)
    keep_predictions: Callable[[torch.Tensor, torch.Tensor], None] = lambda predicted, labels: None


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
    def schedule(self, protocol: Protocol, dataset: DatasetInfo, images: int, seed: int) -> AugmentationSchedule:
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
