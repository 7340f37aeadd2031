"""Promptable segmentation: train a student from random initialisation on prompts and masks, test it on all test scenes.

The headline ``top1`` is the mean IoU of the last epoch, a fraction: over the test samples, the intersection over the
union of the mask that the student answers to the prompt and the exact one, at full resolution.

Soft labels are mask logits at a quarter of the resolution and the student learns their probabilities; hard labels are
the exact masks, brought to that resolution. Both are cut, flipped and resized with the image (see
:mod:`bench.kit.views.planes`). Views that lost the click to a crop stay: the student has no click to see there, and
learns what the label says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from bench.api import DatasetInfo, EvaluationTask, LabelSource, MethodInfo, Protocol, architectures
from bench.api.seeds import seed_for
from bench.api.stored.codec import LabelCodec
from bench.errors import UserError
from evaluators.classification import Classification, StudentProtocol, train_student

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.api.augmentation import AugmentationSchedule
    from bench.kit.views import AugmentedBatch
    from evaluators.classification import LossOf


class SegmentationProtocol(StudentProtocol):
    """Everything that decides a student's mean IoU but its images and labels."""

    min_scale: float = 0.7  # smaller crops would often lose the click
    shuffle: Literal[1] = 1  # a click and its thing must stay together
    mix: Literal["none"] = "none"
    dice_weight: float = Field(1.0, ge=0)  # of the Dice loss beside the cross entropy


class Segmentation(Classification):
    """Mean IoU of students; their schedules are those of students that classify."""

    name: ClassVar[str] = "segmentation"
    version: ClassVar[int] = 1
    Config: ClassVar[type[Protocol]] = SegmentationProtocol
    metric: ClassVar[str] = "mean IoU"
    # an answer for the whole image is no answer for a part of it, unless it is cut alike: as exact masks are
    supported_labels: ClassVar[tuple[str, ...]] = ("online", "stored", "hard")

    def check(
        self,
        protocol: Protocol,
        dataset: DatasetInfo,
        method: MethodInfo,
        students: Sequence[str],
        codecs: Sequence[LabelCodec],
    ) -> None:
        if not dataset.masks:
            raise UserError(
                f"{protocol.name} needs prompts and masks, which {dataset.name} has not; expected icon-scenes"
            )
        if not (method.masks or method.baseline):  # random real images bring theirs
            raise UserError(
                f"{method.name} makes images without prompts, which {protocol.name} needs; choose promptable, "
                "promptable_lora or random_real, or a --protocol of classes"
            )
        for student in students:
            if re.fullmatch(architectures.PROMPTABLE, student) is None:
                raise UserError(
                    f"student {student!r} answers with classes, not with a mask; expected promptable-wN, e.g. "
                    "promptable-w16"
                )
        for codec in codecs:
            check_codec(codec, protocol)

    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        import torch

        from bench.api import Split
        from bench.kit.data.dataset import Resident
        from bench.kit.segmentation.masks import TestMasks
        from bench.kit.segmentation.networks import build

        protocol, info = task.protocol, task.dataset
        assert isinstance(protocol, SegmentationProtocol)
        if not info.masks:
            raise UserError(f"{protocol.name} needs prompts and masks, which {info.name} has not; expected icon-scenes")
        if task.images is None:
            train: Split = task.data.train
            schedule = self.full_data_schedule(protocol, info, len(train), task.seed)
        else:
            if task.images.points is None or (task.labels is None and task.images.masks is None):
                raise UserError(f"these images came without {'prompts' if task.images.points is None else 'masks'}, "
                                f"which {protocol.name} needs; use random_real's or promptable's")  # fmt: skip
            train = Resident(task.images.pixels, task.images.labels, task.images.points, task.images.masks)
            schedule = self.schedule(protocol, info, len(train), task.seed)
            if task.labels is not None:
                task.labels.check(task.images, task.data.order_hash)
                check_masks(task.labels, schedule, protocol, info.logits)
        torch.manual_seed(seed_for("student-init", task.seed))
        student: nn.Module = build(task.student, info.image_size, info.mean, info.std)
        student = student.to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        tests = TestMasks(task.data.test, info.image_size, task.device)
        curve = train_student(student, train, schedule, tests, protocol, task, mask_loss_of(task.labels, protocol))
        return {
            "top1": curve[-1][1],
            "oracle_top1": max(found for _, found in curve),
            "curve": curve,
            "test_images": tests.count,
            "epochs": schedule.epochs,
            "images": len(train),
            "full_label_bytes": None if task.images is None else 2 * info.logits * schedule.epochs * len(train),
            "parameters": sum(p.numel() for p in student.parameters()),
        }


def mask_loss_of(labels: LabelSource | None, protocol: SegmentationProtocol) -> LossOf:
    """The loss of a student on a batch: against the probabilities of soft masks, else the exact masks."""
    from bench.kit.segmentation.masks import click_plane, exact_shares, mask_loss

    def loss_of(student: nn.Module, views: AugmentedBatch, step: int) -> Tensor:
        logits = student(views.pixels, click_plane(views))
        wanted = exact_shares(views) if labels is None else labels.soft_labels(views, step).sigmoid().view_as(logits)
        return mask_loss(logits, wanted, protocol.dice_weight)

    return loss_of


def check_codec(codec: LabelCodec, protocol: Protocol) -> None:
    """Refuse stored labels of which only some logits are kept.

    Raises:
        UserError: they are.
    """
    if codec.keep:
        raise UserError(
            f"{protocol.name} learns every pixel of a mask, so there are no likeliest classes to keep; "
            "use fp32, fp16, int8 or pruneN"
        )


def check_masks(labels: LabelSource, schedule: AugmentationSchedule, protocol: Protocol, logits: int) -> None:
    """Refuse labels that are no masks, or masks of other views.

    Raises:
        UserError: labels of classes, of the largest logits alone, or stored for another schedule.
    """
    from bench.kit.labels.stored import StoredLabels

    if isinstance(labels, StoredLabels):
        theirs = labels.schedule()
        if theirs != schedule:
            raise UserError(
                f"the stored labels belong to other views than {protocol.name} shows: {schedule.differs(theirs)}"
            )
        check_codec(labels.layout.codec, protocol)
        if labels.layout.classes == logits:
            return
    elif labels.dense:
        return
    raise UserError(
        f"{protocol.name} learns masks, and these labels are of classes; use promptable's own: --labels native"
    )
