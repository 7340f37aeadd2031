"""Reading image files in worker processes, batches ahead of their use.

A worker decodes the images of a batch, cuts a square out of each and hands the batch over as uint8; the rest is left to
the device. On Linux workers are forked, even where this process itself was spawned: a fresh interpreter would import
torch anew in every epoch.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bench.errors import UserError
from bench.kit.data.decoding import decode, processors
from bench.kit.views import AugmentationConfig, stream_of
from bench.kit.views.geometry import centre

WORKERS_VARIABLE = "DISTILL_BENCH_WORKERS"
MOST_WORKERS = 16  # more than that wait for the disk or for the device
_LINUX = sys.platform.startswith("linux")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_START = "fork" if _LINUX else None  # of workers; None: as the system does

# decoded images (3, H, W) and their indices, int64 (N,) -> a square of each; picklable
Cut = Callable[[Sequence[Tensor], Tensor], list[Tensor]]
AT_ONCE = 16  # images that are decoded before they are cut: their boxes are drawn together


def default_workers() -> int:
    """Return ``$DISTILL_BENCH_WORKERS``, else the number of processors that this process may use, 16 at most.

    Raises:
        UserError: the variable is no number.
    """
    chosen = os.environ.get(WORKERS_VARIABLE)
    if not chosen:
        return min(processors(), MOST_WORKERS)
    if not chosen.isdecimal():
        raise UserError(f"${WORKERS_VARIABLE} is {chosen!r}; expected a number of worker processes, 0 for none")
    return int(chosen)


def cut_view(
    config: AugmentationConfig, count: int, epoch: int, images: Sequence[Tensor], indices: Tensor
) -> list[Tensor]:
    """Cut and resize images to their views in ``epoch``, before flip and mix; ``count`` is the size of the split.

    Raises:
        UserError: the augmentation needs images in memory.
    """
    from torchvision.transforms.v2 import functional as transforms  # here: it takes seconds

    heights, widths = (torch.tensor([image.shape[side] for image in images]) for side in (1, 2))
    boxes = stream_of(config, count).boxes(epoch, indices, heights, widths).tolist()
    square = [config.size, config.size]
    return [
        transforms.resized_crop(image, *box, square, antialias=config.antialias)
        for image, box in zip(images, boxes, strict=True)
    ]


def cut_centre(size: int, whole: bool, images: Sequence[Tensor], indices: Tensor) -> list[Tensor]:
    """Make the test views of images (see :func:`bench.kit.views.geometry.centre`)."""
    return [centre(image, size, whole) for image in images]


def _read(paths: Sequence[Path], cut: Cut, group: Tensor) -> tuple[Tensor, UserError | None]:
    """Return a batch, or nothing and an error: raised in a worker, it would carry a traceback."""
    try:
        return torch.stack([view for some in group.split(AT_ONCE) for view in cut(_decode(paths, some), some)]), None
    except UserError as error:
        return torch.empty(0), error


def _decode(paths: Sequence[Path], indices: Tensor) -> list[Tensor]:
    return [decode(paths[index]) for index in indices.tolist()]


def _start_worker(_: int) -> None:
    if _LINUX:  # a worker that outlives a killed parent would keep what it inherited, leases too
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _without_warning(loader: DataLoader[tuple[Tensor, UserError | None]]) -> Iterator[tuple[Tensor, UserError | None]]:
    """Start a loader's workers with SIGUSR2 blocked.

    Slurm sends this warning of a job's end to every process, and only this one can save its work.
    Children inherit the signals that a thread blocks, forked or spawned; a handler set in the worker would come seconds
    later, after its imports. A warning during the start waits for this thread, or is taken by another.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def read_batches(
    paths: Sequence[Path], groups: Sequence[Tensor], cut: Cut, device: torch.device, workers: int
) -> Iterator[Tensor]:
    """Yield the batches ``groups`` in order, each uint8 (B, 3, S, S) on ``device``.

    A group is the indices into ``paths`` of a batch, int64 (B,) on the host; no workers: this process reads.

    Raises:
        UserError: a file cannot be decoded, or ``cut`` needs images in memory.
    """
    loader: DataLoader[tuple[Tensor, UserError | None]] = DataLoader(
        groups,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=partial(_read, paths, cut),  # in the workers
        num_workers=workers,
        multiprocessing_context=_START if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else starting workers would draw from the global stream
    )
    for images, wrong in _without_warning(loader):
        if wrong is not None:
            raise wrong
        yield images.to(device, non_blocking=True)
