"""Groups to optimise at once: as many as keep the device busy and fit into its memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_CPU_BYTES = 64 * 2**20  # of activations: more rows than these make a processor's matrix products no faster
_GPU_BYTES = 16 * 2**30
_WHILE_IT_RUNS = 3  # times the saved activations: gradients, the copies of a resize, the allocator's slack


def groups_that_fit(net: nn.Module, batch: int, size: int, device: torch.device) -> int:
    """Return the number of groups of ``batch`` images of ``size`` pixels a side whose activations fit, at least 1.

    It affects the speed alone, not the result.
    """
    budget = _CPU_BYTES
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        budget = min(_GPU_BYTES, free // _WHILE_IT_RUNS)
    return max(1, budget // (batch * saved_bytes(net, size, device)))


def saved_bytes(net: nn.Module, size: int, device: torch.device) -> int:
    """Measure the bytes that a forward of one image (1, 3, size, size) keeps for the backward to its pixels."""
    weights = {parameter.data_ptr() for parameter in net.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net(torch.zeros(1, 3, size, size, device=device, requires_grad=True))
    return sum(tensor.nbytes for tensor in kept.values())


def rounds(sizes: Sequence[int], at_once: int) -> list[list[int]]:
    """Return the numbers of up to ``at_once`` groups of equal size each, in their order, the largest first."""
    made = []
    for size in sorted(set(sizes), reverse=True):
        equal = [number for number, other in enumerate(sizes) if other == size]
        made += [equal[first : first + at_once] for first in range(0, len(equal), at_once)]
    return made
