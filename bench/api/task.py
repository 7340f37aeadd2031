"""The task that a method is given, and the blocks that it may yield."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from bench.api.dataset import Dataset, GridPoint, Trajectory
from bench.api.labels import Images, LabelSource
from bench.api.seeds import seed_for

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")


class Progress(typing.Protocol):
    """A callback for the progress of long work; cheap to call once per step."""

    def __call__(self, done: int, total: int, **metrics: float) -> None: ...


class Checkpoint(typing.Protocol):
    """A place for unfinished work.

    A loop that draws everything random from counter-based streams needs no more than its tensors and a step to go on
    to the same bits::

        first, tensors = 0, start()
        if found := task.checkpoint.load():
            tensors, first = found[0], found[1]["step"]
        for step in range(first, steps):
            tensors = one_step(tensors, step)
            if task.checkpoint.due():
                task.checkpoint.save(tensors, step=step + 1)
    """

    def due(self) -> bool:
        """Return whether it is time to save; cheap enough to ask after every step."""

    def save(self, tensors: Mapping[str, Tensor], /, **facts: Any) -> None:
        """Keep tensors and plain JSON facts instead of those kept before.

        Where a stop was requested, it leaves by an exception, which must pass.
        """

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was kept last; None where there is nothing, or nothing whole."""

    def save_training(self, model: nn.Module, optimizer: torch.optim.Optimizer, /, **facts: Any) -> None:
        """Keep all that a training loop changes, torch's global random streams included."""

    def restore_training(self, model: nn.Module, optimizer: torch.optim.Optimizer, /) -> dict[str, Any] | None:
        """Put back what :meth:`save_training` kept and return its facts; None where there is nothing."""


@dataclass(frozen=True)
class ImageBlock:
    """Some finished images: ``pixels`` uint8 (N, 3, S, S) and hard ``labels`` int64 (N,).

    ``state`` is what the next block goes on from, where blocks build on one another.
    """

    pixels: Tensor
    labels: Tensor
    state: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Task(GridPoint, ABC):
    """A grid point with everything a computation needs.

    ``teachers`` are those the method requested, in its order; ``prepared`` is what its ``prepare`` made; ``images``
    and ``labels`` are those that :meth:`Distiller.needs` or :meth:`Distiller.images_from` speak of.
    """

    data: Dataset
    teachers: tuple[Trajectory, ...] = ()
    device: torch.device
    prepared: Mapping[str, Tensor] = field(default_factory=dict)
    images: Images | None = None
    labels: LabelSource | None = None

    @property
    def teacher(self) -> Trajectory:
        """The first teacher, of most methods the only one."""
        return self.teachers[0]

    def seed_for(self, purpose: str, *parts: int | str) -> int:
        """Return a seed for a purpose of this task, e.g. ``task.seed_for("mymethod-noise", block)``."""
        return seed_for(purpose, self.seed, *parts)

    @abstractmethod
    def blocks(self, items: Sequence[T], independent: bool = False) -> Iterator[T]:
        """Yield the items that are still to do; for each the method yields one block.

        Every block is saved at once, so that after a kill finished items are not done again, and the images are put
        together from all blocks, stably sorted by class. Items must follow from the task alone.

        Args:
            independent: no block builds on another. Then several processes each get their share of the items;
                else ``state`` is what the block before was yielded with.
        """

    @property
    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """The state that the block before was yielded with; empty before the first."""

    @property
    @abstractmethod
    def checkpoint(self) -> Checkpoint:
        """The checkpoint of the block in work, or of the stage where there are no blocks."""

    @abstractmethod
    def progress(self, done: int, total: int, **metrics: float) -> None:
        """Say how far the block in work is, or the stage where there are no blocks; cheap to call once per step."""

    @property
    @abstractmethod
    def processes(self) -> int:
        """The number of processes that share the stage; 1 inside blocks that are independent."""

    @abstractmethod
    def share(self, count: int) -> slice:
        """Return the part of ``count`` things that falls to this process.

        It is contiguous, the first process's is the largest, and it is empty where there are fewer things.
        """

    @abstractmethod
    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place, and return it: the same bits in each."""
