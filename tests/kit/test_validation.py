"""What plug-ins made is checked in one place, and the first thing that is wrong is said in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.api import DatasetInfo, Images, TeacherSpec
from bench.kit.validation import Diverged, InvalidResult, check_images, check_logits, check_training

INFO = DatasetInfo(
    name="noise", title="Noise", classes=3, image_size=4, smallest_class=9, train_images=27, test_images=3,
    mean=(0.5,) * 3, std=(0.25,) * 3, teacher=TeacherSpec(), clip="icon-clip", student="convnet2",
)  # fmt: skip
PIXELS = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
LABELS = torch.arange(3).repeat_interleave(2)


def test_what_was_asked_for_is_handed_on() -> None:
    images = Images(PIXELS, LABELS)
    assert check_images(images, INFO, 2, "m") is images


@pytest.mark.parametrize(
    ("pixels", "labels", "says"),
    [
        (PIXELS.repeat(5, 1, 1, 1), LABELS.repeat(5), "m returned 30 images and 30 labels of 3 classes for IPC 2; "
                                                      "expected 6, class by class"),
        (PIXELS[:4], LABELS[:4], "4 images and 4 labels of 2 classes"),
        (PIXELS, LABELS[:4], "6 images and 4 labels"),
        (PIXELS.repeat(1, 1, 2, 2), LABELS, r"pixels of shape \(6, 3, 8, 8\), expected \(6, 3, 4, 4\)"),
        (PIXELS / 255, LABELS, "float32 pixels, expected uint8; bench.kit.images.quantise makes"),
        (torch.full(PIXELS.shape, float("nan")), LABELS, "float32 pixels that are not finite, expected uint8"),
        (PIXELS, LABELS.flip(0), "classes out of order; expected 2 of each class"),
        (PIXELS, torch.tensor([0, 0, 0, 1, 1, 2]), "3 images of class 0; expected 2 of each class"),
        (PIXELS, LABELS.int(), r"int32 labels \(6,\), expected int64 \(N,\)"),
        (PIXELS, nn.functional.one_hot(LABELS), r"int64 labels \(6, 3\), expected int64 \(N,\)"),
        (PIXELS.numpy(), LABELS, "pixels of type ndarray, expected a tensor"),
    ],
)  # fmt: skip
def test_images_that_were_not_asked_for_are_refused(pixels: Any, labels: Tensor, says: str) -> None:
    with pytest.raises(InvalidResult, match=says) as caught:
        check_images(Images(pixels, labels), INFO, 2, "m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        ([1.0], "list, expected a tensor"),
        (torch.zeros(2, 3).double(), r"float64 of shape \(2, 3\), expected float32 \(2, 3\)"),
        (torch.zeros(3, 2), r"expected float32 \(2, 3\)"),
        (torch.zeros(2, 3, requires_grad=True), "carry a gradient"),
        (torch.full((2, 3), float("inf")), "not finite"),
    ],
)
def test_logits_that_no_student_can_learn_from_are_refused(logits: Any, says: str) -> None:
    check_logits(torch.zeros(2, 3), 2, 3, "m")
    with pytest.raises(InvalidResult, match=says):
        check_logits(logits, 2, 3, "m")


def test_training_that_diverged_says_when() -> None:
    weights = nn.Parameter(torch.ones(2))
    check_training(7, torch.tensor(0.5), [weights])
    with pytest.raises(Diverged, match="diverged at epoch 7: the loss is nan"):
        check_training(7, torch.tensor(float("nan")))
    with torch.no_grad():
        weights[0] = float("inf")
    with pytest.raises(Diverged, match="diverged at epoch 8"):
        check_training(8, 0.5, [weights])
