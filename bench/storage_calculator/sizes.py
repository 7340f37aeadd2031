"""Bytes of images and labels for each method, label choice and IPC of a request."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from bench.api.augmentation import AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.api.stored.columns import file_bytes, label_columns
from bench.api.stored.layout import LabelLayout
from bench.api.stored.precision import Precision
from bench.api.stored.size import fkd_bytes, logit_bytes, static_bytes
from bench.errors import UserError
from bench.planning.cells import labels_itself
from bench.planning.label_choices import LabelChoice, parse
from bench.storage_calculator.request import LABELS, RequestedMethod, StorageRequest

# LPLD's README gives ImageNet-1K's images at IPC 10, 50 and 200 as .15, .75 and 2.98 GB: JPEGs of 224 px, quality 75
JPEG_BYTES, JPEG_SIZE = 15_000, 224


@dataclass(frozen=True)
class Size:
    """The storage of one method with one label choice at one IPC; None: not known."""

    method: str
    labels: str
    ipc: int
    images: int
    epochs: int
    batch_size: int
    protocol: str
    image_bytes: int
    label_bytes: int | None = None
    view_bytes: int | None = None  # of stored labels per view or image, and what is stored once
    once_bytes: int | None = None
    payload_bytes: int | None = None  # of stored labels without the headers of files
    full_label_bytes: int = 0  # fp16 logits of every view
    label_ratio: float | None = None
    model_numbers: int | None = None  # parameters of the label model, with a teacher's buffers
    public_parameters: int = 0  # of its frozen backbone, counted apart


@dataclass(frozen=True)
class AuthorFiles:
    """The label files that the authors' own code writes: FKD's format, to a thousandth."""

    method: str
    ipc: int
    index: bool  # with the number of each image
    epochs: int
    batch_size: int
    logit_bytes: int
    file_bytes: int
    files: int


class NetworkSize(NamedTuple):
    """Parameters, buffers of the state dict, and the bytes of the weights file in each precision."""

    parameters: int
    buffers: int
    file_bytes: dict[str, int]


@cache
def network_size(arch: str, classes: int, image_size: int) -> NetworkSize:
    """Return the size of a classifier, with files as :mod:`bench.kit.labels.online` writes them.

    Raises:
        UserError: no such architecture, or it can't take images of this size.
    """
    import torch

    from bench.kit.labels.online import rounded
    from bench.kit.models import build

    with torch.device("meta"):
        net = build(arch, classes, image_size, (0.5,) * 3, (0.5,) * 3).net
    state = net.state_dict()
    names = {torch.float32: "F32", torch.float16: "F16", torch.int8: "I8", torch.uint8: "U8", torch.int64: "I64"}
    names[torch.bool] = "BOOL"
    stored = {"fp32": state, **{name: rounded(state, name) for name in ("fp16", "int8", "int4")}}
    parameters = sum(one.numel() for one in net.parameters())
    return NetworkSize(
        parameters,
        sum(one.numel() for one in state.values()) - parameters,
        {precision: file_bytes((name, names[one.dtype], one.shape) for name, one in tensors.items())
         for precision, tensors in stored.items()},
    )  # fmt: skip


def image_bytes(images: int, size: int) -> int:
    """Estimate the bytes of encoded images: as many per pixel as ImageNet's."""
    return round(images * JPEG_BYTES * size**2 / JPEG_SIZE**2)


def sizes(request: StorageRequest) -> list[Size]:
    """Return the sizes of a request, in the order of its methods, labels and IPC.

    Raises:
        UserError: an unknown name, or labels that are not possible.
    """
    found = {}
    for method in RequestedMethod.all(request):
        for text in request.labels:
            choice = parse(text, method.method.info)
            if choice.kind == "online" and not labels_itself(method.method):
                choice = LabelChoice("teacher", "fp32")
            for ipc in request.ipc:
                try:
                    found[method.name, choice, ipc] = _size(method, choice, ipc)
                except UserError:
                    if request.labels != LABELS:
                        raise  # of the default labels, those that fit are shown
    return list(found.values())


def _size(method: RequestedMethod, choice: LabelChoice, ipc: int) -> Size:
    protocol, schedule = method.schedule(ipc)
    full = logit_bytes(schedule.images, method.dataset.classes, schedule.epochs)
    found = Size(
        method.name, choice.title(method.method.info.labels), ipc, schedule.images, schedule.epochs,
        schedule.batch_size, protocol, image_bytes(schedule.images, method.dataset.image_size),
        full_label_bytes=full, **_labels(method, choice, ipc, schedule),
    )  # fmt: skip
    return found if found.label_bytes is None else replace(found, label_ratio=found.label_bytes / full)


def _labels(method: RequestedMethod, choice: LabelChoice, ipc: int, schedule: AugmentationSchedule) -> dict[str, Any]:
    """Return what labels weigh, as fields of :class:`Size`."""
    classes, info = method.dataset.classes, method.method.info
    if choice.kind == "hard":
        return {"label_bytes": 0}
    if choice.kind == "teacher":
        spec = method.teacher(ipc)
        size = network_size(spec.arch, classes, spec.image_size)
        return {"label_bytes": size.file_bytes[choice.detail], "model_numbers": size.parameters + size.buffers}
    if choice.kind == "online":
        own = method.method.label_size(method.point(ipc))
        if own is None:
            return {}
        total = Precision.parse(choice.detail).payload(own.shapes) if choice.detail else own.numbers * own.width
        known = total if own.shapes or not choice.detail else None
        return {"label_bytes": known, "model_numbers": own.numbers, "public_parameters": own.public}
    if info.labels == "hard":
        raise UserError(
            f"{info.name} has no label model of its own, so no {choice.kind} labels; choose --labels hard or "
            "teacher:fp32"
        )
    choice.codec.check(classes, schedule.epochs, method.dataset.title)
    if choice.kind == "static":
        view = sum(column.row_bytes for column in label_columns(choice.codec, classes))
        total = static_bytes(schedule.images, classes, choice.codec)
        return {"label_bytes": total, "view_bytes": view, "once_bytes": 0, "payload_bytes": schedule.images * view}
    return _stored(schedule, classes, choice.codec)


@cache  # methods with the same batches store the same
def _stored(schedule: AugmentationSchedule, classes: int, codec: LabelCodec) -> dict[str, Any]:
    layout = LabelLayout(schedule, codec, classes)
    return {"label_bytes": layout.total, "view_bytes": layout.view_bytes, "once_bytes": layout.once_bytes,
            "payload_bytes": layout.payload}  # fmt: skip


def author_files(request: StorageRequest) -> list[AuthorFiles]:
    """Return the label files of the authors' own code, of methods that store labels."""
    found = []
    for method in RequestedMethod.all(request):
        info, classes = method.method.info, method.dataset.classes
        for ipc in request.ipc if info.label_files and "[" not in method.name else ():
            seen, index = method.schedule(ipc)[1], info.label_files == "fkd+index"
            images, epochs, batch = seen.images, seen.epochs, seen.batch_size
            logits = logit_bytes(images, classes, epochs)
            written = fkd_bytes(images, classes, epochs, batch, index=index)
            files = epochs * math.ceil(images / batch)
            found.append(AuthorFiles(info.name, ipc, index, epochs, batch, logits, written, files))
    return found
