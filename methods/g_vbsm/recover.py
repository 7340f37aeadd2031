"""G_VBSM's recovery: the networks of the pool take turns (GBM), an iteration each.

Follows shaoshitong/G_VBSM_Dataset_Condensation, ``recover/data_synthesis_with_svd_with_db_with_all_statistic.py``:
class-major batches, one after the other, with running statistics that go on from batch to batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bench.api import Images, Task
from bench.kit.checkpoint import Checkpoint
from bench.kit.images import quantise
from bench.kit.recovery import GroupViews, RecoveryLoss, RecoveryViews, noise, recover
from bench.kit.seeds import seed_for
from methods.g_vbsm.config import Config
from methods.g_vbsm.conv_statistics import load_statistics
from methods.g_vbsm.densify import Densification
from methods.g_vbsm.matching import Layout, Matcher


def recover_images(task: Task, config: Config) -> Images:
    """All images, uint8, class-major. Resumable: finished batches and those in work are kept in ``task.work``."""
    if task.prepared is None:
        raise ValueError("the statistics of the real data are missing: run prepare first")
    order = class_order(task.dataset.classes, task.ipc, config.blocks)
    batches = order.split(config.batch_size)
    layouts = [
        Layout(
            teacher.model().net,
            load_statistics(task.prepared, teacher.network.arch, task.device),
            config.first_multiplier,
        )
        for teacher in task.teachers
    ]
    made: list[Tensor] = []
    memory: dict[str, Tensor] = {}
    while len(made) < len(batches):
        if found := Checkpoint(task.work, f"batch-{len(made):05d}").load():
            tensors, _ = found
            made.extend(tensors.pop("pixels"))
            memory = tensors
            continue
        numbers = next_batches([len(batch) for batch in batches], len(made), config.groups)
        images, memory = _recover_batches(task, config, layouts, batches, numbers, memory)
        Checkpoint(task.work, f"batch-{len(made):05d}").save({"pixels": images, **memory})
        made.extend(images)
    by_class = order.argsort(stable=True)
    # the authors save JPEG at ImageNet size, PNG for CIFAR and Tiny-ImageNet
    encoding: Literal["jpeg", "png"] = "jpeg" if task.dataset.image_size > 64 else "png"
    return Images(torch.cat(made)[by_class], order[by_class], encoding)


def next_batches(sizes: Sequence[int], first: int, most: int) -> range:
    """The batches from ``first`` on that are optimised at once: ``most``, or fewer of the same size."""
    last = first + 1
    while last < min(first + most, len(sizes)) and sizes[last] == sizes[first]:
        last += 1
    return range(first, last)


def _recover_batches(
    task: Task,
    config: Config,
    layouts: Sequence[Layout],
    batches: Sequence[Tensor],
    numbers: range,
    memory: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Some batches at once, uint8 (G, B, 3, S, S) on the host, and the running statistics after them, where the
    next batch goes on from them.

    Args:
        memory: the running statistics before them; empty for none.
    """
    size, network = task.dataset.image_size, task.teacher.network
    total = len(batches) * config.iterations

    def progress(done: int) -> None:
        task.progress(numbers.start * config.iterations + done * len(numbers), total)

    with ExitStack() as opened:
        matchers = [
            opened.enter_context(
                Matcher(
                    teacher.model().net, layout, len(numbers),
                    patch=config.patch, alpha=config.alpha, init=config.ema_init,
                )
            )
            for teacher, layout in zip(task.teachers, layouts, strict=True)
        ]  # fmt: skip
        labels = torch.stack([batches[number] for number in numbers])
        loss = PoolLoss(matchers, labels, numbers, config, task.seed)
        if memory:
            loss.restore(memory)
        pixels = recover(
            noise([seed_for("g-vbsm-noise", task.seed, n) for n in numbers], labels.shape[1], size, task.device),
            loss,
            GroupViews(
                recovery_views(config), [seed_for("g-vbsm-views", task.seed, n) for n in numbers], size,
                config.iterations, task.device,
            ),
            lr=config.lr,
            mean=network.mean,
            std=network.std,
            checkpoint=Checkpoint(task.work, "recovery"),
            facts={"batches": list(numbers)},
            progress=progress,
        )  # fmt: skip
        kept = loss.state() if config.ema_reset == "never" else {}
        return torch.stack([quantise(group).cpu() for group in pixels]), kept


def recovery_views(config: Config) -> RecoveryViews:
    """What happens to the images before a network sees them."""
    return RecoveryViews(
        crop=config.crop, min_scale=config.min_scale, pad=config.pad, flip=config.flip, roll=(0, config.roll),
        antialias=config.antialias,
    )  # fmt: skip


def class_order(classes: int, ipc: int, blocks: int) -> Tensor:
    """The class of each image in the order of the batches, int64 (classes * ipc,): block by block, in it class by
    class."""
    return torch.arange(classes).repeat_interleave(ipc // blocks).repeat(blocks)


def turns(config: Config, batch: int, seed: int) -> list[int]:
    """Which network of the pool each iteration of a batch of images asks: the authors' code counts on from batch to
    batch, their paper draws at random."""
    count = len(config.pool)
    if config.backbone == "random":
        stream = torch.Generator().manual_seed(seed_for("g-vbsm-turns", seed, batch))
        return torch.randint(count, (config.iterations,), generator=stream).tolist()
    return [(batch * config.iterations + iteration) % count for iteration in range(config.iterations)]


def skips(config: Config, batch: int, seed: int, convolutions: int) -> NDArray[np.bool_]:
    """Which convolutions are not matched in which iteration of a batch of images (T, convolutions)."""
    stream = torch.Generator().manual_seed(seed_for("g-vbsm-skips", seed, batch))
    drawn = torch.rand(config.iterations, convolutions, generator=stream)
    return np.asarray(drawn < config.beta_dr, dtype=np.bool_)


class PoolLoss(RecoveryLoss):
    """Cross entropy, matched statistics of one network an iteration, and data densification.

    Args:
        matchers: of the networks, opened by the caller.
        labels: the classes (G, B) of the images.
        batches: the numbers of the G batches, on which turns and skips depend.
    """

    def __init__(self, matchers: Sequence[Matcher], labels: Tensor, batches: Sequence[int], config: Config, seed: int):
        self.matchers, self.config = matchers, config
        device = matchers[0].layout.targets.device
        self.labels = labels.flatten().to(device)
        self.densification = Densification(labels.tolist(), config.tau, device)
        self.turns = turns(config, batches[0], seed)
        most = max(matcher.layout.convolutions for matcher in matchers)
        skipped = np.stack([skips(config, batch, seed, most) for batch in batches], 1)  # (T, G, convolutions)
        self._skipped_by_all: NDArray[np.bool_] = np.asarray(skipped.all(1))
        self._active = [
            torch.from_numpy(matcher.layout.active(skipped[..., : matcher.layout.convolutions])).to(device)
            for matcher in matchers
        ]

    def __call__(self, views: Tensor, iteration: int) -> Tensor:
        turn = self.turns[iteration]
        matcher = self.matchers[turn]
        matcher.convs.skipped = frozenset(np.flatnonzero(self._skipped_by_all[iteration]).tolist())
        pixels = views.flatten(0, 1)
        logits = matcher.net(pixels)
        error = F.cross_entropy(logits, self.labels, reduction="none").view(len(views), -1).mean(1)
        matched = matcher.loss(self._active[turn][iteration])
        return error + self.config.r_loss * matched + self.config.nuc_norm * self.densification(pixels)

    def state(self) -> dict[str, Tensor]:
        mixtures = {f"mixture.{index}": matcher.mixture for index, matcher in enumerate(self.matchers)}
        return mixtures | {f"started.{index}": matcher.started for index, matcher in enumerate(self.matchers)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for index, matcher in enumerate(self.matchers):
            matcher.mixture.copy_(state[f"mixture.{index}"])
            matcher.started.copy_(state[f"started.{index}"])
