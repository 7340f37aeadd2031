"""Random real images: the baseline that every distillation method has to beat under the same labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.api import Distiller, GridPoint, Images, MethodCost, MethodInfo, Task

if TYPE_CHECKING:
    from torch import Tensor


class RandomReal(Distiller):
    """IPC random training images per class, centred and resized as test images are."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="random_real", title="Random real", version=1, paper="", labels="hard", tasks=(), baseline=True
    )

    def cost(self, point: GridPoint) -> MethodCost:
        return MethodCost(distill=0.0)

    def distill(self, task: Task) -> Images:
        from bench.kit.data.sampling import sample_classes

        return whole_images(task, sample_classes(task.data.train.labels, task.dataset.classes, task.ipc, task.seed))


def whole_images(task: Task, chosen: Tensor) -> Images:
    """Return real training images by their numbers (N,), centred and resized as test images are."""
    import torch

    train = task.data.train
    if not train.extras:
        pixels = [batch for batch, _ in train.centered(task.dataset.image_size, task.device, indices=chosen)]
    else:  # not the centre: extras are those of the whole image
        pixels = [train.image(int(index))[None] for index in chosen]
    extras = {name: extra[chosen] for name, extra in train.extras.items()}
    return Images(torch.cat(pixels), train.labels[chosen], extras)
