"""G_VBSM's recovery against its bare networks in turn, and against the plain way to write it.

`bare`: forward of the network whose turn it is and backward to its input, with a cross entropy, on a batch that is
there. `g_vbsm`: all of an iteration: views, forward with the statistics of batch norms and convolutions, densification,
backward, Adam, clamp. `g_vbsm-hooks`: the same written plainly, as its authors do: forward hooks that read a permuted
copy of each activation and a rearranged one, general eigenvalues class by class, a `.item()` in every iteration.

    python perf/recovery_pool.py [--device cuda] [--threads 1] [--rounds 5] [--cases narrow-16px]
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from recovery import MEAN, STD, plain_step  # beside this file, as the next
from side_by_side import Comparison, Steps
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2 as transforms

from bench.kit.models import build
from bench.kit.recovery.augment import GroupViews
from bench.kit.recovery.loop import noise, recover
from methods.g_vbsm import GVBSM
from methods.g_vbsm.config import IMAGENET_POOL, NARROW_POOL, SMALL_POOL
from methods.g_vbsm.matching import Layout, Matcher, Targets
from methods.g_vbsm.moments import ConvInputs, ConvMoments
from methods.g_vbsm.recover import PoolLoss, augmentation

CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A pool and an official batch of it: class-major, 10 images a class."""

    pool: tuple[str, ...]
    size: int
    batch: int
    rounds: int = 1  # of the pool that are measured at a time
    patch: int = 4
    beta_dr: float = 0.4

    @property
    def to_peak(self) -> int:
        """Every network has its turn."""
        return len(self.pool)

    @property
    def steps(self) -> int:
        """Iterations at a time."""
        return self.rounds * len(self.pool)

    @property
    def updates(self) -> int:
        """Images an iteration."""
        return self.batch

    def networks(self, device: torch.device) -> list[nn.Module]:
        """With random weights, which answer as fast."""
        models = [build(arch, CLASSES, self.size, MEAN, STD).eval().requires_grad_(False) for arch in self.pool]
        return [model.to(device, memory_format=torch.channels_last).net for model in models]  # type: ignore[call-overload]

    def labels(self, device: torch.device) -> Tensor:
        """(B,)."""
        return torch.arange(self.batch, device=device) // 10 % CLASSES

    def config(self, iterations: int) -> GVBSM.Config:
        """The method's settings."""
        return GVBSM.Config(
            pool=self.pool, patch=self.patch, beta_dr=self.beta_dr, iterations=iterations, batch_size=self.batch
        )

    def targets(self, net: nn.Module, device: torch.device) -> Targets:
        """Those of a batch of noise."""
        with torch.no_grad(), ConvInputs(net, 1, self.patch) as inputs:
            net(noise([0], self.batch, self.size, device)[0])
            found = inputs.take()
        return {inputs.names[place]: ConvMoments(*(each[0] for each in found[place])) for place in found}


CASES = {
    "narrow-16px": Case(NARROW_POOL, 16, 100, rounds=2),
    "narrow-16px-all-matched": Case(NARROW_POOL, 16, 100, rounds=2, beta_dr=0),
    "small-32px-of-10": Case(SMALL_POOL, 32, 10),
}
CUDA_CASES = {
    "small-32px": Case(SMALL_POOL, 32, 100, rounds=10),
    "imagenet-224px": Case(IMAGENET_POOL, 224, 80, rounds=2, patch=16, beta_dr=0),
}


def bare(case: Case, device: torch.device) -> Steps:
    """The networks alone."""
    nets, labels = case.networks(device), case.labels(device)
    images = noise([0], case.batch, case.size, device)[0].contiguous(memory_format=torch.channels_last)
    with torch.no_grad():  # the other variants have measured their targets: what a first call allocates is there
        for net in nets:
            net(images)
    images.requires_grad_()

    def steps(count: int) -> None:
        for index in range(count):
            images.grad = None
            F.cross_entropy(nets[index % len(nets)](images), labels).backward()

    return steps


def g_vbsm(case: Case, device: torch.device) -> Steps:
    """The method's own loop."""
    nets, labels = case.networks(device), case.labels(device)[None]
    layouts = [Layout(net, case.targets(net, device), 10) for net in nets]
    start = noise([0], case.batch, case.size, device)

    def steps(count: int) -> None:
        config = case.config(count)
        views = GroupViews(augmentation(config), [0], case.size, count, device)
        with ExitStack() as opened:
            matchers = [
                opened.enter_context(Matcher(net, layout, 1, config)) for net, layout in zip(nets, layouts, strict=True)
            ]
            loss = PoolLoss(matchers, labels, [0], config, 0)
            recover(start, loss, views, lr=config.lr, mean=MEAN, std=STD)

    return steps


class Hook:
    """The distance of a layer's input to its target, by a forward hook with running statistics."""

    def __init__(self, module: nn.Module, targets: list[Tensor], case: Case):
        module.register_forward_hook(self.read)
        self.targets, self.case = targets, case
        self.distance = torch.zeros(())
        self.mixture = [torch.zeros_like(target) for target in targets]

    def read(self, module: nn.Module, given: tuple[Tensor], _: Tensor) -> None:
        """Through a permuted copy, and for a convolution a rearranged one."""
        x = given[0]
        if isinstance(module, nn.Conv2d) and random.random() < self.case.beta_dr:
            self.distance = torch.zeros((), device=x.device)
            return
        found = [x.mean([0, 2, 3]), x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1).var(1, unbiased=False)]
        if isinstance(module, nn.Conv2d):
            side = self.case.patch
            height, width = (-(-pixels // side) * side for pixels in x.shape[2:])
            cells = F.interpolate(x, [height, width], mode="bilinear").unflatten(3, (-1, side)).unflatten(2, (-1, side))
            rows = cells.permute(2, 4, 0, 1, 3, 5).reshape(height * width // side**2, -1)
            found += [rows.mean(1), rows.var(1, unbiased=False)]
        with torch.no_grad():
            self.mixture = [0.4 * old + 0.6 * new for old, new in zip(self.mixture, found, strict=True)]
        pairs = zip(self.targets, self.mixture, found, strict=True)
        self.distance = sum((torch.norm(t - (old + new - new.detach()), 2) for t, old, new in pairs), torch.zeros(()))


def g_vbsm_hooks(case: Case, device: torch.device) -> Steps:
    """The plain way."""
    nets, labels, config = case.networks(device), case.labels(device), case.config(1)
    hooks: list[list[Hook]] = []
    for net in nets:
        targets = case.targets(net, device)
        hooks.append([])
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d):
                hooks[-1].append(Hook(module, list(targets[name]), case))
            elif isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                hooks[-1].append(Hook(module, [module.running_mean, module.running_var], case))

    def steps(count: int) -> None:
        images = noise([0], case.batch, case.size, device)[0].requires_grad_()
        optimizer = torch.optim.Adam([images], config.lr, betas=(0.5, 0.9), eps=1e-8)
        for index in range(count):
            augment = transforms.Compose(
                [transforms.RandomResizedCrop(case.size, antialias=False), transforms.RandomHorizontalFlip()]
            )
            views = torch.roll(augment(images), (random.randint(0, 32), random.randint(0, 32)), (2, 3))
            optimizer.zero_grad()
            loss = F.cross_entropy(nets[index % len(nets)](views), labels)
            asked = hooks[index % len(nets)]
            weights = [config.first_multiplier] + [1.0] * (len(asked) - 1)
            loss = loss + config.r_loss * sum(w * hook.distance for w, hook in zip(weights, asked, strict=True))
            features = F.adaptive_avg_pool2d(views, 32).flatten(1)
            for label in set(labels.tolist()):
                same = features[labels == label]
                spectrum = torch.linalg.eigvals(same @ same.t()).real
                aim = (spectrum / config.tau).softmax(0).detach()
                loss = loss + F.kl_div(spectrum.log_softmax(0), aim, reduction="sum")
            plain_step(loss, optimizer, images)

    return steps


VARIANTS: dict[str, Callable[[Case, torch.device], Steps]] = {
    "bare": bare,
    "g_vbsm": g_vbsm,
    "g_vbsm-hooks": g_vbsm_hooks,
}


if __name__ == "__main__":
    Comparison(__file__, __doc__, VARIANTS, CASES, CUDA_CASES).main()
