"""The pass over the real data that gives G_VBSM its targets: statistics of every convolution's input.

A target is the mean of the statistics of mini-batches, each weighted by its share of the images, not the statistic of
all images pooled (shaoshitong/G_VBSM_Dataset_Condensation, ``recover/utils.py``: ConvFeatureHook). The authors divide
by the size of the full data set, written into the code; here it is the size of the set at hand.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.api import AugmentationConfig, Task, Trajectory
from bench.api.seeds import seed_for
from methods.g_vbsm.config import Config
from methods.g_vbsm.matching import Targets
from methods.g_vbsm.moments import ConvInputs, ConvMoments


@torch.no_grad()
def measure(task: Task, teacher: Trajectory, config: Config) -> dict[str, Tensor]:
    """Measure the statistics of one network of the pool, float32, as ``arch/layer/kind``.

    One epoch of the training images, whose mini-batches the processes share; sums are kept in double precision.
    """
    images, model, size = len(task.data.train), teacher.model(), config.statistics_batch
    mine = task.share(-(-images // size))
    with ConvInputs(model.net, 1, config.patch) as inputs:

        def moments_of(pixels: Tensor) -> dict[str, Tensor]:
            model(pixels)
            layers = {inputs.names[place]: moments._asdict() for place, moments in sorted(inputs.take().items())}
            return {f"{layer}/{kind}": value[0] for layer, kinds in layers.items() for kind, value in kinds.items()}

        shapes = moments_of(torch.zeros(1, 3, task.dataset.image_size, task.dataset.image_size, device=task.device))
        total = torch.zeros(sum(map(len, shapes.values())), dtype=torch.float64, device=task.device)
        first = mine.start
        if (found := task.checkpoint.load()) and found[1]["mine"] == [mine.start, mine.stop]:
            total, first = found[0]["total"].to(task.device), found[1]["batches"]
        augmented = augmentation(config, task.dataset.image_size)
        shown = task.data.train.views(augmented, 0, size, task.device, first=first, last=mine.stop)
        for done, views in enumerate(shown, first + 1):
            total += torch.cat(list(moments_of(views.pixels).values())).double() * (len(views) / images)
            task.progress(done - mine.start, mine.stop - mine.start)
            if task.checkpoint.due():
                task.checkpoint.save({"total": total}, batches=done, mine=[mine.start, mine.stop])
    pieces = task.all_reduce(total).float().cpu().split([len(value) for value in shapes.values()])
    arch = teacher.network.arch
    return {f"{arch}/{name}": piece.clone() for name, piece in zip(shapes, pieces, strict=True)}


def statistics_of(prepared: Mapping[str, Tensor], arch: str, device: torch.device) -> Targets:
    """Pick what :func:`measure` found of one network."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in prepared.items():
        owner, layer, kind = key.rsplit("/", 2)
        if owner == arch:
            layers.setdefault(layer, {})[kind] = value.to(device)
    return {layer: ConvMoments(**kinds) for layer, kinds in layers.items()}


def augmentation(config: Config, size: int) -> AugmentationConfig:
    """Return the augmentation of the real data: that of the synthetic images without their roll."""
    return AugmentationConfig(
        size=size, crop=config.crop, min_scale=config.min_scale, pad=config.pad, flip=config.flip,
        seed=seed_for("g-vbsm-statistics"),
    )  # fmt: skip
