"""Image files as pixels: decoding one or many, and checking that all are whole.

A long check leaves a stamp below ``~/.cache/distill-bench/checked``: an empty file named by a digest of the files.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

WORTH_A_STAMP = 5.0  # seconds; faster checks are repeated each time


def processors() -> int:
    """Count the processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open the image at ``path``.

    Raises:
        UserError: it cannot be opened, or not be decoded within the block; the file is named.
    """
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(path), "").strip(" ':") or type(error).__name__
        raise UserError(
            f"{path}: not a readable image ({reason}); put a whole copy in its place or remove it"
        ) from error


def decode(path: Path) -> Tensor:
    """Decode the image at ``path`` as RGB, uint8 (3, H, W); a UserError names one that is missing or broken."""
    import torch  # here: plans open images, too

    with opened(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decode_all(paths: Sequence[Path], size: int) -> Tensor:
    """Decode images that are all ``size`` pixels square: uint8 (N, 3, S, S); a UserError names the first broken one."""
    import torch

    pixels = torch.empty((len(paths), 3, size, size), dtype=torch.uint8)

    def fill(place: int) -> None:
        pixels[place] = decode(paths[place])

    with ThreadPoolExecutor(processors()) as pool:
        list(pool.map(fill, range(len(paths))))
    return pixels


def check_all(paths: Sequence[Path], stamps: Path | None = None) -> None:
    """Decode every file once, so that a broken one is found before anything is computed.

    JPEGs are decoded at an eighth of their size, which reads every byte for a third of the time. A check that
    took long is remembered by the files' places, sizes and times of change, in ``stamps`` or its default.

    Raises:
        UserError: a file cannot be decoded; the first such is named.
    """
    if stamps is None:
        with suppress(RuntimeError):  # without a home folder, the check is not remembered
            stamps = Path.home() / ".cache" / "distill-bench" / "checked"
    stamp = stamps / _state(paths) if stamps is not None else None
    if stamp is not None and stamp.exists():
        return
    started = time.monotonic()
    with ThreadPoolExecutor(processors()) as pool:
        list(pool.map(_check, paths))
    if stamp is not None and time.monotonic() - started > WORTH_A_STAMP:
        with suppress(OSError):  # a stamp only saves time
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.touch()


def _check(path: Path) -> None:
    with opened(path) as image:
        image.draft("RGB", (1, 1))
        image.load()


def _state(paths: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(f"{path.absolute()}\0".encode())
        with suppress(OSError):  # a missing file is named by its check
            facts = path.stat()
            digest.update(f"{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
