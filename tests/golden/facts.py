"""Facts on what is computed that do not depend on the processor, to be held against ``facts.json``.

    python tests/golden/facts.py > tests/golden/facts.json

Whole numbers and strings must be equal, floats agree to 1e-4 relative: they are losses and norms of gradients of first
steps, never weights after steps of an optimizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.api import catalogue
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.seeds import seed_for
from bench.api.stored.codec import LabelCodec
from bench.api.stored.layout import LabelLayout
from bench.api.stored.size import fkd_bytes
from bench.kit.data.sampling import sample_classes
from bench.kit.models import build
from bench.kit.optim import lr_factor
from bench.kit.recovery.augment import Draws, GroupViews
from bench.kit.recovery.bn_statistics import BatchNormInputs
from bench.kit.recovery.config import RecoveryAugmentation
from bench.kit.recovery.loop import noise
from bench.kit.recovery.memory import rounds
from bench.kit.views import AugmentationStream
from bench.planning.protocols import all_protocols, evaluator_of
from methods.g_vbsm.method import GVBSM
from methods.g_vbsm.recover import class_order, skips, turns
from methods.hello.config import Config as HeLlOConfig
from methods.hello.projector import label_size
from methods.hello.train import projector_loss
from methods.rded import mosaic, score
from methods.sre2l import SRe2L, SRe2LLoss, official_batches

CPU = torch.device("cpu")
CONFIGS = {
    "cutmix": AugmentationConfig(size=16, min_scale=0.3, flip=True, mix="cutmix", seed=7),
    "mixup of shuffled": AugmentationConfig(size=16, flip=True, shuffle=2, mix="mixup", alpha=0.8, seed=3),
    "shift": AugmentationConfig(size=16, crop="shift", pad=2, flip=True, seed=5),
}
CODECS = ("fp16", "fp32", "int8", "topk3", "renorm2+fp32", "prune4", "prune2+topk3+int8", "topk5+int8+coords")


def views() -> dict[str, Any]:
    """Order, boxes, partners, weights, and the mean of the pixels of every view."""
    images = torch.arange(9 * 3 * 16 * 16).reshape(9, 3, 16, 16).mul(37).remainder(251).to(torch.uint8)
    found: dict[str, Any] = {}
    for name, config in CONFIGS.items():
        stream = AugmentationStream(config, 9)
        made = []
        for epoch in (0, 3):
            for batch, indices in stream.batches(epoch, 4):
                view = stream.make(images, torch.arange(9), indices, epoch, batch)
                means = view.pixels.mean((1, 2, 3)).tolist()
                made.append([indices.tolist(), view.partner_indices.tolist(), view.weight, means])
        found[name] = made
        if config.shuffle == 1:
            sides = torch.full((9,), 40)
            found[f"{name}, boxes"] = stream.boxes(2, torch.arange(9), sides, sides).tolist()
    for crop in ("rrc", "shift"):
        draws = Draws(RecoveryAugmentation(crop=crop, pad=3, roll=(-4, 4), curriculum=1.0), 11, 32, 20, range(4, 9))
        found[f"recovery {crop}"] = [t.tolist() for t in (draws.boxes, draws.flips, draws.shifts, draws.rolls)]
    return found


def selections() -> dict[str, Any]:
    """Which images, classes and networks are drawn, and in which order."""
    labels = torch.arange(60).mul(7).remainder(5)
    config = GVBSM.Config(pool=("convnet2-w8", "wrn10-1", "resnet10-small-w4"), iterations=9)
    drawn = GVBSM.Config(pool=("convnet2-w8", "wrn10-1"), iterations=9, backbone="random", beta_dr=0.4)
    patches = torch.arange(8 * 3 * 4).reshape(8, 3, 2, 2).to(torch.uint8)
    return {
        "sample": sample_classes(labels, 5, 3, 4).tolist(),
        "pool": sample_classes(labels, 5, 30, 1, most=True).tolist(),
        "mosaic": mosaic(patches, 2).flatten().tolist(),
        "official batches": [[n, n // 3, list(batch)] for n, batch in enumerate(official_batches(2, 7, 3))],
        "together": rounds(list(map(len, official_batches(3, 7, 3))), 4),
        "class order": class_order(4, 4, 2).tolist(),
        "turns": [turns(config, 2, 0), turns(drawn, 2, 1)],
        "skips": [[int(flag) for flag in row] for row in skips(drawn, 1, 3, 5)],
        "seeds": [seed_for("student-views", 0), seed_for("rded-crops", 1), seed_for("sre2l", 2, 5)],
    }


def sizes() -> dict[str, Any]:
    """Bytes of stored labels and numbers of a projector."""
    schedule = AugmentationSchedule(plan=CONFIGS["cutmix"], images=90, epochs=8, batch_size=40)
    found: dict[str, Any] = {text: LabelLayout(schedule, LabelCodec.parse(text), 10).total for text in CODECS}
    found["kept"] = LabelLayout(schedule, LabelCodec.parse("prune4"), 10).kept(0)
    found["FKD"] = fkd_bytes(1000, 1000, 300, 100)
    for layers in ("3x3", "all", "layers-3-4"):
        stored = label_size(HeLlOConfig(layers=layers), "RN50:openai", 1000)
        found[f"projector {layers}"] = stored and [stored.numbers, stored.public]
    for arch, size in (("resnet18", 224), ("convnet3-w32", 32), ("mobilenetv2-small", 32), ("shufflenetv2-small", 32)):
        found[arch] = sum(p.numel() for p in build(arch, 10, size, (0.5,) * 3, (0.5,) * 3).parameters())
    return found


def schedules() -> dict[str, Any]:
    """What each protocol shows: epochs, images per batch and the rate at the first, middle and last epoch."""
    found: dict[str, Any] = {}
    for name, protocol in all_protocols().items():
        evaluator = evaluator_of(protocol)
        info = catalogue.dataset(next((d for d in protocol.datasets if d in catalogue.names()), "cifar10"))
        for ipc in (1, 10, 50):
            schedule = evaluator.schedule(protocol, info, ipc=ipc, seed=0)
            fields = [schedule.epochs, schedule.batch_size, schedule.plan.min_scale, schedule.plan.mix]
            found[f"{name}, {info.name}, ipc {ipc}"] = fields
    for kind in ("cosine", "half_cosine", "half_linear", "step", "constant"):
        found[kind] = [lr_factor(kind, epoch, 30, warmup) for warmup in (0, 5) for epoch in (0, 3, 14, 29)]
    return found


def network(arch: str, classes: int, size: int) -> nn.Module:
    """A network whose weights and statistics follow from its names alone."""
    model = build(arch, classes, size, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    for index, (name, tensor) in enumerate(model.net.state_dict().items()):
        if tensor.dtype.is_floating_point:
            wave = torch.arange(tensor.numel(), dtype=torch.float64).add(index).mul(0.7).sin().view(tensor.shape)
            fan = max(1, tensor[0].numel()) if tensor.ndim > 1 else 1
            tensor.copy_(1 + 0.3 * wave if "running_var" in name or tensor.ndim == 1 else wave * (2 / fan) ** 0.5)
    return model.eval()


def losses() -> dict[str, Any]:
    """Losses and norms of gradients on fixed networks and images."""
    found: dict[str, Any] = {}
    pixels = torch.linspace(0, 40, 6 * 3 * 16 * 16).sin().add(1).div(2).view(6, 3, 16, 16)
    teacher = network("convnet3-w16", 5, 16)
    found["rded score"] = score(teacher, pixels, 2, 16).tolist()
    net, seeds = network("resnet10-small-w16", 4, 16).net.requires_grad_(False), (1, 2)
    for name, config in {
        "sre2l": SRe2L.Config(iterations=9),
        "sre2l, all terms": SRe2L.Config(
            iterations=9, crop="none", flip=False, roll=(0, 2), tv=1e-2, l2=1e-3, r_bn=1.0
        ),
    }.items():
        images = noise(seeds, 4, 16, CPU).requires_grad_()
        made = GroupViews(config, seeds, 16, config.iterations, CPU)(images, 0)
        with BatchNormInputs(net, 2) as inputs:
            loss = SRe2LLoss(net, inputs, torch.arange(4).expand(2, -1), config)(made, 0)
        loss.sum().backward()
        assert images.grad is not None
        found[name] = [*loss.tolist(), images.grad.norm().item()]
    logits = torch.linspace(-2, 3, 24).view(6, 4).sin().requires_grad_()
    loss = projector_loss(logits, torch.linspace(0, 4, 24).view(6, 4).cos(), torch.arange(6) % 4, 0.1)
    loss.backward()
    assert logits.grad is not None
    found["projector"] = [loss.item(), logits.grad.norm().item()]
    return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "views": views, "selections": selections, "sizes": sizes, "schedules": schedules, "losses": losses,
}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps({name: part() for name, part in PARTS.items()}, indent=1))
