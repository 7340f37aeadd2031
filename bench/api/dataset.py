"""Data sets and teachers: facts known without reading an image, and the interfaces that methods use."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from bench.api.architectures import TeacherSpec
from bench.api.config import BaseConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.api.augmentation import AugmentationConfig, AugmentedBatch


class DatasetInfo(BaseConfig):
    """Facts on a data set that are known without reading an image."""

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
    task: str = "classification"  # the evaluator that it is for
    label_shape: tuple[int, ...] | None = None  # of a dense label; None: one logit per class
    fingerprint: str | None = None  # of user-supplied folders: the digest of their contents
    foreign: tuple[TeacherSpec, ...] = ()  # teachers from files, each in place of any other of its architecture

    @property
    def logits(self) -> int:
        """The number of logits of a label."""
        return self.classes if self.label_shape is None else math.prod(self.label_shape)

    def given(self, spec: TeacherSpec) -> TeacherSpec:
        """Return the teacher from files that stands for ``spec``, or else ``spec``."""
        return next((one for one in self.foreign if one.arch == spec.arch), spec)


@dataclass(frozen=True)
class GridPoint:
    """One point of the grid as a method sees it: the data set, images per class (IPC) and the seed."""

    dataset: DatasetInfo
    ipc: int
    seed: int


class Split(ABC):
    """Images with hard labels; ``labels`` is int64 (N,) on the host.

    ``extras`` are tensors with a row for each image, as of :class:`bench.api.Images`.
    """

    extras: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(self, labels: Tensor):
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def views(
        self,
        config: AugmentationConfig,
        epoch: int,
        batch_size: int,
        device: torch.device | str,
        replay: Sequence[tuple[int, int]] | None = None,
        first: int = 0,
        last: int | None = None,
        rows: Callable[[int], slice] | None = None,
    ) -> Iterator[AugmentedBatch]:
        """Yield the views of one epoch on ``device``, in the epoch's order; the last batch may be shorter.

        Args:
            replay: of splits in memory, the (epoch, batch) pairs to show instead.
            first: the first batch to yield. The others are not read, and these are as they would be among them.
            last: the batch before which to stop; None: the end.
            rows: of a batch of so many views, which to make (``Task.share``: this process's); without a mix.

        Raises:
            UserError: an image cannot be decoded, or the augmentation needs images in memory.
        """

    @abstractmethod
    def centered(
        self,
        size: int,
        device: torch.device | str,
        batch_size: int = 256,
        indices: Tensor | None = None,
        whole: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images in order, resized and centre-cropped as test images are.

        They are uint8 (B, 3, size, size), with labels int64 (B,), both on ``device``.

        Args:
            indices: int64 on the host, which images and in which order; all where it is None.
            whole: resized to ``size`` at once, where others are resized above it before the crop.

        Raises:
            UserError: an image cannot be decoded.
        """

    @abstractmethod
    def crops(
        self,
        config: AugmentationConfig,
        indices: Tensor,
        count: int,
        device: torch.device | str,
        then: Tensor | None = None,
    ) -> Tensor:
        """Cut ``count`` crops out of each image: crop k is that of the view in epoch k, without flip or mix.

        Args:
            indices: int64 (B,) on the host.
            then: the images that will be requested next, which a split of files begins to read.

        Returns:
            float32 (count, B, 3, S, S) in [0, 1] on ``device``, S being the configured size.

        Raises:
            UserError: an image cannot be decoded, or the augmentation needs images in memory.
        """

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Return one image, uint8 (3, H, W) on the host.

        Raises:
            UserError: it cannot be decoded.
        """

    def tensors(self) -> Iterator[Tensor]:
        """Yield all that a digest of the images is made of."""
        yield from map(self.image, range(len(self)))
        yield from (self.extras[name] for name in sorted(self.extras))


@dataclass(frozen=True)
class Dataset:
    """A data set, ready for use.

    ``ids`` are its class ids in class order, which teachers and label models are tied to; ``names`` are the
    same classes in words, for prompts.
    """

    info: DatasetInfo
    names: tuple[str, ...]
    ids: tuple[str, ...]
    train: Split
    test: Split

    @cached_property
    def digest(self) -> str:
        """BLAKE2b (hex, 128 bit) of all images, with their classes and splits."""
        digest = hashlib.blake2b("\n".join(self.ids).encode(), digest_size=16)
        for split in (self.train, self.test):
            digest.update(f"{len(split)}".encode() + split.labels.cpu().numpy().tobytes())
            for tensor in split.tensors():
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def order_hash(self) -> str:
        """SHA-256 (hex) of the class ids, joined by newlines."""
        return order_hash(self.ids)


def order_hash(ids: Sequence[str]) -> str:
    """Return the SHA-256 (hex) of class ids, joined by newlines: sets of one hash have one class order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


class NetworkSpec(BaseConfig):
    """The description from which a classifier is built again."""

    arch: str
    classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Classifier(Protocol):
    """A network that takes pixels in [0, 1]: ``net`` behind the normalisation ``pixels * scale + shift``."""

    net: nn.Module
    scale: Tensor
    shift: Tensor

    def __call__(self, pixels: Tensor, /) -> Tensor:
        """Return logits (B, C) for pixels (B, 3, S, S)."""


class Trajectory(Protocol):
    """A trained teacher: checkpoints of one architecture at the kept ``epochs``, which ascend.

    ``accuracy`` holds the test accuracy of each (a fraction).
    """

    @property
    def network(self) -> NetworkSpec: ...

    @property
    def epochs(self) -> tuple[int, ...]: ...

    @property
    def accuracy(self) -> dict[int, float]: ...

    def model(self, epoch: int | None = None) -> Classifier:
        """Return the network at a kept epoch (default: the last), frozen, in eval mode, on the device."""
