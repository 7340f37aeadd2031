"""Clicks and masks: as extra channels that are cut with the image, as targets of losses, and as what IoU compares.

A prompt is a point, and reaches networks as a map, as in interactive segmentation (Xu et al., "Deep Interactive Object
Selection", CVPR 2016, has maps of distances; discs are Benenson et al.'s, "Large-scale interactive object segmentation
with human annotators", CVPR 2019). Logits are at a quarter of the resolution. For a loss an exact mask is brought there
by the share of each place that it covers; for the IoU logits are enlarged bilinearly to the full resolution and
positive ones are the mask, as in segment-anything (``Sam.postprocess_masks``, ``mask_threshold`` 0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import AugmentedBatch, LabelSource, Split
from methods.segmentation.config import MASKS, POINTS, SHRINKS

CLICK, MASK = 0, 1  # the extra channels
SIDES_PER_RADIUS = 32  # a disc of two pixels around the point in an image of 64
SMOOTH = 1.0  # of the Dice loss, in places of the mask (segment-anything's and DETR's `dice_loss` have 1)
BATCH = 250  # of the test
Answer = Callable[[Tensor, Tensor], Tensor]


def channels_of(extras: Mapping[str, Tensor], height: int, width: int) -> Tensor:
    """Make the extra channels uint8 (N, P, H, W), 0 or 255: the click, and the exact mask where it is known.

    Args:
        extras: of images or of a split: ``points`` (N, 2), row and column; ``masks`` uint8 (N, H, W), 0 or 1.
    """
    found = [clicks(extras[POINTS], height, width)]
    if MASKS in extras:
        found.append(extras[MASKS] * 255)
    return torch.stack(found, 1)


def clicks(points: Tensor, height: int, width: int) -> Tensor:
    """Draw discs around points (N, 2): uint8 (N, H, W), 255 inside."""
    radius = max(1, min(height, width) // SIDES_PER_RADIUS)
    down = torch.arange(height)[:, None] - points[:, 0, None, None]
    right = torch.arange(width) - points[:, 1, None, None]
    return (down**2 + right**2 <= radius**2).to(torch.uint8) * 255


def points_of(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Find the points in maps of clicks (B, H, W): the discs' centres of mass (B, 2), row and column, in [0, 1].

    The second tensor, bool (B,), tells whether there is one: a crop may leave the click outside.
    """
    weight = maps.sum((1, 2))
    there = weight > 0
    places = []
    for axis in (1, 2):
        pixels = maps.shape[axis]
        middles = (torch.arange(pixels, device=maps.device) + 0.5) / pixels
        places.append((maps.sum(3 - axis) * middles).sum(1) / weight.where(there, 1))
    return torch.stack(places, 1), there


def click_maps(views: AugmentedBatch) -> Tensor:
    """Return the clicks (B, 1, S, S) of a batch; raise a ValueError where it has no prompts."""
    if views.channels is None:
        raise ValueError("these images have no prompts; expected a data set for segmentation")
    return views.channels[:, CLICK : CLICK + 1]


def exact_shares(views: AugmentedBatch) -> Tensor:
    """Return the exact masks of a batch at the resolution of logits, (B, s, s): the covered share of each place.

    Raises:
        ValueError: the exact masks of its images are not known.
    """
    if views.channels is None or views.channels.shape[1] <= MASK:
        raise ValueError("the exact masks of these images are not known; expected a data set for segmentation")
    return F.avg_pool2d(views.channels[:, MASK], SHRINKS)


def mask_loss(logits: Tensor, shares: Tensor, dice_weight: float) -> Tensor:
    """Add binary cross entropy to ``shares`` in [0, 1] and ``dice_weight`` times 1 - Dice, 2 Σ p t / (Σ p + Σ t).

    Both are (B, s, s); the mean is over places and images. segment-anything trains with focal and Dice loss, 20 to 1.
    """
    loss = F.binary_cross_entropy_with_logits(logits, shares)
    if not dice_weight:
        return loss
    found, wanted = logits.sigmoid().flatten(1), shares.flatten(1)
    dice = (2 * (found * wanted).sum(1) + SMOOTH) / (found.sum(1) + wanted.sum(1) + SMOOTH)
    return loss + dice_weight * (1 - dice).mean()


def enlarged(logits: Tensor, size: int) -> Tensor:
    """Turn logits (B, s, s) into masks bool (B, size, size)."""
    return F.interpolate(logits[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0] > 0


class TestMasks:
    """A test split with masks on a device, for the mean IoU of a network or a label model."""

    def __init__(self, split: Split, size: int, device: torch.device, batch_size: int = BATCH):
        """Put images of ``size`` pixels per side, prompts and masks on the device.

        Raises:
            ValueError: the split has no masks, or has them at another size.
        """
        masks = split.extras.get(MASKS)
        if POINTS not in split.extras or masks is None or masks.shape[1:] != (size, size):
            raise ValueError(f"expected a test split with prompts and masks of {size} x {size} pixels")
        self.count, self.size, self.batch_size = len(split), size, batch_size
        # whole, not the centre that classifiers are tested on: masks and prompts are those of whole images
        pixels = torch.stack([split.image(index) for index in range(len(split))])
        self.layers = torch.cat([pixels, channels_of(split.extras, size, size)], 1).to(device)

    def top1(self, model: nn.Module) -> float:
        """Return the headline of a network, its mean IoU, in eval mode."""
        training = model.training
        model.eval()
        found = self.mean_iou(model)
        model.train(training)
        return found

    def of_labels(self, source: LabelSource) -> float:
        """Return the mean IoU of a label model, given each image without augmentation."""

        def answer(pixels: Tensor, click: Tensor) -> Tensor:
            nobody = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
            views = AugmentedBatch(pixels, nobody, nobody, nobody, nobody, 1.0, 0, 0, click)
            side = self.size // SHRINKS
            return source.soft_labels(views, 0).view(-1, side, side)

        return self.mean_iou(answer)

    @torch.inference_mode()
    def mean_iou(self, answer: Answer) -> float:
        """Return the mean over samples of the IoU at full resolution.

        Args:
            answer: maps pixels (B, 3, S, S) and clicks (B, 1, S, S), both in [0, 1], to logits (B, s, s).
        """
        total = torch.zeros((), device=self.layers.device)
        for layers in self.layers.split(self.batch_size):
            inputs = layers.float().div_(255)
            pixels = inputs[:, :3].contiguous(memory_format=torch.channels_last)
            found = enlarged(answer(pixels, inputs[:, 3 + CLICK : 4 + CLICK]), self.size)
            exact = layers[:, 3 + MASK] > 0
            both, either = (found & exact).sum((1, 2)), (found | exact).sum((1, 2))
            total += (both / either).sum()  # an exact mask is never empty: it contains its prompt
        return float(total) / self.count
