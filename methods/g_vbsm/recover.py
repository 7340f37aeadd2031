"""G_VBSM's recovery: the networks of the pool take turns (GBM), one iteration each.

Follows shaoshitong/G_VBSM_Dataset_Condensation, ``recover/data_synthesis_with_svd_with_db_with_all_statistic.py``:
class-major batches, one after the other, with running statistics that go on from batch to batch. Where the authors
ran two GPUs each had half of a batch, with crops, running statistics and skipped convolutions of its own; cross entropy
is a mean over the half, and data densification sees both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bench.api import ImageBlock, NetworkSpec, Task
from bench.api.seeds import seed_for
from bench.kit.images import quantise
from bench.kit.recovery.augment import GroupViews
from bench.kit.recovery.config import RecoveryAugmentation
from bench.kit.recovery.loop import noise, recover
from bench.kit.recovery.memory import rounds
from methods.g_vbsm.config import Config
from methods.g_vbsm.conv_statistics import statistics_of
from methods.g_vbsm.densify import Densification
from methods.g_vbsm.matching import Layout, Matcher


def recover_images(task: Task, config: Config) -> Iterator[ImageBlock]:
    """Yield the images batch by batch; the running statistics of one are where the next goes on."""
    network, size = task.teacher.network, task.dataset.image_size
    batches = class_order(task.dataset.classes, task.ipc, config.blocks).split(config.batch_size)
    nets = [teacher.model().net for teacher in task.teachers]
    found = [statistics_of(task.prepared, teacher.network.arch, task.device) for teacher in task.teachers]
    layouts = [Layout(*each, config.first_multiplier) for each in zip(nets, found, strict=True)]
    for numbers in task.blocks(rounds(list(map(len, batches)), config.groups), independent=config.independent()):
        labels = torch.stack([batches[number] for number in numbers])
        parts = parts_of(labels.shape[1], config)
        with ExitStack() as opened:
            matchers = [
                opened.enter_context(Matcher(net, layout, len(numbers) * parts, config))
                for net, layout in zip(nets, layouts, strict=True)
            ]
            spaces = [between(network, teacher.network, task.device) for teacher in task.teachers]
            loss = PoolLoss(
                matchers, spaces, labels, [(n, k) for n in numbers for k in range(parts)], config, task.seed
            )
            if task.state:
                loss.restore(task.state)
            seeds = [task.seed_for("g-vbsm-views", n, *_part(k)) for n in numbers for k in range(parts)]
            start = noise([task.seed_for("g-vbsm-noise", n) for n in numbers], labels.shape[1], size, task.device)
            images = recover(
                start.unflatten(1, (parts, -1)).flatten(0, 1),
                loss,
                GroupViews(augmentation(config), seeds, size, config.iterations, task.device),
                lr=config.lr, mean=network.mean, std=network.std,
                memory=loss, checkpoint=task.checkpoint, progress=task.progress,
            )  # fmt: skip
        state = loss.state() if config.ema_reset == "never" else {}
        yield ImageBlock(torch.cat([quantise(group).cpu() for group in images]), labels.flatten(), state)


def parts_of(batch: int, config: Config) -> int:
    """Return the micro-batches of a batch: a smaller one, the last, has fewer where they suffice, and equal ones."""
    parts = -(-batch * config.micro_batches // config.batch_size)
    while batch % parts:
        parts -= 1
    return parts


def _part(number: int) -> tuple[int, ...]:
    return (number,) if number else ()


def between(first: NetworkSpec, other: NetworkSpec, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return (scale, shift) from pixels as one network normalises them to another's; None: they do it alike."""
    if (first.mean, first.std) == (other.mean, other.std):
        return None
    mean, std, to_mean, to_std = (
        torch.tensor(values, device=device).view(3, 1, 1) for one in (first, other) for values in (one.mean, one.std)
    )
    return std / to_std, (mean - to_mean) / to_std


def augmentation(config: Config) -> RecoveryAugmentation:
    """Return the augmentation of the images before a network sees them."""
    return RecoveryAugmentation(
        crop=config.crop, min_scale=config.min_scale, pad=config.pad, flip=config.flip, roll=(0, config.roll),
        antialias=config.antialias,
    )  # fmt: skip


def class_order(classes: int, ipc: int, blocks: int) -> Tensor:
    """Return the class of each image in the order of the batches, int64 (classes * ipc,): by block, then by class."""
    return torch.arange(classes).repeat_interleave(ipc // blocks).repeat(blocks)


def turns(config: Config, batch: int, seed: int) -> list[int]:
    """Draw which network of the pool each iteration of a batch of images asks.

    The authors' code counts on from batch to batch, their paper draws at random.
    """
    count = len(config.pool)
    if config.backbone == "random":
        stream = torch.Generator().manual_seed(seed_for("g-vbsm-turns", seed, batch))
        return torch.randint(count, (config.iterations,), generator=stream).tolist()
    return [(batch * config.iterations + iteration) % count for iteration in range(config.iterations)]


def skips(config: Config, batch: int, seed: int, convolutions: int, part: int = 0) -> NDArray[np.bool_]:
    """Draw which convolutions are not matched in which iteration of a micro-batch of images (T, convolutions)."""
    stream = torch.Generator().manual_seed(seed_for("g-vbsm-skips", seed, batch, *_part(part)))
    drawn = torch.rand(config.iterations, convolutions, generator=stream)
    return np.asarray(drawn < config.beta_dr, dtype=np.bool_)


class PoolLoss:
    """Cross entropy, matched statistics of one network per iteration, and data densification.

    Args:
        spaces: of each network (:func:`between`), from the normalised pixels of the images.
        labels: the classes (G, B) of the images.
        batches: of G * K micro-batches the numbers of the batch and of the part, on which turns and skips depend.
    """

    def __init__(
        self, matchers: Sequence[Matcher], spaces: Sequence[tuple[Tensor, Tensor] | None], labels: Tensor,
        batches: Sequence[tuple[int, int]], config: Config, seed: int,
    ):  # fmt: skip
        self.matchers, self.spaces, self.config = matchers, spaces, config
        device = matchers[0].layout.targets.device
        self.labels = labels.flatten().to(device)
        self.densification = Densification(labels.tolist(), config.tau, device)
        self.turns = turns(config, batches[0][0], seed)
        most = max(matcher.layout.convolutions for matcher in matchers)
        skipped = np.stack([skips(config, batch, seed, most, part) for batch, part in batches], 1)  # (T, G * K, …)
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
        space = self.spaces[turn]
        logits = matcher.net(pixels if space is None else torch.addcmul(space[1], pixels, space[0]))
        error = F.cross_entropy(logits, self.labels, reduction="none").view(len(views), -1).mean(1)
        matched = matcher.loss(self._active[turn][iteration])
        spread = self.densification(pixels)  # (G,)
        apart = (error + self.config.r_loss * matched).view(len(spread), -1).sum(1)
        return apart + self.config.nuc_norm * spread

    def state(self) -> dict[str, Tensor]:
        mixtures = {f"mixture.{index}": matcher.mixture for index, matcher in enumerate(self.matchers)}
        return mixtures | {f"started.{index}": matcher.started for index, matcher in enumerate(self.matchers)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for index, matcher in enumerate(self.matchers):
            for name, kept in (("mixture", matcher.mixture), ("started", matcher.started)):
                kept.copy_(state[f"{name}.{index}"][: len(kept)])  # a smaller batch has fewer parts
