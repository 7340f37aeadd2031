"""One recovery iteration of SRe2L and of G_VBSM against its bare networks.

`bare`: forward of the network (of G_VBSM's pool, of each in turn) and backward to its input, with a cross entropy, on a
batch that is there. The methods: all of an iteration: views, forward with the statistics, loss, backward, Adam, clamp.

    python perf/recovery.py [--device cuda]

A ratio is the bare seconds over the method's, the median over the rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from clock import Ratios, main, side_by_side  # beside this file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.kit.models import build
from bench.kit.recovery.augment import GroupViews
from bench.kit.recovery.bn_statistics import BatchNormInputs
from bench.kit.recovery.loop import noise, recover
from methods.g_vbsm import GVBSM
from methods.g_vbsm.config import IMAGENET_POOL, NARROW_POOL, SMALL_POOL
from methods.g_vbsm.matching import Layout, Matcher
from methods.g_vbsm.moments import ConvInputs, ConvMoments
from methods.g_vbsm.recover import PoolLoss, augmentation
from methods.sre2l import SRe2L, SRe2LLoss

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
# name: networks, pixels, images of a batch, batches at once or G_VBSM's patch, rounds of the pool at a time
SRE2L = {
    "resnet18-small-32px": ("resnet18-small", 32, 100, 1, 1),
    "convnet3-w32-16px": ("convnet3-w32", 16, 10, 1, 60),
    "convnet3-w32-16px-10-groups": ("convnet3-w32", 16, 10, 10, 20),
}
G_VBSM = {
    "narrow-16px": (NARROW_POOL, 16, 100, 4, 2),
    "small-32px": (SMALL_POOL, 32, 100, 4, 1),  # the authors' batch for CIFAR
    "small-32px-of-10": (SMALL_POOL, 32, 10, 4, 1),
}
ON_CUDA = {"resnet18-224px": ("resnet18", 224, 100, 1, 10)}, {"imagenet-224px": (IMAGENET_POOL, 224, 80, 16, 2)}
TINY = {"tiny": ("convnet2-w8", 8, 10, 1, 1)}, {"tiny": (("convnet2-w8", "convnet3-w8"), 8, 10, 4, 1)}


def network(arch: str, size: int, classes: int, device: torch.device) -> nn.Module:
    """With random weights, which answer as fast."""
    torch.manual_seed(0)
    model = build(arch, classes, size, MEAN, STD).eval().requires_grad_(False)
    return model.to(device, memory_format=torch.channels_last).net  # type: ignore[call-overload, no-any-return]


def bare(nets: list[nn.Module], labels: Tensor, size: int, rounds: int) -> Callable[[], None]:
    """The networks in turn, on all images as one batch."""
    images = noise([0], len(labels), size, labels.device)[0].contiguous(memory_format=torch.channels_last)
    images.requires_grad_()

    def run() -> None:
        for net in nets * rounds:
            images.grad = None
            F.cross_entropy(net(images), labels).backward()

    return run


def sre2l(net: nn.Module, labels: Tensor, size: int, count: int) -> Callable[[], Tensor]:
    """The method's own loop."""
    config, seeds = SRe2L.Config(), list(range(len(labels)))
    start = noise(seeds, labels.shape[1], size, labels.device)

    def run() -> Tensor:
        views = GroupViews(config, seeds, size, count, labels.device)
        with BatchNormInputs(net, len(labels)) as inputs:
            return recover(start, SRe2LLoss(net, inputs, labels, config), views, lr=config.lr, mean=MEAN, std=STD)

    return run


def g_vbsm(
    pool: tuple[str, ...], nets: list[nn.Module], labels: Tensor, size: int, patch: int, rounds: int
) -> Callable[[], Tensor]:
    """The method's own loop, with the statistics of a batch of noise as targets."""
    layouts, start = [], noise([0], len(labels), size, labels.device)
    for net in nets:
        with torch.no_grad(), ConvInputs(net, 1, patch) as inputs:
            net(start[0])
            found = inputs.take()
        targets = {inputs.names[place]: ConvMoments(*(each[0] for each in found[place])) for place in found}
        layouts.append(Layout(net, targets, 10))
    count = rounds * len(pool)
    config = GVBSM.Config(pool=pool, patch=patch, beta_dr=0.4, iterations=count, batch_size=len(labels))

    def run() -> Tensor:
        views = GroupViews(augmentation(config), [0], size, count, labels.device)
        with ExitStack() as opened:
            pairs = zip(nets, layouts, strict=True)
            matchers = [opened.enter_context(Matcher(net, layout, 1, config)) for net, layout in pairs]
            loss = PoolLoss(matchers, [None] * len(nets), labels[None], [(0, 0)], config, 0)
            return recover(start, loss, views, lr=config.lr, mean=MEAN, std=STD)

    return run


def measure(device: torch.device, tiny: bool) -> Ratios:
    """Yield bare over whole, case by case."""
    singles, pools = TINY if tiny else ON_CUDA if device.type == "cuda" else (SRE2L, G_VBSM)
    rounds = 1 if tiny else 7
    for name, (arch, size, batch, groups, count) in singles.items():
        labels = (torch.arange(batch, device=device) % 10).expand(groups, -1)
        net = network(arch, size, 10, device)
        variants = {
            "bare": bare([net], labels.flatten(), size, count),
            f"sre2l_{name}": sre2l(net, labels, size, count),
        }
        yield from side_by_side(variants, device, rounds).items()
    for name, (pool, size, batch, patch, count) in pools.items():
        labels = torch.arange(batch, device=device) // 10 % 10
        nets = [network(arch, size, 10, device) for arch in pool]
        variants = {
            "bare": bare(nets, labels, size, count),
            f"g_vbsm_{name}": g_vbsm(pool, nets, labels, size, patch, count),
        }
        yield from side_by_side(variants, device, rounds).items()


if __name__ == "__main__":
    main(__doc__, measure)
