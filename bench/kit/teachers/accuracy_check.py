"""The check before any distillation that a teacher is the one of its record, on this data.

A class order that differs from the teacher's is the most common silent error of the field (chance accuracy, or about
half of the teacher's), so nothing is made with a teacher that does not pass.
"""

from __future__ import annotations

import torch

from bench.api import Dataset
from bench.errors import UserError
from bench.kit.accuracy import TestImages
from bench.kit.teachers.trajectory import CHECK_IMAGES, Trajectory

TOLERANCE = 0.01  # of accuracy; other kernels on other devices flip a few images, not one in a hundred


def check(teacher: Trajectory, dataset: Dataset, device: torch.device) -> None:
    """Compare a teacher's accuracy on held-out images with its record.

    Raises:
        UserError: another class order, or another accuracy than the record's.
    """
    if teacher.order_hash != dataset.order_hash:
        raise UserError(
            f"the teacher {teacher.folder.name} was trained with another class order than {dataset.info.name} has "
            f"now ({teacher.order_hash[:12]} against {dataset.order_hash[:12]}): class order? Restore the order, or "
            "train a new teacher with --force teacher"
        )
    images = TestImages(dataset.test, teacher.network.image_size, device, CHECK_IMAGES)
    top1 = images.top1(teacher.model())
    if abs(top1 - teacher.accuracy_check) > TOLERANCE:
        raise UserError(
            f"the teacher {teacher.folder.name} reaches {top1:.1%} on {images.count} held-out images of "
            f"{dataset.info.name}, but its record says {teacher.accuracy_check:.1%}: class order? Check the data, or "
            "train a new teacher with --force teacher"
        )
