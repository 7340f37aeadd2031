"""Random real images: the baseline that every distillation method has to beat under the same labels."""

from __future__ import annotations

from typing import ClassVar

from bench.api import Distiller, GridPoint, Images, MethodCost, MethodInfo, Task


class RandomReal(Distiller):
    """IPC random training images per class, centred and resized as test images are."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="random_real", title="Random real", version=1, paper="", labels="hard", tasks=(), baseline=True
    )

    def cost(self, point: GridPoint) -> MethodCost:
        return MethodCost(distill=0.0)

    def distill(self, task: Task) -> Images:
        import torch

        from bench.kit.data.sampling import sample_classes

        train = task.data.train
        chosen = sample_classes(train.labels, task.dataset.classes, task.ipc, task.seed)
        if not train.extras:
            pixels = [batch for batch, _ in train.centered(task.dataset.image_size, task.device, indices=chosen)]
        else:  # not the centre: extras are those of the whole image
            pixels = [train.image(int(index))[None] for index in chosen]
        extras = {name: extra[chosen] for name, extra in train.extras.items()}
        return Images(torch.cat(pixels), train.labels[chosen], extras)
