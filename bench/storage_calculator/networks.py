"""Sizes of classifiers, counted on torch's meta device: no weights are made or loaded."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from bench.api.stored.size import file_bytes


class NetworkSize(NamedTuple):
    """Parameters, buffers of the state dict, and the bytes of the weights file in each precision."""

    parameters: int
    buffers: int
    file_bytes: dict[str, int]


@cache
def network_size(arch: str, classes: int, image_size: int) -> NetworkSize:
    """The size of a classifier, with files as :mod:`bench.kit.labels.online` writes them.

    Raises:
        UserError: no such architecture, or it can't take images of this size.
    """
    import torch

    from bench.kit.labels.online import rounded
    from bench.kit.models import build

    with torch.device("meta"):
        net = build(arch, classes, image_size, (0.5,) * 3, (0.5,) * 3).net
    state = net.state_dict()
    names = {torch.float32: "F32", torch.float16: "F16", torch.int8: "I8", torch.int64: "I64", torch.bool: "BOOL"}
    stored = {"fp32": state, "fp16": rounded(state, "fp16"), "int8": rounded(state, "int8")}
    parameters = sum(one.numel() for one in net.parameters())
    return NetworkSize(
        parameters,
        sum(one.numel() for one in state.values()) - parameters,
        {precision: file_bytes((name, names[one.dtype], one.shape) for name, one in tensors.items())
         for precision, tensors in stored.items()},
    )  # fmt: skip
