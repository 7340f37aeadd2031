"""Reads image files ahead of their use, in worker processes, a batch at a time.

A worker decodes the images of a batch, cuts a square out of each and hands the batch over as uint8; what the
device can do is left to it. On Linux workers are forked, also where this process itself was spawned: a fresh
interpreter would import torch anew in every epoch.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from bench.errors import UserError
from bench.kit.data.decoding import centre, decode, processors
from bench.kit.views import AugmentationConfig, AugmentationStream

WORKERS_VARIABLE = "DISTILL_BENCH_WORKERS"
MOST_WORKERS = 16  # more than that wait for the disk or for the device
_LINUX = sys.platform.startswith("linux")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_START = "fork" if _LINUX else None  # of workers; None: as the system does


def default_workers() -> int:
    """``$DISTILL_BENCH_WORKERS``, else one for each processor this process may use, 16 at most.

    Raises:
        UserError: the variable is no number.
    """
    chosen = os.environ.get(WORKERS_VARIABLE)
    if not chosen:
        return min(processors(), MOST_WORKERS)
    if not chosen.isdecimal():
        raise UserError(f"${WORKERS_VARIABLE} is {chosen!r}; expected a number of worker processes, 0 for none")
    return int(chosen)


class Cut(Protocol):
    """What a worker does to a decoded image, uint8 (3, H, W); the results of a batch have one size."""

    def __call__(self, image: Tensor, index: int) -> Tensor: ...


def cut_view(stream: AugmentationStream, image: Tensor, index: int, epoch: int) -> Tensor:
    """What ``stream`` shows in ``epoch`` of image ``index``, before flip and mix: (3, S, S), of the dtype of
    ``image``.

    Raises:
        UserError: the stream's plan needs images in memory.
    """
    from torchvision.transforms.v2 import functional as transforms  # here: it takes seconds

    height, width = image.shape[1:]
    box = stream.boxes(epoch, torch.tensor([index]), torch.tensor([height]), torch.tensor([width]))
    square = [stream.plan.size, stream.plan.size]
    view: Tensor = transforms.resized_crop(image, *box[0].tolist(), square, antialias=stream.plan.antialias)
    return view


class CutView:
    """Cuts out and resizes what a stream of views shows of an image in one epoch."""

    def __init__(self, plan: AugmentationConfig, count: int, epoch: int):
        self.plan, self.count, self.epoch = plan, count, epoch
        self._stream: AugmentationStream | None = None  # made in the worker: its caches cannot be pickled

    def __call__(self, image: Tensor, index: int) -> Tensor:
        if self._stream is None:
            self._stream = AugmentationStream(self.plan, self.count)
        return cut_view(self._stream, image, index, self.epoch)


class CutCentre:
    """The test-time view (see :func:`bench.kit.data.decoding.centre`)."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Tensor, index: int) -> Tensor:
        return centre(image, self.size)


class _Batches(TorchDataset[tuple[Tensor, str]]):
    """Batch number -> its images, or none and what is wrong: an exception would come out of a worker with a
    traceback around its message."""

    def __init__(self, paths: Sequence[Path], groups: Sequence[Tensor], cut: Cut):
        self.paths, self.groups, self.cut = paths, groups, cut

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        try:
            images = [self.cut(decode(self.paths[index]), index) for index in self.groups[number].tolist()]
        except UserError as error:
            return torch.empty(0), str(error)
        return torch.stack(images), ""


def _start_worker(_: int) -> None:
    if _LINUX:  # a worker that outlived a killed parent would hold on to what it inherited, its leases too
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _without_warning(loader: DataLoader[tuple[Tensor, str]]) -> Iterator[tuple[Tensor, str]]:
    """Start a loader's workers deaf to SIGUSR2, a job's warning of its end (Slurm sends it to every process): that is
    for the process that can save its work.

    What a thread blocks its children block from their first instruction on, forked or spawned; a handler set in the
    worker would be there seconds later, after its imports. A warning that comes meanwhile waits for this thread, or
    is taken by another.
    """
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def read_batches(
    paths: Sequence[Path], groups: Sequence[Tensor], cut: Cut, device: torch.device, workers: int
) -> Iterator[Tensor]:
    """The batches ``groups`` in their order, each uint8 (B, 3, S, S) on ``device``.

    Args:
        groups: the indices into ``paths`` of each batch, int64 (B,) on the host.
        workers: processes that read ahead; 0 reads here, when asked.

    Raises:
        UserError: a file cannot be decoded, or the plan of ``cut`` cannot be followed with files.
    """
    loader = DataLoader(
        _Batches(paths, groups, cut),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=_START if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else starting workers would draw from the global stream
    )
    for images, wrong in _without_warning(loader):
        if wrong:
            raise UserError(wrong)
        yield images.to(device, non_blocking=True)
