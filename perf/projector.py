"""HeLlO's projector against bare loops on the packaged CLIP: what a training step and an answer cost on top.

    python perf/projector.py [--device cuda]

`projector_training`: a bare step (forward and backward of the same tower with plain trainable tensors for the
adapted weights, on one resident batch; no views, no factors, no optimizer) over a step of the real training
loop. The weak teachers are one linear layer, so that their forward hides nothing. `projector_serving`: the
public CLIP's own `encode_image` of a resident batch over the projector's answer to as many views of 28 px.
Above 1 is faster than bare; both sides take turns, and medians are compared.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from clock import Ratios, main, now, side_by_side  # beside this file
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

CLASSES, SIZE, STEPS = 10, 28, 10
MEAN = STD = (0.5, 0.5, 0.5)


def config(batch: int) -> Config:
    """The method's, for one epoch."""
    return Config(epochs=1, batch_size=batch)


def measure(device: torch.device, tiny: bool) -> Ratios:
    """Yield bare over real: of a training step, and of an answer."""
    names = tuple(f"number {index}" for index in range(CLASSES))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES)).requires_grad_(False).to(device)
    batch, rounds = (4, 1) if tiny else (256, 8)
    bare, real = [], []
    for _ in range(rounds):
        bare += list(bare_steps(names, teacher, batch, device))
        real += real_steps(names, teacher, batch, device)
    yield "projector_training", statistics.median(bare) / statistics.median(real)
    source, plain = serving(names, 2 if tiny else 50, device)
    yield "projector_serving", side_by_side({"bare": plain, "real": source}, device, 1 if tiny else 60)["real"]


def bare_steps(names: tuple[str, ...], teacher: nn.Module, batch: int, device: torch.device) -> Iterator[float]:
    """Seconds of each step but the first."""
    model, tokenizer, _ = load_clip(ICON_CLIP, device)
    settings = config(batch)
    projector = build(model, tokenizer, names, settings.model_copy(update={"adapt": "head", "head": "full"}))
    for name in lora.select(projector.tower, settings.layers, settings.attention_pool):
        projector.tower.get_parameter(name).requires_grad_()
    pixels = torch.rand(batch, 3, SIZE, SIZE, device=device)
    labels = torch.arange(batch, device=device) % CLASSES
    start = now(device)
    for step in range(STEPS):
        projector.zero_grad(set_to_none=True)
        loss = projector_loss(projector(pixels), mean_logits([teacher], pixels), labels, settings.ce_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        start, before = now(device), start
        if step:
            yield start - before


def real_steps(names: tuple[str, ...], teacher: nn.Module, batch: int, device: torch.device) -> list[float]:
    """Seconds of each step of the real loop but the first, which also draws the epoch's views."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, 256, (STEPS * batch, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    split = Resident(drawn, torch.arange(STEPS * batch) % CLASSES)
    info = DatasetInfo(
        name="random", title="Random", classes=CLASSES, image_size=SIZE, smallest_class=batch,
        train_images=STEPS * batch, test_images=STEPS * batch, mean=MEAN, std=STD, clip=ICON_CLIP, student="none",
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
        train_projector(task, config(batch), ICON_CLIP)
    steps = times[:STEPS]  # then comes the checkpoint
    return [after - before for before, after in pairwise(steps)]


def serving(
    names: tuple[str, ...], served: int, device: torch.device
) -> tuple[Callable[[], object], Callable[[], object]]:
    """What answers a batch of views, and the bare encoder on a batch of its own size."""
    model, tokenizer, base = load_clip(ICON_CLIP, device)
    size = model.visual.image_size
    resident = torch.rand(served, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    plain, _, _ = load_clip(ICON_CLIP, device)
    plain.visual.to(memory_format=torch.channels_last)
    settings = config(served)
    projector = build(model, tokenizer, names, settings)
    source = ProjectorLabels(ICON_CLIP, base, settings, stored_tensors(projector, settings), device, names)
    zeros = torch.zeros(served, dtype=torch.int64, device=device)
    views = AugmentedBatch(torch.rand(served, 3, SIZE, SIZE, device=device), zeros, zeros, zeros, zeros, 1.0, 0, 0)
    return lambda: source.soft_labels(views, 0), torch.no_grad()(lambda: plain.encode_image(resident))


if __name__ == "__main__":
    main(__doc__, measure)
