"""One recovery iteration against the bare teacher, and against the plain way to write it.

`bare`: forward of the teacher and backward to its input, with a cross entropy, on a batch that is there. `sre2l`: all
of an iteration: views, forward with the statistics, loss, backward, Adam, clamp. `sre2l-hooks`: the same written
plainly, as the field does: forward hooks that read a permuted copy of each activation, torchvision transforms made
anew and a `.item()` in every iteration, a clamp channel by channel.

    python perf/recovery.py [--device cuda] [--threads 1] [--rounds 7] [--cases resnet18-small-32px]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from side_by_side import Comparison, Steps  # beside this file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2 as transforms

from bench.kit.models import Classifier, build
from bench.kit.recovery.augment import GroupViews
from bench.kit.recovery.bn_statistics import BatchNormInputs
from bench.kit.recovery.loop import noise, recover
from methods.sre2l import SRe2L, SRe2LLoss

BEST = 1e4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Case:
    """A teacher and an official batch of it; ``steps`` iterations are measured at a time."""

    arch: str
    size: int
    batch: int
    steps: int
    groups: int = 1
    classes: int = 100
    to_peak = 2

    @property
    def updates(self) -> int:
        """Images an iteration."""
        return self.groups * self.batch

    def teacher(self, device: torch.device) -> Classifier:
        """With random weights, which answers as fast."""
        model = build(self.arch, self.classes, self.size, MEAN, STD).eval().requires_grad_(False)
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def labels(self, device: torch.device) -> Tensor:
        """(G, B)."""
        return (torch.arange(self.batch, device=device) % self.classes).expand(self.groups, -1)


CASES = {
    "resnet18-small-32px": Case("resnet18-small", 32, 100, steps=1),
    "convnet3-w32-16px": Case("convnet3-w32", 16, 10, steps=60, classes=10),
    "convnet3-w32-16px-10-groups": Case("convnet3-w32", 16, 10, steps=20, groups=10, classes=10),
}
CUDA_CASES = {
    "resnet18-small-32px": Case("resnet18-small", 32, 100, steps=50),
    "resnet18-small-32px-10-groups": Case("resnet18-small", 32, 100, steps=10, groups=10),
    "resnet18-224px": Case("resnet18", 224, 100, steps=10, classes=1000),
}


def bare(case: Case, device: torch.device) -> Steps:
    """The teacher alone, on all groups as one batch."""
    net, labels = case.teacher(device).net, case.labels(device).flatten()
    images = noise([0], len(labels), case.size, device)[0].contiguous(memory_format=torch.channels_last)
    images.requires_grad_()

    def steps(count: int) -> None:
        for _ in range(count):
            images.grad = None
            F.cross_entropy(net(images), labels).backward()

    return steps


def sre2l(case: Case, device: torch.device) -> Steps:
    """The method's own loop."""
    config, net, labels = SRe2L.Config(), case.teacher(device).net, case.labels(device)
    seeds = list(range(case.groups))
    start = noise(seeds, case.batch, case.size, device)

    def steps(count: int) -> None:
        views = GroupViews(config, seeds, case.size, count, device)
        with BatchNormInputs(net, case.groups) as inputs:
            recover(start, SRe2LLoss(net, inputs, labels, config), views, lr=config.lr, mean=MEAN, std=STD)

    return steps


class Hook:
    """The distance of a batch norm's input to its running statistics, by a forward hook."""

    def __init__(self, module: nn.BatchNorm2d):
        module.register_forward_hook(self.read)
        self.distance = torch.zeros(())

    def read(self, module: nn.BatchNorm2d, given: tuple[Tensor], _: Tensor) -> None:
        """Through a permuted copy."""
        channels = given[0].shape[1]
        mean = given[0].mean([0, 2, 3])
        variance = given[0].permute(1, 0, 2, 3).contiguous().view(channels, -1).var(1, unbiased=False)
        assert module.running_mean is not None and module.running_var is not None
        self.distance = torch.norm(module.running_var - variance, 2) + torch.norm(module.running_mean - mean, 2)


def plain_step(loss: Tensor, optimizer: torch.optim.Optimizer, images: Tensor) -> None:
    """The end of an iteration as the field writes it: a clamp channel by channel, a wait for the loss, and a copy for
    its dead "best" images, whose bound is never lowered."""
    loss.backward()
    optimizer.step()
    for channel, (m, s) in enumerate(zip(MEAN, STD, strict=True)):
        images.data[:, channel] = torch.clamp(images.data[:, channel], -m / s, (1 - m) / s)
    if loss.item() < BEST:
        images.data.clone()


def sre2l_hooks(case: Case, device: torch.device) -> Steps:
    """The plain way, a group after the other."""
    config, net, labels = SRe2L.Config(), case.teacher(device).net, case.labels(device)
    hooks = [Hook(module) for module in net.modules() if isinstance(module, nn.BatchNorm2d)]

    def steps(count: int) -> None:
        for group in range(case.groups):
            images = noise([group], case.batch, case.size, device)[0].requires_grad_()
            optimizer = torch.optim.Adam([images], config.lr, betas=(0.5, 0.9), eps=1e-8)
            for _ in range(count):
                augment = transforms.Compose(
                    [transforms.RandomResizedCrop(case.size, antialias=False), transforms.RandomHorizontalFlip()]
                )
                down, right = torch.randint(0, 33, (2,)).tolist()
                views = torch.roll(augment(images), (down, right), (2, 3))
                optimizer.zero_grad()
                loss = F.cross_entropy(net(views), labels[group])
                weights = [config.first_bn] + [1.0] * (len(hooks) - 1)
                loss = loss + config.r_bn * sum(w * hook.distance for w, hook in zip(weights, hooks, strict=True))
                plain_step(loss, optimizer, images)

    return steps


VARIANTS: dict[str, Callable[[Case, torch.device], Steps]] = {"bare": bare, "sre2l": sre2l, "sre2l-hooks": sre2l_hooks}


if __name__ == "__main__":
    Comparison(__file__, __doc__, VARIANTS, CASES, CUDA_CASES).main()
