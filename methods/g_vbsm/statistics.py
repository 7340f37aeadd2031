"""The pass over the real data that gives G_VBSM its targets: statistics of every convolution's input.

A target is the mean of the statistics of mini-batches, each weighted by its share of the images, not the statistic of
all images pooled (shaoshitong/G_VBSM_Dataset_Condensation, ``recover/utils.py``: ConvFeatureHook). The authors divide
by the size of the full data set, written into the code; here it is the size of the set at hand.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.contract import Task
from bench.kit.checkpoint import Checkpoint
from bench.kit.seeds import seed_for
from bench.kit.teachers.trajectory import Trajectory
from bench.kit.views import ViewPlan, ViewStream
from methods.g_vbsm.config import Config
from methods.g_vbsm.matching import Targets
from methods.g_vbsm.moments import ConvInputs, ConvMoments

FILE = "statistics.safetensors"


def save_statistics(task: Task, config: Config, folder: Path) -> None:
    """Write the statistics of all networks of the pool, float32, as ``arch/layer/kind``. Resumable by network."""
    checkpoint = Checkpoint(task.work, "statistics")
    found = checkpoint.load()
    tensors, done = (found[0], list(found[1]["done"])) if found else ({}, [])
    batches = -(-len(task.data.train) // config.statistics_batch)
    for index, teacher in enumerate(task.teachers):
        if teacher.network.arch in done:
            continue
        for layer, moments in _measure(task, teacher, config, index * batches).items():
            for kind, value in moments._asdict().items():
                tensors[f"{teacher.network.arch}/{layer}/{kind}"] = value
        done.append(teacher.network.arch)
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


def view_plan(config: Config, size: int) -> ViewPlan:
    """The augmentation of the real data: that of the synthetic images without their roll."""
    return ViewPlan(
        size=size, crop=config.crop, min_scale=config.min_scale, pad=config.pad, flip=config.flip,
        seed=seed_for("g-vbsm-statistics"),
    )  # fmt: skip


@torch.no_grad()
def _measure(task: Task, teacher: Trajectory, config: Config, done_before: int) -> dict[str, ConvMoments]:
    """One epoch of the training images through one network."""
    images = len(task.data.train)
    stream = ViewStream(view_plan(config, task.dataset.image_size), images)
    batches = -(-images // config.statistics_batch)
    model = teacher.model()
    sums: dict[int, Tensor] = {}
    lengths: dict[int, list[int]] = {}
    with ConvInputs(model.net, 1, config.patch) as inputs:
        for batch, views in enumerate(task.data.train.views(stream, 0, config.statistics_batch, task.device)):
            model(views.pixels)
            for place, moments in inputs.take().items():
                joined = torch.cat(moments, 1)[0].double() * (len(views) / images)
                sums[place] = sums[place] + joined if batch else joined
                lengths[place] = [piece.shape[1] for piece in moments]
            task.progress(done_before + batch + 1, batches * len(task.teachers))
    return {
        inputs.names[place]: ConvMoments(*(piece.clone() for piece in total.float().cpu().split(lengths[place])))
        for place, total in sums.items()
    }
