"""Promptable segmentation: train a student from random initialisation on prompts and masks, test it on all test scenes.

The headline ``top1`` is the mean IoU of the last epoch, a fraction: over the test samples, the intersection over the
union of the mask that the student answers to the prompt and the exact one, at full resolution.

Soft labels are mask logits at a quarter of the resolution and the student learns their probabilities; hard labels are
the exact masks, brought to that resolution. Both are cut, flipped and resized with the image. Views that lost the click
to a crop stay: the student learns what the label says there, without a click.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from bench.api import EvaluationRequest, EvaluationTask, LabelSource, Protocol
from bench.api.stored.codec import LabelCodec
from bench.errors import UserError
from evaluators.classification import Classification
from evaluators.student_protocol import StudentProtocol
from methods.segmentation.config import MASKS, POINTS, TASK, check_dataset, check_student

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.api import AugmentedBatch
    from evaluators.student_training import StudentLoss


class SegmentationProtocol(StudentProtocol):
    """All that decides a student's mean IoU except its images and labels."""

    min_scale: float = 0.7  # smaller crops would often lose the click
    shuffle: Literal[1] = 1  # a click and its object must stay together
    mix: Literal["none"] = "none"
    dice_weight: float = Field(1.0, ge=0)  # of the Dice loss beside the cross entropy


class Segmentation(Classification):
    """Mean IoU of students; the schedules of their views are those of students that classify."""

    name: ClassVar[str] = "segmentation"
    version: ClassVar[int] = 1
    Config: ClassVar[type[Protocol]] = SegmentationProtocol
    metric: ClassVar[str] = "mean IoU"
    task: ClassVar[str] = TASK
    students: ClassVar[dict[str, str]] = {
        "promptable-wN": "encoder–decoder of width N that answers a click with a mask"
    }
    # a mask of the whole image does not fit a crop of it, unless it is cut alike, as exact masks are
    supported_labels: ClassVar[tuple[str, ...]] = ("online", "stored", "hard")

    def check(self, request: EvaluationRequest) -> None:
        protocol, method = request.protocol, request.method
        check_dataset(protocol.name, request.dataset)
        if method.tasks and TASK not in method.tasks:
            raise UserError(
                f"{method.name} makes images without prompts, which {protocol.name} needs; choose promptable, "
                "promptable_lora or random_real, or a --protocol of classes"
            )
        for student in request.students:
            check_student(student)
        for codec in request.codecs:
            check_codec(codec, protocol)

    def evaluate(self, task: EvaluationTask) -> dict[str, Any]:
        from evaluators.student_training import new_student, result, train_student, training_images
        from methods.segmentation.masks import TestMasks, channels_of
        from methods.segmentation.networks import build

        protocol, info = task.protocol, task.dataset
        assert isinstance(protocol, SegmentationProtocol)
        check_dataset(protocol.name, info)
        channels = None
        if task.images is not None:
            extras = task.images.extras
            if POINTS not in extras or (task.labels is None and MASKS not in extras):
                raise UserError(f"these images came without {'masks' if POINTS in extras else 'prompts'}, "
                                f"which {protocol.name} needs; use random_real's or promptable's")  # fmt: skip
            channels = channels_of(extras, *task.images.pixels.shape[2:])
        train, schedule = training_images(task, protocol, channels)
        if task.labels is not None:
            check_masks(task.labels, protocol, info.logits)
        student = new_student(task, lambda: build(task.student, info.image_size, info.mean, info.std))
        tests = TestMasks(task.data.test, info.image_size, task.device)
        loss = mask_loss_of(protocol.dice_weight)
        curve = train_student(student, train, schedule, tests, protocol, task, loss)
        return {
            **result(student, train, tests, curve, protocol, task),
            "full_label_bytes": None if task.images is None else 2 * info.logits * curve[-1][0] * len(train),
        }


def mask_loss_of(dice_weight: float) -> StudentLoss:
    """Return the loss of a student: against the probabilities of soft masks, else the exact masks."""
    from evaluators.student_training import StudentLoss
    from methods.segmentation.masks import click_maps, exact_shares, mask_loss

    class MaskLoss(StudentLoss):
        def forward(self, student: nn.Module, views: AugmentedBatch) -> Tensor:
            output: Tensor = student(views.pixels, click_maps(views))
            return output

        def __call__(self, output: Tensor, soft: Tensor | None, views: AugmentedBatch, epoch: int) -> Tensor:
            wanted = exact_shares(views) if soft is None else soft.sigmoid().view_as(output)
            return mask_loss(output, wanted, dice_weight)

    return MaskLoss()


def check_codec(codec: LabelCodec, protocol: Protocol) -> None:
    """Raise a UserError for stored labels of which only some logits are kept."""
    if codec.keep:
        raise UserError(
            f"{protocol.name} learns every pixel of a mask, so there are no likeliest classes to keep; "
            "use fp32, fp16, int8 or pruneN"
        )


def check_masks(labels: LabelSource, protocol: Protocol, logits: int) -> None:
    """Raise a UserError for labels that are no masks: of classes, or of the largest logits alone."""
    from bench.kit.labels.stored import StoredLabels
    from methods.segmentation.teacher import MaskLabels

    if isinstance(labels, StoredLabels):
        check_codec(labels.layout.codec, protocol)
        if labels.layout.classes == logits:
            return
    elif isinstance(labels, MaskLabels):
        return
    raise UserError(
        f"{protocol.name} learns masks, and these labels are of classes; use promptable's own: --labels native"
    )
