"""Reading image files in worker processes, ahead of their use.

A worker decodes some images of a batch and cuts what is wanted out of each, into memory that it shares with this
process (anonymous: ``/dev/shm`` may be small); the rest is left to the device. Workers serve all splits, and live until
the thread ends that first read. They are forked: a fresh interpreter would import torch anew.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import UserError
from bench.kit.data.contents import CheckedPaths
from bench.kit.data.decoding import decode, processors
from bench.kit.data.packing import Squares
from bench.kit.views import AugmentationConfig, stream_of
from bench.kit.views.geometry import centre

WORKERS_VARIABLE = "DISTILL_BENCH_WORKERS"
MOST_WORKERS = 16  # more than that wait for the disk or for the device
AT_ONCE = 16  # images that a worker reads at a time: their boxes are drawn together
SLOT = 16 * 2**20  # bytes of what it makes of them; more than that goes through a pipe
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_FORKS = sys.platform.startswith("linux")  # elsewhere a process that runs threads is not safely forked

# decoded images (3, H, W) and their indices, int64 (N,) -> what is wanted of each, all of one shape; picklable
Cut = Callable[[Sequence[Tensor], Tensor], list[Tensor]]
Sources = Sequence[Path] | Squares
Made = NDArray[Any] | tuple[tuple[int, ...], str] | UserError  # an array; shape and type of one in a slot


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


def cut_crops(
    config: AugmentationConfig, count: int, crops: int, images: Sequence[Tensor], indices: Tensor
) -> list[Tensor]:
    """Cut the views of the first epochs, float32 (crops, 3, S, S) in [0, 1] per image; else as :func:`cut_view`."""
    # floats first, as RDED does: crops are not rounded; rows of pixels instead of triples, which take longer to resize
    floats = [torch.empty(image.shape).copy_(image).div_(255) for image in images]
    views = [cut_view(config, count, epoch, floats, indices) for epoch in range(crops)]
    return list(map(torch.stack, zip(*views, strict=True)))


def cut_centre(size: int, whole: bool, images: Sequence[Tensor], indices: Tensor) -> list[Tensor]:
    """Make the test views of images (see :func:`bench.kit.views.geometry.centre`)."""
    return [centre(image, size, whole) for image in images]


class Readers:
    """Worker processes, and the slots of memory that they write into, two for each."""

    def __init__(self, workers: int):
        import torchvision.io  # here: it takes seconds, which else each worker would take
        import torchvision.transforms.v2  # noqa: F401

        self.owner, self.workers = os.getpid(), workers
        self.memory = mmap.mmap(-1, 2 * workers * SLOT)
        self.free = list(range(2 * workers))
        self.pool = ProcessPoolExecutor(workers, get_context("fork"), _start_worker, (self.memory,))

    def submit(self, files: Sources, indices: Tensor, cut: Cut) -> tuple[int, Future[Made]]:
        """Read images into a free slot.

        The first call starts the workers, with SIGUSR2 blocked, as they inherit it. Slurm sends this warning of a job's
        end to every process, and only this one can save its work; a handler set in the worker would come too late. A
        warning during the start waits for this thread, or is taken by another.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        try:
            future = self.pool.submit(_work, self.free[-1], files, indices.numpy(), cut)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self.free.pop(), future

    def result(self, slot: int, future: Future[Made]) -> Tensor:
        """Return what a worker made, which holds until its slot is used again."""
        made = future.result()
        if isinstance(made, UserError):
            raise made
        if isinstance(made, tuple):
            shape, kind = made
            made = np.frombuffer(self.memory, kind, math.prod(shape), slot * SLOT).reshape(shape)
        return torch.from_numpy(made)


_here = threading.local()  # workers end with the thread that started them, so that none outlives a killed process


def _readers(workers: int) -> Readers:
    found: Readers | None = getattr(_here, "readers", None)
    if found is None or found.owner != os.getpid() or found.workers < workers:
        found = _here.readers = Readers(workers)
    return found


def _start_worker(memory: mmap.mmap) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent's to handle
    torch.set_num_threads(1)
    _here.memory = memory


def _work(slot: int, files: Sources, indices: NDArray[np.int64], cut: Cut) -> Made:
    """Read images in a worker; an error is returned: raised, it would carry a traceback."""
    try:
        values: NDArray[Any] = _read(files, torch.from_numpy(indices), cut).numpy()
    except UserError as error:
        return error
    if values.nbytes > SLOT:
        return values
    np.frombuffer(_here.memory, values.dtype, values.size, slot * SLOT).reshape(values.shape)[...] = values
    return values.shape, values.dtype.str


def some(files: Sources, places: Tensor) -> Sources:
    """Return the files at ``places``, int64 (N,) on the host, not yet read or checked."""
    if isinstance(files, CheckedPaths | Squares):
        return files.some(places.numpy())
    return [files[place] for place in places.tolist()]


def _read(files: Sources, indices: Tensor, cut: Cut) -> Tensor:
    return torch.stack(cut([one if isinstance(one, Tensor) else decode(one) for one in files], indices))


def read_pieces(files: Sources, pieces: Iterable[Tensor], cut: Cut, workers: int) -> Iterator[Tensor]:
    """Yield what is cut out of images, piece by piece, each valid until the next; workers begin at once.

    Args:
        pieces: indices into ``files``, int64 (N,) on the host: few, as a worker reads a piece alone.
        workers: how many processes read; none: this one does.

    Raises:
        UserError: a file cannot be decoded, or ``cut`` needs images in memory.
    """
    made = _pieces(files, iter(pieces), cut, _readers(workers) if workers and _FORKS else None)
    next(made)
    return made


def _pieces(files: Sources, pieces: Iterator[Tensor], cut: Cut, readers: Readers | None) -> Iterator[Tensor]:
    pending: deque[tuple[int, Future[Made]]] = deque()

    def submit() -> None:
        while readers and readers.free and (piece := next(pieces, None)) is not None:
            pending.append(readers.submit(some(files, piece), piece, cut))

    try:
        submit()
        yield torch.empty(0)  # to read_pieces
        while True:
            if readers and pending:
                yield readers.result(*pending[0])
                readers.free.append(pending.popleft()[0])
            elif (piece := next(pieces, None)) is not None:  # no workers, or another reading has all their slots
                yield _read(some(files, piece), piece, cut)
            else:
                return
            submit()
    except BrokenProcessPool:
        vars(_here).pop("readers", None)
        raise UserError(
            f"a process that reads images was ended from outside, perhaps for want of memory; give the job more, or "
            f"set ${WORKERS_VARIABLE} below {readers.workers if readers else 0}"
        ) from None
    finally:
        for slot, future in pending:
            future.cancel()
            future.add_done_callback(lambda _, slot=slot: readers.free.append(slot))  # type: ignore[misc, union-attr]


def read_batches(
    files: Sources, groups: Sequence[Tensor], cut: Cut, device: torch.device, workers: int
) -> Iterator[Tensor]:
    """Yield what is cut out of the images of each group, (B, ...) on ``device``; arguments as of :func:`read_pieces`.

    Raises:
        UserError: a file cannot be decoded, or ``cut`` needs images in memory.
    """
    parts = [group.split(AT_ONCE) for group in groups]
    made = read_pieces(files, chain.from_iterable(parts), cut, workers if sum(map(len, parts)) > 1 else 0)
    for group, pieces in zip(groups, parts, strict=True):
        first = next(made)
        batch = torch.empty((len(group), *first.shape[1:]), dtype=first.dtype, pin_memory=device.type == "cuda")
        batch[: len(first)] = first
        for place in range(1, len(pieces)):
            batch[place * AT_ONCE : (place + 1) * AT_ONCE] = next(made)
        yield batch.to(device, non_blocking=True)
