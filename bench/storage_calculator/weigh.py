"""The answer of the calculator: the bytes of images and labels, a line a method, choice of labels and IPC."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from bench.api import TEACHER_LABELS
from bench.api.augmentation import AugmentationSchedule
from bench.api.label_bytes import fkd_bytes, logit_bytes, stored_bytes
from bench.api.label_codec import LabelCodec
from bench.errors import UserError
from bench.planning.label_choices import LabelChoice, parse
from bench.storage_calculator import networks
from bench.storage_calculator.asked import LABELS, Asked, Asking
from bench.storage_calculator.tensor_files import static_bytes

# LPLD's README gives ImageNet-1K's images at IPC 10, 50 and 200 as .15, .75 and 2.98 GB: JPEGs of 224 px, quality 75
JPEG_BYTES, JPEG_SIZE = 15_000, 224

# who writes labels in the format of FKD, and with the number of each image beside them?
FORMATS = {"sre2l": False, "g_vbsm": True}


@dataclass(frozen=True)
class Line:
    """One method, one way to label, one IPC. Of ``label_bytes`` and ``public_parameters`` nothing is known where they
    are None; ``full_label_bytes`` are the fp16 logits of every view."""

    method: str
    labels: str
    choice: LabelChoice
    ipc: int
    images: int
    image_bytes: int
    label_bytes: int | None
    numbers: int | None  # that a model has: parameters, of teachers buffers as well
    public_parameters: int
    full_label_bytes: int
    protocol: str
    epochs: int
    batch_size: int

    @property
    def ratio(self) -> float | None:
        """Label bytes to those of the fp16 logits of every view."""
        return None if self.label_bytes is None else self.label_bytes / self.full_label_bytes


@dataclass(frozen=True)
class Format:
    """The labels that a method's own code writes: FKD's files."""

    method: str
    ipc: int
    index: bool
    epochs: int
    batch_size: int
    logit_bytes: int
    file_bytes: int  # to a thousandth: the container of a file depends on torch's version
    files: int


Weight = tuple[int | None, int | None, int]  # bytes, numbers of the model that answers, parameters of its public base


def image_bytes(images: int, size: int) -> int:
    """An estimate: as heavy as ImageNet's a pixel."""
    return round(images * JPEG_BYTES * size**2 / JPEG_SIZE**2)


def weigh(asked: Asked) -> list[Line]:
    """Every line, in the order of methods, labels and IPC.

    Raises:
        UserError: a name nothing answers to, or labels that can't be.
    """
    found = {}
    for asking in Asking.each(asked):
        for text in asked.labels:
            choice = parse(text, asking.method.info)
            if choice.kind == "online" and asking.method.label_recipe(asking.setting(1)) == TEACHER_LABELS:
                choice = LabelChoice("teacher", "fp32")  # it is the teacher that answers
            for ipc in asked.ipc:
                protocol, schedule = asking.schedule(ipc)
                try:
                    labels = _labels(asking, choice, ipc, schedule)
                except UserError:
                    if asked.labels != LABELS:
                        raise
                    continue  # who asked for nothing in particular gets what there is
                found[asking.name, choice, ipc] = _line(asking, choice, ipc, protocol, schedule, labels)
    return list(found.values())


def _line(
    asking: Asking, choice: LabelChoice, ipc: int, protocol: str, schedule: AugmentationSchedule, labels: Weight
) -> Line:
    info, classes = asking.dataset, asking.dataset.classes
    weight, numbers, public = labels
    return Line(
        method=asking.name, labels=choice.title(asking.method.info.labels), choice=choice, ipc=ipc,
        images=schedule.images, image_bytes=image_bytes(schedule.images, info.image_size), label_bytes=weight,
        numbers=numbers, public_parameters=public,
        full_label_bytes=logit_bytes(schedule.images, classes, schedule.epochs),
        protocol=protocol, epochs=schedule.epochs, batch_size=schedule.batch_size,
    )  # fmt: skip


def _labels(asking: Asking, choice: LabelChoice, ipc: int, schedule: AugmentationSchedule) -> Weight:
    classes, setting = asking.dataset.classes, asking.setting(ipc)
    if choice.kind == "hard":
        return 0, None, 0
    if choice.kind == "teacher":
        arch = asking.teacher(ipc)
        if not networks.counted(arch):
            return None, None, 0
        numbers = networks.parameters(arch, classes) + networks.buffers(arch, classes)
        return networks.weights_bytes(arch, classes, choice.detail), numbers, 0
    if choice.kind == "online":
        size = asking.method.label_size(setting)
        return (None, None, 0) if size is None else (size.numbers * size.width, size.numbers, size.public)
    if asking.method.label_recipe(setting) is None:
        raise UserError(
            f"{asking.method.info.name} has no label model of its own, so no {choice.kind} labels; "
            "choose --labels hard or teacher:fp32"
        )
    choice.codec.check(classes, schedule.epochs, asking.dataset.title)
    if choice.kind == "static":
        return static_bytes(schedule.images, classes, choice.codec), None, 0
    return _stored(schedule, classes, choice.codec), None, 0


@cache  # methods with the same batches store the same
def _stored(schedule: AugmentationSchedule, classes: int, codec: LabelCodec) -> int:
    return stored_bytes(schedule, classes, codec)


def formats(asked: Asked) -> list[Format]:
    """What the methods that store labels write with their own code."""
    found = []
    for asking in Asking.each(asked):
        base = asking.method.info.name
        if base not in FORMATS or "[" in asking.name:
            continue
        for ipc in asked.ipc:
            _, seen = asking.schedule(ipc)
            classes, index = asking.dataset.classes, FORMATS[base]
            weight = fkd_bytes(seen.images, classes, seen.epochs, seen.batch_size, index=index)
            pure = logit_bytes(seen.images, classes, seen.epochs)
            files = seen.epochs * math.ceil(seen.images / seen.batch_size)
            found.append(Format(base, ipc, index, seen.epochs, seen.batch_size, pure, weight, files))
    return found
