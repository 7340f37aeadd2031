"""Methods that break the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bench.api import Distiller, GridPoint, ImageBlock, Images, MethodInfo, Task
from bench.api.config import Artifact


class Careless(Distiller):
    """Images that are one short, another time each, and an identity that forgets the seed."""

    info: ClassVar[MethodInfo] = MethodInfo(name="odd", title="Odd", version=1, paper="", labels="hard")

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        return {"ipc": point.ipc}

    def distill(self, task: Task) -> Images:
        import torch

        task.progress(5, 3)
        count = task.dataset.classes * task.ipc - 1
        return Images(torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))


class Unseeded(Careless):
    """The right number of images, drawn from no seed, and of each class."""

    def distill(self, task: Task) -> Images:
        import torch

        labels = torch.arange(task.dataset.classes).repeat_interleave(task.ipc)
        return Images(torch.randint(256, (len(labels), 3, 16, 16), dtype=torch.uint8), labels)


class Floats(Careless):
    """Images before they are quantised, and labels of a teacher, who waits for them."""

    info: ClassVar[MethodInfo] = replace(Careless.info, labels="teacher")
    made: ClassVar[list[int]] = []

    def distill(self, task: Task) -> Images:
        import torch

        self.made.append(task.seed)
        labels = torch.arange(task.dataset.classes).repeat_interleave(task.ipc)
        return Images(torch.rand(len(labels), 3, 16, 16), labels)


class Buggy(Careless):
    """A bug, which torch meets."""

    def distill(self, task: Task) -> Images:
        import torch

        return Images(torch.zeros(2).view(3), torch.zeros(2))


class Forgetful(Careless):
    """Blocks that count on what the blocks before left in this process."""

    made: ClassVar[list[int]] = []

    def distill(self, task: Task) -> Any:
        import torch

        base = 0
        for label in task.blocks(range(task.dataset.classes)):
            base += 7
            self.made.append(label)
            pixels = torch.full((task.ipc, 3, 16, 16), base, dtype=torch.uint8)
            yield ImageBlock(pixels, torch.full((task.ipc,), label))
