"""RDED's pool scoring against the bare teacher: crops cut, scored and ranked, a class each in turn.

`digits`: the data set's own teacher and images (16 px, five crops of each, no mosaic). `mosaic`: random images of twice
the size of a crop, which is zero-padded, a ResNet-18: 128 px on a processor, 224 px on an accelerator. The bare teacher
answers as many crops of full size that were made beforehand, in the same batches.

    python perf/rded.py [--device cuda]

A ratio is bare seconds over RDED's, the median over the rounds; 1 means that cutting crops costs nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from clock import Ratios, main, side_by_side  # beside this file
from student_loop import random_images

from bench.api import Dataset, catalogue
from bench.kit import data
from bench.kit.running import RunningTask, prepare
from bench.kit.teachers import trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from methods.rded import RDED


def untrained(real: Dataset, folder: Path, device: torch.device) -> Trajectory:
    """The data set's teacher with random weights, which answers as fast."""
    info = real.info
    arch, size = info.teacher.arch, info.image_size
    network = Network(arch=arch, classes=info.classes, image_size=size, mean=info.mean, std=info.std)
    trajectory.save(folder, network, "untrained", {1: network.build().net.state_dict()}, {1: 0.0}, 0.0)
    return Trajectory.load(folder, device)


def share(real: Dataset, device: torch.device, rounds: int, pool: int) -> float:
    """Bare over RDED's seconds of scoring the pool of all classes."""
    method, info = RDED(RDED.Config(pool=pool)), real.info
    config, images = method.config, pool * info.classes
    crops = torch.rand(config.crops * pool, 3, info.image_size, info.image_size, device=device)
    batches = crops.contiguous(memory_format=torch.channels_last).split(config.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        teacher = untrained(real, Path(folder), device)

        @torch.inference_mode()
        def bare() -> None:
            for _ in range(info.classes):
                for batch in batches:
                    teacher.model()(batch)

        def scored() -> None:
            with tempfile.TemporaryDirectory() as work:
                task = RunningTask(
                    dataset=info, ipc=1, seed=0, data=real, teachers=(teacher,), device=device, work=Path(work),
                    on_progress=lambda *_, **__: None,
                )  # fmt: skip
                assert len(prepare(method, task)["scores"]) == images

        return side_by_side({"bare": bare, "rded": scored}, device, rounds)["rded"]


def measure(device: torch.device, tiny: bool) -> Ratios:
    """Yield the shares."""
    cases = {"digits": (data.load(catalogue.dataset("digits")), 7, 50)}
    if not tiny:
        size = 224 if device.type == "cuda" else 128
        cases["mosaic"] = (random_images(size, "resnet18", 200), 3, 300 if device.type == "cuda" else 20)
    for name, (real, rounds, pool) in cases.items():
        yield f"rded_{name}", share(real, device, 1 if tiny else rounds, 5 if tiny else pool)


if __name__ == "__main__":
    main(__doc__, measure)
