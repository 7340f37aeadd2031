"""Several processes at one cell, by torch's process group; without a group all of this does nothing.

Every rank runs the same code and calls these functions in the same order; each does its share of the work and ends up
with the same result. Only the first rank writes what is equal on all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_T = TypeVar("_T")

# Not a guard: a rank that ends takes the others with it. It must be longer than one may wait for another's share.
_TIMEOUT = timedelta(days=2)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the group that MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE describe, for the time of the context.

    A group of one is none. Tensors travel by NCCL on a GPU, which must be the current one (NCCL takes that), by gloo on
    the host. After an error the group is left to
    the end of the process, which is what tells the others.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    yield
    dist.destroy_process_group()


def size() -> int:
    """Return the number of processes that share the work."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_main() -> bool:
    """Return whether this is the rank that writes what is equal on all of them."""
    return rank() == 0


def share(count: int) -> slice:
    """Return the part of ``count`` things that falls to this rank.

    Parts are contiguous, in the order of the ranks, and differ by one thing at most, the first rank's being the
    largest; they are empty where there are fewer things than ranks.
    """
    each, more = divmod(count, size())
    start = rank() * each + min(rank(), more)
    return slice(start, start + each + (rank() < more))


def all_reduce(tensor: Tensor) -> Tensor:
    """Add up all ranks' tensors of one shape, in place, and return the sum: the same bits on all of them."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def wait() -> None:
    """Wait until all ranks are here."""
    all_reduce(torch.zeros(()))


def broadcast_object(value: _T) -> _T:
    """Hand what the first rank gave to all: anything plain, or tensors on the host."""
    values = [value]
    if size() > 1:
        dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
    return values[0]


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Make tensors, in place, what they are on the first rank.

    Two kinds of processor may draw or compute the same numbers with other last bits.
    """
    if size() > 1:
        for tensor in tensors:
            plain = tensor.detach().contiguous()
            dist.broadcast(plain, 0)
            tensor.copy_(plain)


def backward(loss: Tensor, parameters: Sequence[Tensor], part: float) -> None:
    """Compute gradients of the mean loss of a batch whose rows are shared out: the same bits on all ranks.

    They travel together, once. The graphs of all ranks must be alike, so that the same parameters have gradients.

    Args:
        loss: the mean over this rank's rows; of no rows, whatever a mean of nothing is.
        part: the share of this rank's rows among all rows of the batch.
    """
    if size() == 1:
        loss.backward()
        return
    (loss * part).backward()  # before, not after: synchronised batch norms add up gradients of all rows on their way
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = all_reduce(torch.cat([gradient.flatten() for gradient in gradients]))
    pieces = total.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))  # with the strides of its parameter
