"""Run a method's stages: deal out its blocks, save each, go on after a kill, and put them together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast, final

import torch
from torch import Tensor

from bench.api import Distiller, ImageBlock, Images, LabelSource, Progress, Task
from bench.kit import distributed
from bench.kit.checkpoint import Checkpoint
from bench.kit.validation import InvalidResult, check_images, check_labels

T = TypeVar("T")


@final
class _Blocks:
    """The blocks of one stage: which are this process's, and which is in work."""

    def __init__(self, work: Path, items: Sequence[Any], independent: bool):
        self.work, self.independent = work, independent
        # with the items, as a work folder outlives settings that affect speed alone
        keys = [hashlib.blake2b(repr(item).encode(), digest_size=4).hexdigest() for item in items]
        self.names = [f"block-{index:06d}-{key}" for index, key in enumerate(keys)]
        self.mine = range(len(items))[distributed.share(len(items))] if independent else range(len(items))
        self.current: int | None = None
        self.told = False  # did the block in work say how far it is?
        self.state: Mapping[str, Tensor] = {}
        self.checkpoint = Checkpoint(work, shared=True)

    def todo(self) -> list[int]:
        """List the items to do; where blocks build on one another, those from the first missing one on."""
        missing = [index for index in self.mine if not self._file(index).exists()]
        if self.independent:
            return missing
        first = distributed.broadcast_object(missing[0] if missing else len(self.names))
        if first:
            self.state = distributed.broadcast_object(self.read(first - 1)[1] if distributed.is_main() else {})
        return list(range(first, len(self.names)))

    def begin(self, index: int) -> None:
        self.current = index
        name, cost = f"work-{self.names[index]}", self.checkpoint.cost
        self.checkpoint = Checkpoint(self.work, name, shared=not self.independent, cost=cost)
        self.told = self.checkpoint.exists()  # what was begun before has said how far it is

    def save(self, tensors: dict[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Keep the block in work."""
        assert self.current is not None
        index, self.current, self.state = self.current, None, state
        if self.independent or distributed.is_main():
            self._file(index).save({**tensors, **{f"state.{name}": value for name, value in state.items()}})
        self.checkpoint.discard()

    def read(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Read a finished block: its tensors, and the state that the next one goes on from."""
        found = self._file(index).load()
        if found is None:
            self._file(index).discard()  # so that it is made again
            raise InvalidResult(f"block {index + 1} of {len(self.names)} is missing or was damaged")
        state = {name: found[0].pop(name) for name in [*found[0]] if name.startswith("state.")}
        return found[0], {name.removeprefix("state."): tensor for name, tensor in state.items()}

    def _file(self, index: int) -> Checkpoint:
        return Checkpoint(self.work, self.names[index])


@dataclass(frozen=True, kw_only=True)
class RunningTask(Task):
    """A task whose blocks, checkpoints and shares are kept in its work folder and its process group."""

    work: Path  # a scratch folder that outlives a kill
    on_progress: Progress
    _blocks: list[_Blocks] = field(default_factory=list, init=False, repr=False)  # at most one: those in work

    def blocks(self, items: Sequence[T], independent: bool = False) -> Iterator[T]:
        agreed: list[T] = distributed.broadcast_object(list(items))
        blocks = _Blocks(self.work, agreed, independent)
        self._blocks[:] = [blocks]
        for index in blocks.todo():
            blocks.begin(index)
            yield agreed[index]
            if blocks.current is not None:
                raise InvalidResult(f"item {index + 1} of {len(agreed)} came without a block")

    @property
    def state(self) -> Mapping[str, Tensor]:
        return self._blocks[0].state if self._blocks else {}

    @property
    def checkpoint(self) -> Checkpoint:
        if not self._blocks:
            self._blocks.append(_Blocks(self.work, (), independent=False))
        return self._blocks[0].checkpoint

    def progress(self, done: int, total: int, **metrics: float) -> None:
        if self._blocks and (index := self._blocks[0].current) is not None:
            mine, self._blocks[0].told = self._blocks[0].mine, True
            done, total = (index - mine.start) * total + done, len(mine) * total
        self.on_progress(done, total, **metrics)

    @property
    def _alone(self) -> bool:
        return bool(self._blocks) and self._blocks[0].independent

    @property
    def processes(self) -> int:
        return 1 if self._alone else distributed.size()

    def share(self, count: int) -> slice:
        return slice(0, count) if self._alone else distributed.share(count)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor if self._alone else distributed.all_reduce(tensor)

    # -- what the harness does with what was yielded

    def saved(self, made: Iterator[Any], kind: type, who: str) -> list[dict[str, Tensor]]:
        """Save what a method yields, and return all blocks in the order of their items."""
        for block in made:
            if not isinstance(block, kind):
                raise InvalidResult(f"{who} yielded {type(block).__name__}, expected {kind.__name__}")
            blocks = self._blocks[0] if self._blocks else None
            if blocks is None or blocks.current is None:
                raise InvalidResult(f"{who} yielded a block outside of task.blocks")
            if not blocks.told:
                self.on_progress(blocks.current - blocks.mine.start + 1, len(blocks.mine))
            if isinstance(block, ImageBlock):
                blocks.save({"pixels": block.pixels, "labels": block.labels}, block.state)
            else:
                blocks.save(cast("dict[str, Tensor]", block), {})
        if not self._blocks or not self._blocks[0].names:
            raise InvalidResult(f"{who} yielded no block")
        distributed.wait()  # the folder is shared
        return [self._blocks[0].read(index)[0] for index in range(len(self._blocks[0].names))]


def prepare(method: Distiller, task: RunningTask) -> dict[str, Tensor]:
    """Run ``method.prepare`` and put its blocks together.

    Raises:
        InvalidResult: it made something else than named tensors.
    """
    made: Any = method.prepare(task)
    if isinstance(made, Iterator):
        parts: dict[str, list[Tensor]] = {}
        for block in task.saved(made, Mapping, method.info.name):
            for name, tensor in block.items():
                parts.setdefault(name, []).append(tensor)
        made = {name: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for name, tensors in parts.items()}
    if not isinstance(made, Mapping) or not all(isinstance(tensor, Tensor) for tensor in made.values()):
        raise InvalidResult(f"{method.info.name} prepared something else than named tensors")
    return {name: tensor.detach().contiguous().cpu() for name, tensor in made.items()}


def distill(method: Distiller, task: RunningTask) -> Images:
    """Run ``method.distill`` and put its blocks together, stably sorted by class.

    Raises:
        InvalidResult: these are not the images that were requested.
    """
    made: Any = method.distill(task)
    if isinstance(made, Iterator):
        made = _by_class(task.saved(made, ImageBlock, method.info.name))
    return check_images(made, task.dataset, task.ipc, method.info.name)


def _by_class(blocks: list[dict[str, Tensor]]) -> Images:
    """Put blocks together, stably sorted by class; each is let go once it is copied."""
    labels, order = torch.cat([block["labels"] for block in blocks]).sort(stable=True)
    places = order.argsort()
    pixels = torch.empty(len(labels), *blocks[0]["pixels"].shape[1:], dtype=blocks[0]["pixels"].dtype)
    for count in [len(block["labels"]) for block in blocks]:
        here, places = places[:count], places[count:]
        pixels[here] = blocks.pop(0)["pixels"]
    return Images(pixels, labels)


def label_model(method: Distiller, task: RunningTask) -> LabelSource:
    """Run ``method.label_model``, and refuse what is no label source."""
    return check_labels(method.label_model(task), method.info.name)
