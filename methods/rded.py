"""RDED (Sun et al., CVPR 2024): realistic patches chosen by a teacher, labelled by it online.

Follows the authors' repository (LINs-lab/RDED, ``synthesize/``): for each class a pool of random images, five
square random crops of each, one kept by the teacher's loss, the best images' crops put together as mosaics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from bench.api import AugmentationConfig, BaseConfig, Distiller, GridPoint, ImageBlock, MethodInfo, Task, affects
from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Classifier

_MOSAIC_FROM = 128  # px a side: below, RDED's factor is 1 and there is no mosaic
_CROP_BYTES = 64 * 2**20  # of crops held at once


class RDED(Distiller):
    """Images: the crops of lowest cross entropy, factor² of them on each image. Labels: the teacher, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="rded", title="RDED", version=1, paper="arXiv 2312.03526", labels="teacher", shared=("prepare", "distill")
    )

    class Config(BaseConfig):
        pool: Annotated[int, affects("prepared"), Field(ge=1)] = 300  # real images per class ("mipc" in all scripts)
        crops: Annotated[int, affects("prepared"), Field(ge=1)] = 5  # random crops of each ("num_crop")
        min_scale: Annotated[float, affects("prepared"), Field(gt=0, le=1)] = 0.08
        max_scale: Annotated[float, affects("prepared"), Field(gt=0, le=1)] = 1.0
        # patches a side; None: 2 from 128 px up, else 1
        factor: Annotated[int | None, affects("prepared"), Field(ge=1)] = None
        batch_size: Annotated[int, affects("speed"), Field(ge=1)] = 256  # crops scored at once

    config: Config

    def factor(self, size: int) -> int:
        """Return the patches a side of the mosaic on images of ``size`` pixels."""
        return self.config.factor or (2 if size >= _MOSAIC_FROM else 1)

    def check(self, point: GridPoint) -> None:
        size, name = point.dataset.image_size, point.dataset.name
        factor, pool = self.factor(size), min(self.config.pool, point.dataset.smallest_class)
        if size % factor:
            raise UserError(f"rded.factor {factor} does not divide the {size} pixels of {name}; choose one that does")
        if point.ipc * factor**2 > pool:
            raise UserError(
                f"rded at IPC {point.ipc} on {name} needs {point.ipc * factor**2} patches per class, one per image, "
                f"but its pool has {pool} images; lower --ipc or raise --set rded.pool"
            )

    def prepare(self, task: Task) -> Iterator[Mapping[str, Tensor]]:
        """Yield the pool's ``images``, the best of their ``crops``, and its ``scores``; each (N,), class by class."""
        import torch

        from bench.kit.data.sampling import sample_classes

        config, teacher, train = self.config, task.teacher.model(), task.data.train
        pool = sample_classes(train.labels, task.dataset.classes, config.pool, task.seed, most=True)
        owner, views = train.labels[pool], self._crops(task)
        at_once = max(1, _CROP_BYTES // (config.crops * 12 * views.size**2))
        of_classes = [pool[owner == label].split(at_once) for label in range(task.dataset.classes)]
        chunks = [chunk.tolist() for chunks in of_classes for chunk in chunks]
        for chunk in task.blocks(chunks, independent=True):
            members = torch.tensor(chunk)
            crops = train.crops(views, members, config.crops, task.device)  # (K, B, 3, s, s)
            label, size = int(train.labels[chunk[0]]), task.dataset.image_size
            scores = [score(teacher, batch, label, size) for batch in crops.flatten(0, 1).split(config.batch_size)]
            best = torch.cat(scores).view(crops.shape[:2]).min(0)
            yield {"images": members, "crops": best.indices.cpu(), "scores": best.values.cpu()}

    def distill(self, task: Task) -> Iterator[ImageBlock]:
        import torch

        from bench.kit.images import quantise

        count = task.ipc * self.factor(task.dataset.image_size) ** 2
        pool, views = task.prepared, self._crops(task)
        owner = task.data.train.labels[pool["images"]]
        for label in task.blocks(range(task.dataset.classes), independent=True):
            mine = owner == label
            ranks = pool["scores"][mine].argsort(stable=True)[:count]
            chosen, best = pool["images"][mine][ranks], pool["crops"][mine][ranks]
            crops = task.data.train.crops(views, chosen, self.config.crops, task.device)
            patches = quantise(crops[best.to(crops.device), torch.arange(count, device=crops.device)]).cpu()
            yield ImageBlock(mosaic(patches, task.ipc), torch.full((task.ipc,), label))

    def _crops(self, task: Task) -> AugmentationConfig:
        """Configure the random crops of all real images; those of epoch k are the k-th."""
        size, config = task.dataset.image_size, self.config
        size, seed = size // self.factor(size), task.seed_for("rded-crops")
        scales = {"min_scale": config.min_scale, "max_scale": config.max_scale}
        return AugmentationConfig(size=size, crop="rrc", ratio=(1, 1), seed=seed, **scales)


def score(model: Classifier, crops: Tensor, label: int, size: int) -> Tensor:
    """Return the cross entropy (N,) of the true class for crops (N, 3, s, s), zero-padded to ``size`` pixels.

    The padding is in normalised space (RDED pads after its Normalize), so its colour is the mean; padding, not
    resizing, is part of the score. The paper's realism score is the negative of it.
    """
    import torch
    from torch.nn import functional as F

    inner = slice((size - crops.shape[-1]) // 2, (size + crops.shape[-1]) // 2)
    with torch.inference_mode():
        shape = len(crops), 3, size, size
        padded = torch.empty(shape, device=crops.device, memory_format=torch.channels_last).zero_()
        torch.addcmul(model.shift, crops, model.scale, out=padded[:, :, inner, inner])
        targets = torch.full((len(crops),), label, device=crops.device)
        return F.cross_entropy(model.net(padded), targets, reduction="none")


def mosaic(patches: Tensor, ipc: int) -> Tensor:
    """Put a class's ranked patches (ipc * f², 3, s, s) together as images (ipc, 3, f*s, f*s).

    Cell k (row-major) of image q holds rank k * ipc + q, so every image has patches of all qualities.
    """
    side = round((len(patches) // ipc) ** 0.5)
    cells = patches.view(side, side, ipc, *patches.shape[1:])  # (row, column, q, 3, s, s)
    size = side * patches.shape[-1]
    return cells.permute(2, 3, 0, 4, 1, 5).reshape(ipc, 3, size, size)
