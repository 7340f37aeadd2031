"""RDED (Sun et al., CVPR 2024): realistic patches chosen by a teacher, labelled by it online.

Follows the authors' repository (LINs-lab/RDED, ``synthesize/``): for each class a pool of random images, five
square random crops of each, one kept by the teacher's loss, the best images' crops put together as mosaics.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bench.api import (
    BaseConfig,
    CellSpec,
    Distiller,
    GridPoint,
    Images,
    MethodCost,
    MethodInfo,
    StudentCost,
    Task,
)  # fmt: skip
from bench.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from bench.kit.views import AugmentationStream

_MOSAIC_FROM = 128  # px a side: below, RDED's factor is 1 and there is no mosaic
_SCORES = "scores.safetensors"
_CROP_BYTES = 64 * 2**20  # of crops held at once


class RDED(Distiller):
    """Images: the crops of lowest cross entropy, factor² of them on each image. Labels: the teacher, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="rded", title="RDED", version=1, paper="arXiv 2312.03526", labels="teacher", shared=("prepare",),
        student_cost=StudentCost(batch_size=100, seconds=0.12, mebibytes=4538),  # HeLlO, supplement, Table 6
    )  # fmt: skip

    class Config(BaseConfig):
        pool: int = Field(300, ge=1)  # real images a class ("mipc", 300 in all scripts)
        crops: int = Field(5, ge=1)  # random crops of each ("num_crop")
        min_scale: float = Field(0.08, gt=0, le=1)
        max_scale: float = Field(1.0, gt=0, le=1)
        factor: int | None = Field(None, ge=1)  # patches a side; None: 2 from 128 px up, else 1
        batch_size: int = Field(256, ge=1)  # crops scored at once; of no effect on the result

    config: Config

    def factor(self, size: int) -> int:
        """Patches a side of the mosaic on images of ``size`` pixels."""
        return self.config.factor or (2 if size >= _MOSAIC_FROM else 1)

    def check(self, setting: GridPoint) -> None:
        size = setting.dataset.image_size
        if size % self.factor(size):
            raise UserError(
                f"rded.factor {self.factor(size)} does not divide the {size} pixels of {setting.dataset.name}; "
                "choose one that does"
            )
        patches = setting.ipc * self.factor(size) ** 2
        pool = min(self.config.pool, setting.dataset.smallest_class)
        if patches > pool:
            raise UserError(
                f"rded at IPC {setting.ipc} on {setting.dataset.name} needs {patches} patches a class, one an image, "
                f"but its pool has {pool} images; lower --ipc or raise --set rded.pool"
            )

    def cost(self, setting: GridPoint) -> MethodCost:
        """ImageNet-1K at IPC 10 in seven minutes on one RTX 4090 (the paper); nearly all of them score the pool."""
        pool = setting.dataset.classes / 1000 * self.config.pool / 300 * self.config.crops / 5
        return MethodCost(prepare=7 / 60 * pool, distill=0.0)

    def prepare_recipe(self, setting: GridPoint) -> CellSpec:
        """The scores of the pool, which all IPC share."""
        fields = {**self.config.non_default_fields(), "seed": setting.seed}
        fields.pop("batch_size", None)
        return CellSpec(self.info.name, self.info.version, fields, self.config.non_default_fields())

    def image_recipe(self, setting: GridPoint) -> CellSpec:
        scores = self.prepare_recipe(setting)
        return replace(scores, fields={**scores.fields, "ipc": setting.ipc})

    def prepare(self, task: Task, folder: Path) -> None:
        import torch
        from safetensors.torch import save_file

        from bench.kit import distributed
        from bench.kit.checkpoint import Checkpoint
        from bench.kit.data.sampling import sample_classes

        classes = task.dataset.classes
        pool = sample_classes(task.data.train.labels, classes, self.config.pool, task.seed, most=True)
        owner, stream = task.data.train.labels[pool], self._stream(task)
        at_once = max(1, _CROP_BYTES // (self.config.crops * 12 * stream.plan.size**2))
        chunks = [chunk for label in range(classes) for chunk in pool[owner == label].split(at_once)]
        mine = distributed.share(len(chunks))
        before, most = sum(map(len, chunks[: mine.start])), sum(map(len, chunks[mine]))
        checkpoint = Checkpoint(task.work, distributed.rank_suffix("checkpoint"))
        crops, scores, first = torch.empty(0, dtype=torch.int64), torch.empty(0), mine.start
        if (found := checkpoint.load()) and found[1]["mine"] == [mine.start, mine.stop]:
            crops, scores, first = found[0]["crops"], found[0]["scores"], found[1]["chunks"]
        for done, chunk in enumerate(chunks[first : mine.stop], first + 1):
            best = self._best_crops(task, stream, chunk)
            crops, scores = torch.cat([crops, best.indices.cpu()]), torch.cat([scores, best.values.cpu()])
            task.progress(len(scores), most)
            if checkpoint.due():
                checkpoint.save({"crops": crops, "scores": scores}, chunks=done, mine=[mine.start, mine.stop])
        best_crops, best_scores = torch.zeros(len(pool), dtype=torch.int64), torch.zeros(len(pool))
        best_crops[before : before + most], best_scores[before : before + most] = crops, scores
        of_all = {"crops": distributed.all_reduce(best_crops), "scores": distributed.all_reduce(best_scores)}
        save_file({"images": pool, **of_all}, folder / _SCORES)

    def distill(self, task: Task) -> Images:
        import torch
        from safetensors.torch import load_file

        from bench.kit.checkpoint import Checkpoint
        from bench.kit.images import quantise

        assert task.prepared is not None
        count, classes = task.ipc * self.factor(task.dataset.image_size) ** 2, task.dataset.classes
        pool = load_file(task.prepared / _SCORES)
        owner, stream = task.data.train.labels[pool["images"]], self._stream(task)
        made: list[Tensor] = []  # class by class
        # each checkpoint holds the classes since the one before: all of a large set would be too much to write again
        while found := (checkpoint := Checkpoint(task.work, f"classes-{len(made):05d}")).load():
            made += found[0]["pixels"].split(task.ipc)
        kept = len(made)
        for label in range(kept, classes):
            mine = owner == label
            ranks = pool["scores"][mine].argsort(stable=True)[:count]
            chosen, crops = pool["images"][mine][ranks], pool["crops"][mine][ranks]
            cut = task.data.train.crops(stream, chosen, self.config.crops, task.device)
            patches = quantise(cut[crops.to(cut.device), torch.arange(count, device=cut.device)]).cpu()
            made.append(mosaic(patches, task.ipc))
            task.progress(label + 1, classes)
            if checkpoint.due():
                checkpoint.save({"pixels": torch.cat(made[kept:])})
                kept = len(made)
                checkpoint = Checkpoint(task.work, f"classes-{kept:05d}")
        return Images(torch.cat(made), torch.arange(classes).repeat_interleave(task.ipc))

    def _stream(self, task: Task) -> AugmentationStream:
        """The random crops of all real images, as many epochs of them as the config says."""
        from bench.kit.seeds import seed_for
        from bench.kit.views import AugmentationConfig, AugmentationStream

        size = task.dataset.image_size
        plan = AugmentationConfig(
            size=size // self.factor(size), crop="rrc", ratio=(1, 1), min_scale=self.config.min_scale,
            max_scale=self.config.max_scale, seed=seed_for("rded-crops", task.seed),
        )  # fmt: skip
        return AugmentationStream(plan, len(task.data.train))

    def _best_crops(self, task: Task, stream: AugmentationStream, members: Tensor) -> torch.return_types.min:
        """The lowest score of each image, all of one class, float32 (B,), and which of its crops has it, int64 (B,)."""
        import torch

        size, teacher, label = task.dataset.image_size, task.teacher.model(), int(task.data.train.labels[members[0]])
        crops = task.data.train.crops(stream, members, self.config.crops, task.device)  # (K, B, 3, s, s)
        batches = crops.flatten(0, 1).split(self.config.batch_size)
        scores = torch.cat([score(teacher, batch, label, size) for batch in batches])
        return scores.view(crops.shape[:2]).min(0)


def score(model: object, crops: Tensor, label: int, size: int) -> Tensor:
    """Cross entropy (N,) of the true class for crops (N, 3, s, s), zero-padded to the centre of ``size`` pixels.

    The padding is in normalised space (RDED pads after its Normalize), so its colour is the mean; padding, not
    resizing, is part of the score. The paper's realism score is the negative of it.
    """
    import torch
    from torch.nn import functional as F

    from bench.kit.models import Classifier

    assert isinstance(model, Classifier)
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
