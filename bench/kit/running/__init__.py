"""Run a method's stages: deal out its blocks, save each, go on after a kill, and put them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from bench.api import Distiller, ImageBlock, Images, LabelSource, Progress, Task
from bench.kit import distributed
from bench.kit.checkpoint import Checkpoint
from bench.kit.running.blocks import Blocks, Claim, Helped, unclaimed
from bench.kit.validation import InvalidResult, check_images, check_labels

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunningTask(Task):
    """A task whose blocks, checkpoints and shares are kept in its work folder and its process group."""

    work: Path  # a scratch folder that outlives a kill
    on_progress: Progress
    claim: Claim = unclaimed
    helps: float = 0.0  # a process with another's stage, from this share of the blocks on; 0: the stage is its own
    _blocks: list[Blocks] = field(default_factory=list, init=False, repr=False)  # at most one: those in work

    def blocks(self, items: Sequence[T], independent: bool = False) -> Iterator[T]:
        agreed: list[T] = distributed.broadcast_object(list(items))
        blocks = Blocks(self.work, agreed, independent, self.claim, self.helps)
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
            self._refuse_help()
            self._blocks.append(Blocks(self.work, (), False, self.claim, self.helps))
        return self._blocks[0].checkpoint

    def progress(self, done: int, total: int, **metrics: float) -> None:
        if self._blocks and self._blocks[0].current is not None:
            blocks, blocks.told = self._blocks[0], True
            done, total = blocks.done * total + done, len(blocks.mine) * total
        self.on_progress(done, total, **metrics)

    @property
    def _alone(self) -> bool:
        return bool(self._blocks) and self._blocks[0].independent

    @property
    def processes(self) -> int:
        return 1 if self._alone else distributed.size()

    def _refuse_help(self) -> None:
        if self.helps:  # only independent blocks can be helped with
            raise Helped

    def share(self, count: int) -> slice:
        if not self._alone:
            self._refuse_help()
        return slice(0, count) if self._alone else distributed.share(count)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor if self._alone else distributed.all_reduce(tensor)

    # -- what the harness does with what was yielded

    def saved(self, made: Iterator[Any], kind: type, who: str) -> list[dict[str, Tensor]]:
        """Save what a method yields, and return all blocks in the order of their items.

        Raises:
            Helped: a helper has none left to make.
        """
        try:
            for block in made:
                if not isinstance(block, kind):
                    raise InvalidResult(f"{who} yielded {type(block).__name__}, expected {kind.__name__}")
                blocks = self._blocks[0] if self._blocks else None
                if blocks is None or blocks.current is None:
                    raise InvalidResult(f"{who} yielded a block outside of task.blocks")
                if not blocks.told:
                    self.on_progress(blocks.done + 1, len(blocks.mine))
                if isinstance(block, ImageBlock):
                    blocks.save({"pixels": block.pixels, "labels": block.labels}, block.state)
                else:
                    blocks.save(cast("dict[str, Tensor]", block), {})
        finally:
            if self._blocks:
                self._blocks[0].release()
        if self.helps:
            raise Helped
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
