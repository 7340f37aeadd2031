"""HeLlO's projector against bare loops on the packaged CLIP: what a training step and an answer cost on top.

    python perf/projector.py

`projector_training`: a bare step (forward and backward of the same tower with plain trainable tensors for the
adapted weights, on one resident batch; no views, no factors, no optimizer) over a step of the real training
loop. The weak teachers are one linear layer, so that their forward hides nothing. `projector_serving`: the
public CLIP's own `encode_image` of a resident batch over the projector's answer to as many views of 28 px.
Above 1 is faster than bare; both sides take turns, and medians are compared.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from bench.api import Dataset, DatasetInfo, TeacherSpec
from bench.kit.clip.loading import ICON_CLIP, load_clip
from bench.kit.data.dataset import Resident
from bench.kit.running import RunningTask
from bench.kit.views import AugmentedBatch
from methods.hello import lora
from methods.hello.config import Config
from methods.hello.projector import ProjectorLabels, build, stored_tensors
from methods.hello.train import mean_logits, projector_loss, train_projector

CLASSES, SIZE, IMAGES, BATCH, SERVED, ROUNDS = 10, 28, 2560, 256, 50, 8
CONFIG = Config(epochs=1, batch_size=BATCH)
MEAN = STD = (0.5, 0.5, 0.5)


def main() -> None:
    """Measure and print."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = tuple(f"number {index}" for index in range(CLASSES))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES)).requires_grad_(False).to(device)
    bare_training, real_training, bare_serving, real_serving = [], [], [], []
    source, plain = serving(names, device)
    for _ in range(ROUNDS):
        bare_training += list(bare_steps(names, teacher, device))
        real_training += real_steps(names, teacher, device)
        bare_serving += timed(plain, device)
        real_serving += timed(source, device)
    for what, bare, real in (
        ("training", bare_training, real_training),
        ("serving", bare_serving, real_serving),
    ):
        one, other = statistics.median(bare), statistics.median(real)
        print(f"{what}: bare {1e3 * one:.2f} ms, projector {1e3 * other:.2f} ms")
        print(f"ratio projector_{what} {one / other:.3f}")


def now(device: torch.device) -> float:
    """Seconds, when the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bare_steps(names: tuple[str, ...], teacher: nn.Module, device: torch.device) -> Iterator[float]:
    """Seconds of each step but the first."""
    model, tokenizer, _ = load_clip(ICON_CLIP, device)
    projector = build(model, tokenizer, names, CONFIG.model_copy(update={"adapt": "head", "head": "full"}))
    for name in lora.select(projector.tower, CONFIG.layers, CONFIG.attention_pool):
        projector.tower.get_parameter(name).requires_grad_()
    pixels = torch.rand(BATCH, 3, SIZE, SIZE, device=device)
    labels = torch.arange(BATCH, device=device) % CLASSES
    start = now(device)
    for step in range(IMAGES // BATCH):
        projector.zero_grad(set_to_none=True)
        loss = projector_loss(projector(pixels), mean_logits([teacher], pixels), labels, CONFIG.ce_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        start, before = now(device), start
        if step:
            yield start - before


def real_steps(names: tuple[str, ...], teacher: nn.Module, device: torch.device) -> list[float]:
    """Seconds of each step of the real loop but the first, which also draws the epoch's views."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    split = Resident(drawn, torch.arange(IMAGES) % CLASSES)
    info = DatasetInfo(
        name="random", title="Random", classes=CLASSES, image_size=SIZE, smallest_class=IMAGES // CLASSES,
        train_images=IMAGES, test_images=IMAGES, mean=MEAN, std=STD, clip=ICON_CLIP, student="none",
        teacher=TeacherSpec(image_size=SIZE),
    )  # fmt: skip
    trajectory: Any = SimpleNamespace(
        epochs=(1,), network=SimpleNamespace(image_size=SIZE), model=lambda epoch: teacher
    )
    times: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        task = RunningTask(
            dataset=info, ipc=10, seed=0, data=Dataset(info, names, names, split, split), teachers=(trajectory,),
            device=device, work=Path(work), on_progress=lambda *_, **__: times.append(now(device)),
        )  # fmt: skip
        train_projector(task, CONFIG, ICON_CLIP)
    steps = times[: IMAGES // BATCH]  # then comes the checkpoint
    return [after - before for before, after in pairwise(steps)]


def serving(names: tuple[str, ...], device: torch.device) -> tuple[Callable[[], object], Callable[[], object]]:
    """What answers a batch of views, and the bare encoder on a batch of its own size."""
    model, tokenizer, base = load_clip(ICON_CLIP, device)
    size = model.visual.image_size
    resident = torch.rand(SERVED, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    plain, _, _ = load_clip(ICON_CLIP, device)
    plain.visual.to(memory_format=torch.channels_last)
    projector = build(model, tokenizer, names, CONFIG)
    source = ProjectorLabels(ICON_CLIP, base, names, CONFIG, stored_tensors(projector, CONFIG), device)
    zeros = torch.zeros(SERVED, dtype=torch.int64, device=device)
    views = AugmentedBatch(torch.rand(SERVED, 3, SIZE, SIZE, device=device), zeros, zeros, zeros, zeros, 1.0, 0, 0)
    return lambda: source.soft_labels(views, 0), lambda: plain.encode_image(resident)


@torch.no_grad()
def timed(answer: Callable[[], object], device: torch.device) -> list[float]:
    """Seconds of each of twenty answers after two to warm up."""
    times = []
    for index in range(22):
        start = now(device)
        answer()
        if index > 1:
            times.append(now(device) - start)
    return times


if __name__ == "__main__":
    main()
