"""Images of 224 px read from JPEG files: CPU milliseconds an image against torchvision's ImageFolder and DataLoader.

Both read, crop (RandomResizedCrop) and batch in this process, without workers. Files are smooth random images of
400 x 500 px. `packed` reads squares of 256 px (`bench data --pack 256`) instead. `main_process`: with worker processes,
this process's share of the seconds that it takes without, which bounds how many workers it can use; for views,
and for five crops of 112 px (RDED's). `workers_crops`: how many times as fast two of them cut the crops as one, by
the clock, on a machine that does nothing else.

    python perf/reader.py

A ratio is this package's seconds over torchvision's, the median over the rounds.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from clock import Ratios, main, side_by_side  # beside this file
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from bench.api import AugmentationConfig
from bench.kit.data.dataset import Files
from bench.kit.data.packing import write_squares


def jpegs(folder: Path, count: int, height: int = 400, width: int = 500) -> list[Path]:
    """Write smooth random images as ``FOLDER/class/NUMBER.jpg``."""
    drawn = torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(drawn, (height, width), mode="bicubic").clamp_(0, 1)
    (folder / "class").mkdir(parents=True)
    paths = [folder / "class" / f"{index:04d}.jpg" for index in range(count)]
    for path, image in zip(paths, large, strict=True):
        Image.fromarray((255 * image.permute(1, 2, 0)).numpy().astype(np.uint8)).save(path, quality=90)
    return paths


def seconds_of(split: Files, config: AugmentationConfig, turns: int) -> float:
    """Cut five crops of each image, in a thread that has workers of its own; return the least seconds by the clock."""

    def once() -> float:
        started = time.perf_counter()
        split.crops(config, torch.arange(len(split)), 5, torch.device("cpu"))
        return time.perf_counter() - started

    with ThreadPoolExecutor(1) as thread:
        return min([thread.submit(once).result() for _ in range(turns + 1)][1:])


def measure(device: torch.device, tiny: bool) -> Ratios:
    """Yield ours over torchvision's."""
    size, count = (16, 2) if tiny else (224, 64)
    with tempfile.TemporaryDirectory() as folder:
        paths, labels = jpegs(Path(folder), count), torch.zeros(count, dtype=torch.int64)
        crop = transforms.Compose([transforms.RandomResizedCrop(size), transforms.ToTensor()])
        theirs = DataLoader(ImageFolder(folder, crop), batch_size=32, shuffle=True)
        plain = Files(paths, labels, workers=0)
        packed = Files(write_squares(Path(folder) / "squares.u8", plain, size * 8 // 7), labels, workers=0)
        config = AugmentationConfig(size=size, crop="rrc", min_scale=0.08)
        for name, ours in (("imagefolder", plain), ("imagefolder_packed", packed)):
            variants = {
                "ours": lambda ours=ours: [views.pixels for views in ours.views(config, 0, 32, torch.device("cpu"))],
                f"reader_{name}": lambda: [images for images, _ in theirs],
            }
            yield from side_by_side(variants, torch.device("cpu"), 1 if tiny else 5).items()
        worked = Files(paths, labels, workers=1)
        squares = AugmentationConfig(size=size // 2, crop="rrc", ratio=(1, 1))
        for name, read in (
            ("views", lambda split: list(split.views(config, 0, 32, torch.device("cpu")))),
            ("crops", lambda split: split.crops(squares, torch.arange(count), 5, "cpu")),
        ):
            variants = {"with": lambda read=read: read(worked), f"main_process_{name}": lambda read=read: read(plain)}
            yield from side_by_side(variants, torch.device("cpu"), 1 if tiny else 5).items()
        many, turns = (1, 1) if tiny else (8, 3)
        splits = [Files(paths * many, labels.repeat(many), workers=count) for count in (1, 2)]
        one, two = (seconds_of(split, squares, turns) for split in splits)
        yield "workers_crops", one / two


if __name__ == "__main__":
    main(__doc__, measure)
