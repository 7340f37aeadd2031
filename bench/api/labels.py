"""Synthetic images, and label sources: what answers a batch of augmented images with soft labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.api.augmentation import AugmentationSchedule, AugmentedBatch
    from bench.api.dataset import Split


Encoding = Literal["jpeg", "png"]  # of images on disk; JPEG is PIL's, at quality 75


@dataclass(frozen=True)
class Images:
    """A synthetic set: ``pixels`` uint8 (N, 3, S, S) and hard ``labels`` int64 (N,), class-major, IPC per class.

    ``extras`` are further tensors with a row for each image: rows (N, K) of whole numbers, which are input as the
    pixels are, and uint8 maps (N, H, W), which are dense hard labels.
    """

    pixels: Tensor
    labels: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class FrozenBackbone:
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
    public: tuple[FrozenBackbone, ...] = ()


class LabelSource(ABC):
    """Answers a batch of augmented images with soft labels.

    A *stored* source dictates the views its labels were made for; an *online* one labels any view. A source is
    saved as a folder that holds a ``source.json`` with its ``kind`` and nothing that is not counted.
    """

    kind: ClassVar[str]
    complete: bool = True  # does it know the logits of all classes, or only which are likely?

    def schedule(self) -> AugmentationSchedule | None:
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
    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        """Logits (B, C), float32, for the augmented batch ``views`` of training step ``step``; C is the ``logits`` of
        the data set."""

    def channels(self, images: Images) -> Tensor | None:
        """Return extra channels uint8 (N, P, S, S) of the images that it labels, which become ``views.channels``."""
        return None

    def measure(self, test: Split, size: int, device: torch.device) -> dict[str, float] | None:
        """Measure an online source on the test images; None: the harness measures top-1."""
        return None

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

    def public(self) -> tuple[FrozenBackbone, ...]:
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
