"""RDED (Sun et al., CVPR 2024): realistic patches chosen by a teacher, labelled by it online.

Follows the authors' repository (LINs-lab/RDED, ``synthesize/``): for each class a pool of random images, five
square random crops of each, one kept by the teacher's loss, the best images' crops put together as mosaics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from bench.api import AugmentationConfig, BaseConfig, Distiller, GridPoint, ImageBlock, MethodInfo, Task, affects
from bench.api.method import MethodCost, StudentCost
from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Classifier


class RDED(Distiller):
    """Images: the crops of lowest cross entropy, factor² of them on each image. Labels: the teacher, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="rded", title="RDED", version=1,
        look=5, paper="arXiv 2312.03526", labels="teacher", shared=("prepare", "distill"),
        student_cost=StudentCost(batch_size=100, seconds=0.12, mebibytes=4538),  # HeLlO, supplement, Table 6
    )  # fmt: skip

    class Config(BaseConfig):
        unmarked = "prepared"
        pool: int = Field(300, ge=1)  # real images per class ("mipc" in all scripts)
        crops: int = Field(5, ge=1)  # random crops of each ("num_crop")
        min_scale: float = Field(0.08, gt=0, le=1)
        max_scale: float = Field(1.0, gt=0, le=1)
        factor: int | None = Field(None, ge=1)  # patches a side; None: 2 from 128 px up, else 1
        batch_size: Annotated[int, affects("speed"), Field(ge=1)] = 256  # crops scored at once

    config: Config
    crop_bytes: ClassVar[int] = 64 * 2**20  # of crops held at once

    def factor(self, size: int) -> int:
        """Return the patches a side of the mosaic on images of ``size`` pixels: 1 is no mosaic."""
        return self.config.factor or (2 if size >= 128 else 1)

    def check(self, point: GridPoint) -> None:
        data, factor = point.dataset, self.factor(point.dataset.image_size)
        patches, pool = point.ipc * factor**2, min(self.config.pool, data.smallest_class)
        if data.image_size % factor:
            raise UserError(f"rded.factor {factor} does not divide {data.name}'s {data.image_size} px; choose another")
        if patches > pool:
            raise UserError(f"rded at IPC {point.ipc} on {data.name} needs {patches} patches per class, one per image, "
                            f"but its pool has {pool} images; lower --ipc or raise --set rded.pool")  # fmt: skip

    def cost(self, point: GridPoint) -> MethodCost:
        pool = point.dataset.classes / 1000 * self.config.pool / 300 * self.config.crops / 5
        return MethodCost(prepare=7 / 60 * pool, distill=0.0)  # 7 minutes on an RTX 4090 for ImageNet-1K (paper)

    def prepare(self, task: Task) -> Iterator[Mapping[str, Tensor]]:
        """Yield the pool's ``images``, the best of their ``crops``, and its ``scores``; each (N,), class by class."""
        import torch

        from bench.kit.data.sampling import sample_classes

        config, teacher, train = self.config, task.teacher.model(), task.data.train
        pool = sample_classes(train.labels, task.dataset.classes, config.pool, task.seed, most=True)
        owner, views = train.labels[pool], self._crops(task)
        at_once = max(1, self.crop_bytes // (config.crops * 12 * views.size**2))
        chunks = [chunk for label in range(task.dataset.classes) for chunk in pool[owner == label].split(at_once)]
        for place, chunk in task.blocks(list(enumerate(chunks)), independent=True):
            then = next(iter(chunks[place + 1 :]), None)  # is read while this chunk is scored
            crops = train.crops(views, chunk, config.crops, task.device, then)  # (K, B, 3, s, s)
            label, size = int(train.labels[chunk[0]]), task.dataset.image_size
            scores = [score(teacher, batch, label, size) for batch in crops.flatten(0, 1).split(config.batch_size)]
            best = torch.cat(scores).view(crops.shape[:2]).min(0)
            yield {"images": chunk, "crops": best.indices.cpu(), "scores": best.values.cpu()}

    def distill(self, task: Task) -> Iterator[ImageBlock]:
        from bench.kit.images import quantise

        pool, views = task.prepared, self._crops(task)
        owner, count = task.data.train.labels[pool["images"]], task.ipc * self.factor(task.dataset.image_size) ** 2
        for label in task.blocks(range(task.dataset.classes), independent=True):
            mine = (owner == label).nonzero().flatten()
            mine = mine[pool["scores"][mine].argsort(stable=True)[:count]]
            crops = task.data.train.crops(views, pool["images"][mine], self.config.crops, task.device)
            best = crops[pool["crops"][mine].to(crops.device), list(range(count))]
            yield ImageBlock(mosaic(quantise(best).cpu(), task.ipc), owner.new_full((task.ipc,), label))

    def _crops(self, task: Task) -> AugmentationConfig:
        """Configure the random crops of all real images; those of epoch k are the k-th."""
        size = task.dataset.image_size // self.factor(task.dataset.image_size)
        scales = self.config.model_dump(include={"min_scale", "max_scale"})
        return AugmentationConfig(size=size, crop="rrc", ratio=(1, 1), seed=task.seed_for("rded-crops"), **scales)


def score(model: Classifier, crops: Tensor, label: int, size: int) -> Tensor:
    """Return the cross entropy (N,) of the true class for crops (N, 3, s, s), zero-padded to ``size`` pixels.

    RDED pads after its Normalize, so with the mean colour, and resizes nothing; its realism score is the negative.
    """
    import torch

    inner, shape = slice((size - crops.shape[-1]) // 2, (size + crops.shape[-1]) // 2), (len(crops), 3, size, size)
    with torch.inference_mode():
        padded = torch.empty(shape, device=crops.device, memory_format=torch.channels_last).zero_()
        torch.addcmul(model.shift, crops, model.scale, out=padded[:, :, inner, inner])
        return -model.net(padded).log_softmax(1)[:, label]  # type: ignore[no-any-return]


def mosaic(patches: Tensor, ipc: int) -> Tensor:
    """Put a class's ranked patches (ipc * f², 3, s, s) together as images (ipc, 3, f*s, f*s).

    Cell k (row-major) of image q holds rank k * ipc + q, so every image has patches of all qualities.
    """
    side = round((len(patches) // ipc) ** 0.5)
    cells = patches.view(side, side, ipc, *patches.shape[1:])  # (row, column, q, 3, s, s)
    return cells.permute(2, 3, 0, 4, 1, 5).reshape(ipc, 3, side * patches.shape[-1], -1)
