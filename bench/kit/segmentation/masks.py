"""How a predicted mask is held against another one: losses on logits, and the IoU of the mask they stand for.

Logits are at a quarter of the resolution. For a loss, an exact mask is brought there by the share of each place that it
covers; for the IoU, logits are enlarged bilinearly to the whole resolution and positive ones are the mask, as
segment-anything does (``Sam.postprocess_masks``, ``mask_threshold`` 0).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import LabelSource, Split
from bench.kit.segmentation.decoder import SHRINKS
from bench.kit.views import AugmentedBatch
from bench.kit.views.planes import CLICK, MASK, with_planes

SMOOTH = 1.0  # of the Dice loss, in places of the mask (segment-anything's and DETR's `dice_loss` have 1)
Answer = Callable[[Tensor, Tensor], Tensor]


def click_plane(views: AugmentedBatch) -> Tensor:
    """The clicks (B, 1, S, S) of a batch.

    Raises:
        ValueError: its images have no prompts.
    """
    if views.planes is None:
        raise ValueError("these images have no prompts; expected a data set with masks")
    return views.planes[:, CLICK : CLICK + 1]


def exact_shares(views: AugmentedBatch) -> Tensor:
    """The exact masks of a batch at the resolution of logits, (B, s, s): how much of each place they cover.

    Raises:
        ValueError: the exact masks of its images are not known.
    """
    if views.planes is None or views.planes.shape[1] <= MASK:
        raise ValueError("the exact masks of these images are not known; expected a data set with masks")
    return F.avg_pool2d(views.planes[:, MASK], SHRINKS)


def mask_loss(logits: Tensor, shares: Tensor, dice_weight: float) -> Tensor:
    """Binary cross entropy to ``shares`` in [0, 1], its mean over places and images, + ``dice_weight`` times the mean
    of 1 - Dice, 2 Σ p t / (Σ p + Σ t); both (B, s, s). segment-anything trains with focal and Dice loss, 20 to 1."""
    loss = F.binary_cross_entropy_with_logits(logits, shares)
    if not dice_weight:
        return loss
    found, wanted = logits.sigmoid().flatten(1), shares.flatten(1)
    dice = (2 * (found * wanted).sum(1) + SMOOTH) / (found.sum(1) + wanted.sum(1) + SMOOTH)
    return loss + dice_weight * (1 - dice).mean()


def enlarged(logits: Tensor, size: int) -> Tensor:
    """The masks bool (B, size, size) that logits (B, s, s) stand for."""
    return F.interpolate(logits[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0] > 0


class TestMasks:
    """A test split with masks, on a device: the mean IoU of the masks that a network, or whoever labels, answers."""

    def __init__(self, split: Split, size: int, device: torch.device, batch_size: int = 250):
        """
        Args:
            size: pixels a side, those of the split's images.

        Raises:
            ValueError: the split has no masks, or has them at another size.
        """
        if split.points is None or split.masks is None or split.masks.shape[1:] != (size, size):
            raise ValueError(f"expected a test split with prompts and masks of {size} x {size} pixels")
        self.count, self.size, self.batch_size = len(split), size, batch_size
        # whole, not the centre that classifiers are tested on: the masks and prompts are those of whole images
        pixels = torch.stack([split.image(index) for index in range(len(split))])
        self.layers = with_planes(pixels, split.points, split.masks).to(device)

    def top1(self, model: nn.Module) -> float:
        """The headline of a network: its mean IoU; it is put in eval mode for it."""
        training = model.training
        model.eval()
        found = self.mean_iou(model)
        model.train(training)
        return found

    def of_labels(self, source: LabelSource) -> float:
        """The same of a dense online label source, asked for each image as it is."""

        def answer(pixels: Tensor, clicks: Tensor) -> Tensor:
            nobody = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
            views = AugmentedBatch(pixels, nobody, nobody, nobody, nobody, 1.0, 0, 0, clicks)
            side = self.size // SHRINKS
            return source.soft_labels(views, 0).view(-1, side, side)

        return self.mean_iou(answer)

    @torch.inference_mode()
    def mean_iou(self, answer: Answer) -> float:
        """``answer`` maps pixels (B, 3, S, S) and clicks (B, 1, S, S), both in [0, 1], to logits (B, s, s). The mean is
        over the samples, each with one exact mask at full resolution."""
        total = torch.zeros((), device=self.layers.device)
        for layers in self.layers.split(self.batch_size):
            inputs = layers.float().div_(255)
            pixels = inputs[:, :3].contiguous(memory_format=torch.channels_last)
            found = enlarged(answer(pixels, inputs[:, 3 + CLICK : 4 + CLICK]), self.size)
            exact = layers[:, 3 + MASK] > 0
            both, either = (found & exact).sum((1, 2)), (found | exact).sum((1, 2))
            total += (both / either).sum()  # an exact mask is never empty: it has its prompt
        return float(total) / self.count
