"""RDED's patch scoring against the bare teacher: images a second, crops cut, scored and ranked.

`digits`: the data set's own teacher and images (16 px, five crops of each, no mosaic), a class at a time. `mosaic`:
random images of 128 px, crops of 64 px zero-padded to 128, a ResNet-18. The bare teacher answers as many crops of
full size that were made beforehand, in the same batches. Both take turns, a class each.

    python perf/rded_synthesis.py [--device cuda] [--threads 1] [--rounds 15]

A ratio is bare seconds over RDED's, the median over the rounds; 1 means that cutting crops costs nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from clock import now, quartiles_of_shares  # beside this file
from torch import Tensor

from bench.api import Dataset, DatasetInfo, Task, TeacherSpec, catalogue
from bench.kit import data
from bench.kit.data.dataset import Resident
from bench.kit.data.sampling import sample_classes
from bench.kit.teachers import trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from methods.rded import RDED

WARM_UP = 2  # rounds


def digits() -> Dataset:
    """The embedded data set."""
    return data.load(catalogue.dataset("digits"))


def noise() -> Dataset:
    """Two classes of random images of 128 px."""
    size, each = 128, 20
    pixels = torch.randint(0, 256, (2 * each, 3, size, size), dtype=torch.uint8)
    split = Resident(pixels, torch.arange(2).repeat_interleave(each))
    info = DatasetInfo(
        name="noise", title="Noise", classes=2, image_size=size, smallest_class=each, train_images=2 * each,
        test_images=2 * each, mean=(0.5,) * 3, std=(0.25,) * 3, student="resnet18", clip="icon-clip",
        teacher=TeacherSpec(arch="resnet18", image_size=size),
    )  # fmt: skip
    return Dataset(info, ("one", "other"), ("one", "other"), split, split)


CASES: dict[str, Callable[[], Dataset]] = {"digits": digits, "mosaic": noise}


def untrained(info: DatasetInfo, folder: Path, device: torch.device) -> Trajectory:
    """The data set's teacher with random weights, which answers as fast."""
    arch, size = info.teacher.arch, info.image_size
    network = Network(arch=arch, classes=info.classes, image_size=size, mean=info.mean, std=info.std)
    trajectory.save(folder, network, "untrained", {1: network.build().net.state_dict()}, {1: 0.0}, 0.0)
    return Trajectory.load(folder, device)


@torch.inference_mode()
def bare_forward(teacher: Trajectory, batches: list[Tensor]) -> None:
    """The teacher on crops that are there."""
    model = teacher.model()
    for crops in batches:
        model(crops)


def measure(dataset: Dataset, device: torch.device, rounds: int) -> tuple[list[float], list[float], int]:
    """Seconds a class of the bare teacher and of RDED in each round, and images a class."""
    method, info = RDED(), dataset.info
    pool = sample_classes(dataset.train.labels, info.classes, method.config.pool, 0, most=True)
    members = pool[dataset.train.labels[pool] == 0]
    crops, size = method.config.crops, info.image_size
    at_once = method.config.batch_size // crops
    resident = [
        torch.rand(crops * len(chunk), 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        for chunk in members.split(at_once)
    ]
    bare, real = [], []
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            dataset=info, ipc=1, seed=0, data=dataset, teachers=(untrained(info, Path(folder), device),), device=device,
            work=Path(folder), progress=lambda *_, **__: None,
        )  # fmt: skip
        for _ in range(WARM_UP + rounds):
            started = now(device)
            bare_forward(task.teacher, resident)
            between = now(device)
            method._best_crops(task, members, 0)
            bare.append(between - started)
            real.append(now(device) - between)
    return bare[WARM_UP:], real[WARM_UP:], len(members)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ratios = {}
    for case, make in CASES.items():
        bare, real, images = measure(make(), torch.device(options.device), options.rounds)
        low, middle, high = quartiles_of_shares(bare, real)
        ratios[f"rded_synthesis_{case}"] = middle
        print(
            f"{case}: {images} images a class; bare {images / statistics.median(bare):.0f} images/s, RDED "
            f"{images / statistics.median(real):.0f}; share of {len(bare)} rounds {low:.3f} to {high:.3f}"
        )
    for name, ratio in ratios.items():
        print(f"ratio {name} {ratio:.3f}")


if __name__ == "__main__":
    main()
