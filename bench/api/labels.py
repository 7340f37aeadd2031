"""Synthetic images, and the sources of soft labels for batches of augmented images."""

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


class LabelSource(ABC):
    """A source of soft labels for batches of augmented images.

    A *stored* source dictates the views its labels were made for; an *online* one labels any view. A source is
    saved as a folder that holds a ``source.json`` with its ``kind`` and nothing that is not counted.
    """

    kind: ClassVar[str]
    complete: bool = True  # does it know the logits of all classes as they are, not only a part or up to a shift?

    def schedule(self) -> AugmentationSchedule | None:
        """Return the views that the labels belong to; None: any."""
        return None

    def views_of(self, images: Split) -> Split:
        """Return the images that it labels with the views that came with its labels; as they are where none did."""
        return images

    def replayed_batches(self, epoch: int) -> Sequence[tuple[int, int]] | None:
        """List the (epoch, batch) of the schedule that a student sees in its epoch; None: all batches of that epoch."""
        return None

    def check(self, images: Images, order_hash: str) -> None:  # noqa: B027 — online sources label any image
        """Refuse images these labels were not made for, or another class order.

        Raises:
            UserError: the message names what differs.
        """

    @abstractmethod
    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        """Return logits float32 (B, C) for the augmented batch of a training step; C is ``DatasetInfo.logits``."""

    def features(self, views: AugmentedBatch, step: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return penultimate features (B, D) and the weight (C, D) and bias (C,) that make logits of them.

        None: the logits are not those of a single network with a linear head.
        """
        return None

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
            UserError: a named frozen backbone is not available.
        """

    def public(self) -> tuple[FrozenBackbone, ...]:
        """List the frozen backbones that this source builds on."""
        return ()

    def parameters(self) -> int | None:
        """Count the stored parameters of its model, without frozen backbones; None: not known, or no model."""
        return None


@dataclass(frozen=True)
class LabelSize:
    """The stored size of a method's own label model: ``numbers`` elements of ``width`` bytes.

    ``public`` are the parameters of its frozen backbone; they are counted apart. ``shapes`` are those of the
    named tensors, where they are known.
    """

    numbers: int
    width: int = 4
    public: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False)
