"""The tensors of a ResNet classifier without building it, and the bytes of its weights file in each precision.

Shapes are those of torchvision's ``ResNet`` and of our small ones (3 x 3 stem), names those of their state dicts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from bench.errors import unknown
from bench.storage_calculator.tensor_files import Tensor, file_bytes

# depth -> blocks of each stage, and how much wider than its 3 x 3 convolution a block ends (torchvision)
_BLOCKS = {
    "10": ((1, 1, 1, 1), 1),
    "18": ((2, 2, 2, 2), 1),
    "34": ((3, 4, 6, 3), 1),
    "50": ((3, 4, 6, 3), 4),
    "101": ((3, 4, 23, 3), 4),
}
EXAMPLES = (
    "resnet18", "resnet50", "resnet101", "torchvision:resnet34", "resnet10-small", "resnet18-small", "resnet34-small",
    "resnet50-small", "resnet18-small-w16",
)  # fmt: skip
_NAME = re.compile(
    r"(?P<large>resnet(18|50|101)|torchvision:resnet(18|34|50|101))"
    r"|resnet(?P<small>10|18|34|50)-small(-w(?P<width>[1-9]\d{0,3}))?"
)


def counted(arch: str) -> bool:
    """Is this an architecture whose tensors are known here?"""
    return _NAME.fullmatch(arch) is not None


def state(arch: str, classes: int) -> tuple[Tensor, ...]:
    """The tensors of a classifier's state dict, in fp32: parameters, running statistics and their int64 counters.

    Raises:
        UserError: no ResNet, with the nearest that is one.
    """
    match = _NAME.fullmatch(arch)
    if match is None:
        raise unknown("teacher whose size is known", arch, EXAMPLES)
    blocks, wider = _BLOCKS[match["small"] or match["large"].partition("resnet")[2]]
    return tuple(_tensors(blocks, wider, int(match["width"] or 64), 3 if match["small"] else 7, classes))


def _tensors(blocks: tuple[int, ...], wider: int, width: int, stem: int, classes: int) -> Iterator[Tensor]:
    yield from _convolution("conv1", "bn1", width, 3, stem)
    inner = width
    for stage, count in enumerate(blocks):
        planes = width << stage
        for block in range(count):
            place = f"layer{stage + 1}.{block}"
            # a bottleneck is 1 x 1, 3 x 3, 1 x 1; a basic block 3 x 3, 3 x 3
            steps = ((planes, 1), (planes, 3), (planes * wider, 1)) if wider > 1 else ((planes, 3), (planes, 3))
            source = inner
            for number, (out, kernel) in enumerate(steps, start=1):
                yield from _convolution(f"{place}.conv{number}", f"{place}.bn{number}", out, source, kernel)
                source = out
            if block == 0 and (stage > 0 or inner != planes * wider):
                yield from _convolution(f"{place}.downsample.0", f"{place}.downsample.1", planes * wider, inner, 1)
            inner = planes * wider
    yield Tensor("fc.weight", "F32", (classes, inner))
    yield Tensor("fc.bias", "F32", (classes,))


def _convolution(conv: str, norm: str, out: int, source: int, kernel: int) -> Iterator[Tensor]:
    """A convolution without bias and its batch norm."""
    yield Tensor(f"{conv}.weight", "F32", (out, source, kernel, kernel))
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield Tensor(f"{norm}.{name}", "F32", (out,))
    yield Tensor(f"{norm}.num_batches_tracked", "I64", ())


def parameters(arch: str, classes: int) -> int:
    """What training learns: all but running statistics and their counters."""
    return sum(math.prod(one.shape) for one in state(arch, classes) if not _is_buffer(one))


def buffers(arch: str, classes: int) -> int:
    """Running statistics and their counters."""
    return sum(math.prod(one.shape) for one in state(arch, classes) if _is_buffer(one))


def _is_buffer(one: Tensor) -> bool:
    return one.name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def weights_bytes(arch: str, classes: int, precision: str) -> int:
    """The weights file of an online teacher, header included (``bench.kit.labels.online`` writes it)."""
    return file_bytes(stored for one in state(arch, classes) for stored in _as_stored(one, precision))


def _as_stored(one: Tensor, precision: str) -> Iterator[Tensor]:
    if one.dtype != "F32" or precision == "fp32":
        yield one
    elif precision == "int8" and len(one.shape) >= 2:  # a scale for each place on the first axis
        yield one._replace(dtype="I8")
        yield Tensor(f"{one.name}.scale", "F32", one.shape[:1])
    else:
        yield one._replace(dtype="F16")
