"""Blocks that methods yield: saved, gone on with, dealt out, and put together; and what is refused of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.api import (
    BaseConfig,
    Dataset,
    DatasetInfo,
    Distiller,
    ImageBlock,
    Images,
    MethodInfo,
    Task,
    TeacherSpec,
)
from bench.kit import distributed, running
from bench.kit.data.dataset import Resident
from bench.kit.running import RunningTask
from bench.kit.running.blocks import Helped
from bench.kit.validation import InvalidResult
from bench.store.locks import lock
from tests.processes import run_ranks
from tests.stopping import stopped_every

CLASSES, IPC, SIDE = 3, 2, 4
INFO = DatasetInfo(
    name="noise", title="Noise", classes=CLASSES, image_size=SIDE, smallest_class=9, train_images=27, test_images=3,
    mean=(0.5,) * 3, std=(0.25,) * 3, teacher=TeacherSpec(), clip="icon-clip", student="convnet2",
)  # fmt: skip


def silent(done: int, total: int, **_: float) -> None:
    """Tells nobody."""


def task(work: Path, progress: Callable[..., None] = silent) -> RunningTask:
    work.mkdir(exist_ok=True, parents=True)
    split, ids = Resident(torch.zeros(3, 3, SIDE, SIDE, dtype=torch.uint8), torch.arange(3)), ("a", "b", "c")
    return RunningTask(
        dataset=INFO, ipc=IPC, seed=0, data=Dataset(INFO, ids, ids, split, split), device=torch.device("cpu"),
        work=work, on_progress=progress,
    )  # fmt: skip


class Chained(Distiller):
    """Six items, image by image over the classes; every image is one lighter than the one before."""

    info: ClassVar[MethodInfo] = MethodInfo(name="chained", title="Chained", version=1, paper="", labels="hard")

    class Config(BaseConfig):
        independent: bool = False

    config: Config

    def distill(self, task: Task) -> Iterator[ImageBlock]:
        for item in task.blocks(range(CLASSES * IPC), self.config.independent):
            level = task.state["level"] + 1 if task.state else torch.tensor(1)
            level = torch.tensor(item + 1) if self.config.independent else level
            pixels = torch.full((1, 3, SIDE, SIDE), int(level), dtype=torch.uint8)
            yield ImageBlock(pixels, torch.tensor([item % CLASSES]), {"level": level})

    def prepare(self, task: Task) -> Iterator[Mapping[str, Tensor]]:
        for item in task.blocks(range(4), independent=True):
            yield {"all": torch.tensor([item]), f"own-{item}": torch.tensor(task.share(9).stop * task.processes)}


def levels(images: Images) -> list[int]:
    return images.pixels[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("every", [1, 4])
def test_stopped_again_and_again_images_are_sorted_by_class(tmp_path: Path, independent: bool, every: int) -> None:
    method = Chained(Chained.Config(independent=independent))
    made, told = stopped_every(every, lambda progress: running.distill(method, task(tmp_path / "work", progress)))
    assert levels(made) == [1, 4, 2, 5, 3, 6]
    assert made.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert told == [1, 2, 3, 4, 5, 6]  # no item was done twice


def test_items_that_changed_are_done_again(tmp_path: Path) -> None:
    class Grouped(Chained):
        size = 1

        def distill(self, task: Task) -> Iterator[ImageBlock]:
            labels = torch.arange(CLASSES).repeat_interleave(IPC)
            for item in task.blocks(list(labels.split(self.size)), independent=True):
                pixels = torch.full((len(item), 3, SIDE, SIDE), self.size, dtype=torch.uint8)
                yield ImageBlock(pixels, item)

    method = Grouped()
    assert set(levels(running.distill(method, task(tmp_path)))) == {1}
    method.size = 2
    assert set(levels(running.distill(method, task(tmp_path)))) == {2}


def test_equal_keys_are_concatenated_and_others_merged(tmp_path: Path) -> None:
    made = running.prepare(Chained(), task(tmp_path))
    assert made["all"].tolist() == [0, 1, 2, 3]
    assert [int(made[f"own-{item}"]) for item in range(4)] == [9] * 4


INDEPENDENT = Chained(Chained.Config(independent=True))


def blocks(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("block-*"))


def test_helpers_make_what_nobody_has_claimed_from_their_share_on(tmp_path: Path) -> None:
    order: list[int] = []

    def claim(path: Path) -> AbstractContextManager[bool]:
        order.append(int(path.name.split("-")[2]))
        return lock(path, wait=False) if order[-1] != 1 else nullcontext(False)  # another's

    drained(replace(task(tmp_path), claim=claim, helps=0.5))
    assert (order, blocks(tmp_path)) == ([3, 4, 5, 0, 1, 2], [0, 2, 3, 4, 5])
    assert not [*tmp_path.glob("*.lock")], "what is finished needs none"
    told: list[int] = []
    made = running.distill(INDEPENDENT, task(tmp_path, lambda done, total: told.append(done)))
    assert (levels(made), told) == ([1, 4, 2, 5, 3, 6], [6])


def test_the_last_to_come_finds_what_was_finished_meanwhile(tmp_path: Path) -> None:
    helped: list[int] = []

    def claim(path: Path) -> AbstractContextManager[bool]:
        if not helped:  # between its look at the folder and its first claim
            helped.append(1)
            drained(replace(task(tmp_path), helps=0.5, claim=partial(lock, wait=False)))
        return lock(path, wait=False)

    told: list[int] = []
    made = running.distill(INDEPENDENT, replace(task(tmp_path, lambda done, total: told.append(done)), claim=claim))
    assert (levels(made), told) == ([1, 4, 2, 5, 3, 6], [])


def drained(given: RunningTask, method: Distiller = INDEPENDENT) -> None:
    with pytest.raises(Helped):
        running.distill(method, given)


def test_what_can_not_be_helped_with_is_left_alone(tmp_path: Path) -> None:
    drained(replace(task(tmp_path), helps=0.5), Chained())
    (tmp_path / "block-000000-00000000.ckpt").touch()  # of other items
    drained(replace(task(tmp_path), helps=0.5))
    assert blocks(tmp_path) == [0]


def test_blocks_of_others_are_waited_for_and_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)

    def claim(path: Path) -> AbstractContextManager[bool]:
        return lock(path, wait=False) if "000002" not in path.name or len(waits) == 3 else nullcontext(False)

    made = running.distill(INDEPENDENT, replace(task(tmp_path), claim=claim))  # 3 is held until its process has died
    assert (levels(made), len(waits)) == ([1, 4, 2, 5, 3, 6], 3)


def make(folder: Path) -> None:
    """Run both stages in one of several processes, and keep what it made and told."""
    told: list[int] = []

    def progress(done: int, total: int, **_: float) -> None:
        told.append(done)

    method = Chained(Chained.Config(independent=True))
    prepared = running.prepare(method, task(folder / "prepare", progress))
    images = running.distill(method, task(folder / "distill", progress))
    chained = running.distill(Chained(), task(folder / "chained"))
    made = {"prepared": prepared["all"], "images": images.pixels, "chained": chained.pixels}
    save_file({**made, "told": torch.tensor(told)}, folder / f"{distributed.rank()}.safetensors")


def test_processes_share_independent_blocks_and_end_up_with_the_same(tmp_path: Path) -> None:
    make(tmp_path / "alone")
    run_ranks(2, make, tmp_path / "two")
    alone, first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("alone/0", "two/0", "two/1"))
    for made in (first, second):
        assert all(torch.equal(made[name], alone[name]) for name in ("prepared", "images", "chained"))
        assert made["told"].tolist() == [1, 2, 1, 2, 3]  # half of what one process told
    assert alone["told"].tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 5, 6]


class Wrong(Distiller):
    """Makes what it is told to."""

    info: ClassVar[MethodInfo] = MethodInfo(name="wrong", title="Wrong", version=1, paper="", labels="hard")

    def __init__(self, made: Callable[[Task], Any]):
        super().__init__()
        self.made = made

    def prepare(self, task: Task) -> Any:
        return self.made(task)

    def distill(self, task: Task) -> Any:
        return self.made(task)

    def label_model(self, task: Task) -> Any:
        return self.made(task)


BLOCK = ImageBlock(torch.zeros(6, 3, SIDE, SIDE, dtype=torch.uint8), torch.arange(CLASSES).repeat_interleave(IPC))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda task: iter([BLOCK]), "wrong yielded a block outside of task.blocks"),
        (lambda task: iter([]), "wrong yielded no block"),
        (lambda task: (1 for _ in task.blocks([0])), "wrong yielded int, expected ImageBlock"),
        (lambda task: (BLOCK for _ in [*task.blocks([0, 1])]), "item 1 of 2 came without a block"),
        (lambda task: 3, "wrong returned int, expected Images"),
    ],
)
def test_a_wrong_way_to_yield_is_named(tmp_path: Path, made: Callable[[Task], Any], says: str) -> None:
    with pytest.raises(InvalidResult, match=says):
        running.distill(Wrong(made), task(tmp_path))


def test_a_wrong_preparation_or_label_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidResult, match="wrong prepared something else than named tensors"):
        running.prepare(Wrong(lambda task: {"a": 1}), task(tmp_path))
    with pytest.raises(InvalidResult, match="wrong returned dict as its label model, expected a LabelSource"):
        running.label_model(Wrong(lambda task: {}), task(tmp_path))
