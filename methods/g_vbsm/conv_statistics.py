"""The pass over the real data that gives G_VBSM its targets: statistics of every convolution's input.

A target is the mean of the statistics of mini-batches, each weighted by its share of the images, not the statistic of
all images pooled (shaoshitong/G_VBSM_Dataset_Condensation, ``recover/utils.py``: ConvFeatureHook). The authors divide
by the size of the full data set, written into the code; here it is the size of the set at hand.

Several processes (:mod:`bench.kit.distributed`) deal out the mini-batches and add up what they found.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.api import Task
from bench.kit import distributed
from bench.kit.checkpoint import Checkpoint
from bench.kit.seeds import seed_for
from bench.kit.teachers.trajectory import Trajectory
from bench.kit.views import AugmentationConfig, AugmentationStream
from methods.g_vbsm.config import Config
from methods.g_vbsm.matching import Targets
from methods.g_vbsm.moments import ConvInputs, ConvMoments

FILE = "statistics.safetensors"


def save_statistics(task: Task, config: Config, folder: Path) -> None:
    """Write the statistics of all networks of the pool, float32, as ``arch/layer/kind``. Resumable by batch."""
    checkpoint = Checkpoint(task.work, "statistics")
    found = distributed.broadcast_object(checkpoint.load() if distributed.is_main() else None)
    tensors, done = (found[0], list(found[1]["done"])) if found else ({}, [])
    batches = -(-len(task.data.train) // config.statistics_batch)
    for index, teacher in enumerate(task.teachers):
        if teacher.network.arch in done:
            continue
        for layer, moments in _measure(task, teacher, config, index * batches).items():
            for kind, value in moments._asdict().items():
                tensors[f"{teacher.network.arch}/{layer}/{kind}"] = value
        done.append(teacher.network.arch)
        if distributed.is_main():
            checkpoint.save(tensors, done=done)
    save_file(tensors, folder / FILE)


def load_statistics(folder: Path, arch: str, device: torch.device) -> Targets:
    """What :func:`save_statistics` wrote of one network."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in load_file(folder / FILE).items():
        owner, layer, kind = key.rsplit("/", 2)
        if owner == arch:
            layers.setdefault(layer, {})[kind] = value.to(device)
    return {layer: ConvMoments(**kinds) for layer, kinds in layers.items()}


def view_plan(config: Config, size: int) -> AugmentationConfig:
    """The augmentation of the real data: that of the synthetic images without their roll."""
    return AugmentationConfig(
        size=size, crop=config.crop, min_scale=config.min_scale, pad=config.pad, flip=config.flip,
        seed=seed_for("g-vbsm-statistics"),
    )  # fmt: skip


@torch.no_grad()
def _measure(task: Task, teacher: Trajectory, config: Config, done_before: int) -> dict[str, ConvMoments]:
    """One epoch of the training images through one network; the sums so far are kept in double, as they are."""
    images = len(task.data.train)
    stream = AugmentationStream(view_plan(config, task.dataset.image_size), images)
    batches = -(-images // config.statistics_batch)
    model = teacher.model()
    sums: dict[int, Tensor] = {}
    lengths: dict[int, list[int]] = {}
    mine = distributed.share(batches)
    first, checkpoint = mine.start, Checkpoint(task.work, distributed.rank_suffix(f"pass-{done_before:07d}"))
    if (found := checkpoint.load()) and found[1]["mine"] == [mine.start, mine.stop]:
        first, lengths = found[1]["batches"], {int(place): pieces for place, pieces in found[1]["lengths"].items()}
        sums = {int(place): total.to(task.device) for place, total in found[0].items()}
    with ConvInputs(model.net, 1, config.patch) as inputs:
        shown = task.data.train.views(stream, 0, config.statistics_batch, task.device, first=first, last=mine.stop)
        for batch, views in enumerate(shown, first):
            model(views.pixels)
            for place, moments in inputs.take().items():
                joined = torch.cat(moments, 1)[0].double() * (len(views) / images)
                sums[place] = sums[place] + joined if place in sums else joined
                lengths[place] = [piece.shape[1] for piece in moments]
            seen = min(batches, (batch + 1 - mine.start) * distributed.size())  # by all ranks, more or less
            task.progress(done_before + seen, batches * len(task.teachers))
            if checkpoint.due():
                kept = {str(place): total for place, total in sums.items()}
                checkpoint.save(kept, batches=batch + 1, lengths=lengths, mine=[mine.start, mine.stop])
    targets = {}
    for place, pieces in distributed.broadcast_object(lengths).items():  # a rank without a mini-batch knows none
        total = sums[place] if place in sums else torch.zeros(sum(pieces), dtype=torch.float64, device=task.device)
        moments = distributed.all_reduce(total).float().cpu().split(pieces)
        targets[inputs.names[place]] = ConvMoments(*(piece.clone() for piece in moments))
    return targets
