"""What views cost: time to make them over time of a student's forward, backward and step on the same batch.

Views and steps alternate, so that a busy machine slows both alike, and the medians are compared. ``whole`` is
RDED's plan below 128 pixels (flip and CutMix alone), ``crop`` adds random resized crops and ``mosaic`` patch
shuffling as well. A ratio of 0.05 says that views take a twentieth of what the student takes.

    python perf/views.py [--device cuda] [--threads 1]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from bench.kit.models import build
from bench.kit.views import AugmentationConfig, AugmentationStream, AugmentedBatch

CLASSES, MEAN, STD = 10, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
WARM_UP = 2

# name: (student, pixels a side, images a batch, images in all, batches timed)
CASES = {
    "16px-b10": ("convnet3-w32", 16, 10, 10, 400),
    "16px-b50": ("convnet3-w32", 16, 50, 500, 200),
    "32px-b100": ("convnet3", 32, 100, 500, 12),
    "224px-b32": ("resnet18", 224, 32, 64, 3),
}
PLANS = {
    "whole": {"min_scale": 1.0},
    "crop": {"min_scale": 0.5},
    "mosaic": {"min_scale": 0.5, "shuffle": 2},
}


def batches(plan: AugmentationConfig, count: int, batch_size: int, device: torch.device) -> Iterator[AugmentedBatch]:
    """Views of random images, epoch after epoch."""
    shape = (count, 3, plan.size, plan.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    labels = torch.randint(0, CLASSES, (count,)).to(device)
    stream = AugmentationStream(plan, count)
    for epoch in itertools.count():
        for batch, indices in stream.batches(epoch, batch_size, device):
            yield stream.make(pixels, labels, indices, epoch, batch)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(case: str, plan: str, device: torch.device) -> tuple[float, float]:
    """Median seconds a batch of making the views, and of the student's step on them."""
    arch, size, batch_size, count, timed = CASES[case]
    torch.manual_seed(0)
    student = build(arch, CLASSES, size, MEAN, STD).to(device).train()
    optimizer = torch.optim.AdamW(student.parameters(), foreach=True)
    source = batches(AugmentationConfig(size=size, flip=True, mix="cutmix", **PLANS[plan]), count, batch_size, device)
    making, training = [], []
    for _ in range(WARM_UP + timed):
        start = now(device)
        views = next(source)
        made = now(device)
        optimizer.zero_grad()
        F.cross_entropy(student(views.pixels), views.labels).backward()
        optimizer.step()
        making.append(made - start)
        training.append(now(device) - made)
    return statistics.median(making[WARM_UP:]), statistics.median(training[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measured = {
        f"views-{case}-{plan}": measure(case, plan, torch.device(options.device)) for case in CASES for plan in PLANS
    }
    for name, (making, training) in measured.items():
        print(f"{name}: views {making * 1e3:.3f} ms, student {training * 1e3:.3f} ms")
    for name, (making, training) in measured.items():
        print(f"ratio {name} {making / training:.4f}")


if __name__ == "__main__":
    main()
