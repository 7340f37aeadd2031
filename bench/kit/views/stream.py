"""The stream of views of a set of images: order, batches and views of any epoch, in any order.

Nothing here waits for the device: what the host must know (boxes for lazily read images, the weight and the
box of a mix) is drawn on the host, and what the device must know is sent there once an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError
from bench.kit.views.boxes import CROP_WIDTH, random_resized_boxes
from bench.kit.views.draws import IMAGE_WIDTH, Column, Floats, Purpose, permutation, some_uniforms, uniforms
from bench.kit.views.geometry import apply_weights
from bench.kit.views.mixing import draw_mixture, mix
from bench.kit.views.plan import ViewPlan
from bench.kit.views.table import EpochTable, draw_table

EPOCHS_HELD = 2  # a loader that reads ahead works on the next epoch while this one is being finished


@dataclass(frozen=True)
class Views:
    """An augmented batch, on one device.

    ``pixels`` float32 (B, 3, S, S) in [0, 1]; ``indices`` int64 (B,) of the base images in their set;
    ``labels`` int64 (B,) of the base images and ``partner_labels`` of the images that were mixed in (the same
    where none were); ``weight`` the share of the base image in every view, known on the host.
    """

    pixels: Tensor
    indices: Tensor
    labels: Tensor
    partner_labels: Tensor
    weight: float
    epoch: int
    batch: int

    def __len__(self) -> int:
        return len(self.labels)


class ViewStream:
    """The views of ``count`` images under a plan.

    The order of an epoch is fixed by (seed, epoch), the geometry of a view by (seed, epoch, image), the
    weight and box of a mix by (seed, epoch, batch number), the partners by (seed, epoch, images of the
    batch). No state is kept between calls but caches.
    """

    def __init__(self, plan: ViewPlan, count: int):
        self.plan = plan
        self.count = count
        self._table = lru_cache(EPOCHS_HELD)(self._draw_table)
        self._image_draws = lru_cache(EPOCHS_HELD)(self._draw_images)

    def order(self, epoch: int) -> Tensor:
        """The order of the images in ``epoch``: a permutation, int64 (count,), on the host."""
        return torch.from_numpy(permutation(self._image_draws(epoch)[:, Column.ORDER]))

    def batches(
        self, epoch: int, batch_size: int, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[int, Tensor]]:
        """The batches of ``epoch`` in its order: their numbers and indices int64 (B,) on ``device``; the last
        one may be shorter."""
        order = self.order(epoch).to(device, non_blocking=True)
        yield from enumerate(torch.split(order, batch_size))

    def make(self, pixels: Tensor, labels: Tensor, indices: Tensor, epoch: int, batch: int) -> Views:
        """The views of the images ``indices`` as batch number ``batch`` of ``epoch``.

        Args:
            pixels: uint8 (count, 3, H, W), resident on the device on which the views are wanted.
            labels: int64 (count,) on that device.
            indices: int64 (B,), there or on the host.

        Raises:
            UserError: the plan shuffles patches and its factor does not divide the sides of the images.
        """
        indices = indices.to(pixels.device, non_blocking=True)
        table = self._table(epoch, pixels.shape[2], pixels.shape[3], pixels.device, False)
        chosen, labels = pixels.index_select(0, indices), labels.index_select(0, indices)
        return self._views(table, chosen, labels, indices, epoch, batch)

    def boxes(self, epoch: int, indices: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
        """What to cut out of lazily read images: int64 (B, 4) on the host, as (top, left, height, width).

        Cut, resize to ``plan.size`` (``plan.antialias``), and give the result to :meth:`finish`.

        Args:
            indices, heights, widths: integers (B,) on the host; the sizes of the images in pixels.

        Raises:
            UserError: the plan shuffles patches, which needs the images in memory.
        """
        self._refuse_shuffle()
        high, wide = np.asarray(heights, dtype=np.int64), np.asarray(widths, dtype=np.int64)
        if self.plan.crop != "rrc":
            return torch.from_numpy(np.stack([np.zeros_like(high), np.zeros_like(wide), high, wide], axis=1))
        plan, rows = self.plan, np.asarray(indices, dtype=np.int64)
        draws = some_uniforms(plan.seed, Purpose.CROP, epoch, rows, CROP_WIDTH)
        return torch.from_numpy(random_resized_boxes(draws, high, wide, plan.scale, plan.ratio))

    def finish(self, cropped: Tensor, labels: Tensor, indices: Tensor, epoch: int, batch: int) -> Views:
        """The views of images whose boxes were already cut out: shift, flip and mix.

        Args:
            cropped: uint8 (B, 3, S, S), S being ``plan.size``, on the device on which the views are wanted;
                CutMix may overwrite it.
            labels: int64 (B,) of these images; indices: int64 (B,); both there or on the host.

        Raises:
            UserError: the plan shuffles patches, which needs the images in memory.
        """
        self._refuse_shuffle()
        device, size = cropped.device, self.plan.size
        indices = indices.to(device, non_blocking=True)
        table = self._table(epoch, size, size, device, True)
        return self._views(table, cropped, labels.to(device, non_blocking=True), indices, epoch, batch)

    def _views(
        self, table: EpochTable, pixels: Tensor, labels: Tensor, indices: Tensor, epoch: int, batch: int
    ) -> Views:
        if not table.identity:
            pixels = apply_weights(*table.rows_and_columns(indices), pixels.float())
        elif self.plan.flip:
            pixels = _mirrored(pixels, table.flips(indices))
        weight, partner_labels = 1.0, labels
        if self.plan.mix != "none":
            mixture, partners = draw_mixture(self.plan, epoch, batch), table.partners(indices)
            pixels = mix(pixels, partners, mixture)  # before the conversion: bytes move faster than floats
            weight, partner_labels = mixture.weight, labels.index_select(0, partners)
        views = pixels.float().mul_(1 / 255)
        return Views(views, indices, labels, partner_labels, weight, epoch, batch)

    def _draw_table(
        self, epoch: int, height: int, width: int, device: torch.device, cropped: bool
    ) -> EpochTable:
        draws = self._image_draws(epoch)
        return draw_table(self.plan, epoch, draws, height, width, device, cropped)

    def _draw_images(self, epoch: int) -> Floats:
        return uniforms(self.plan.seed, Purpose.IMAGE, epoch, self.count, IMAGE_WIDTH)

    def _refuse_shuffle(self) -> None:
        if self.plan.shuffle > 1:
            raise UserError(
                f"shuffle={self.plan.shuffle} permutes patches before the crop and needs images in memory; "
                "this set is read from files: use shuffle=1"
            )


def _mirrored(pixels: Tensor, flips: Tensor) -> Tensor:
    """``pixels`` (B, 3, S, S), mirrored where ``flips`` (B,) is 1: a selection among the images and their
    mirror images, several times as fast as ``torch.where`` on single pixels."""
    lanes = torch.arange(len(flips), device=flips.device)
    return torch.cat([pixels, pixels.flip(3)]).index_select(0, lanes + flips * len(flips))
