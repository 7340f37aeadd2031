"""Augmented batches of a recovery: one crop, one flip and one roll for all images of a group.

SRe2L and G_VBSM apply torchvision's transforms to the stacked batch, so they draw once per iteration, not once per
image (SRe2L, ``recover/data_synthesis.py``). All of it is separable, so it is two matrices per group and iteration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.kit.recovery.config import RecoveryAugmentation
from bench.kit.views.boxes import CROP_WIDTH, TRIES, random_resized_boxes
from bench.kit.views.draws import IMAGE_WIDTH, Column, Floats, Purpose, uniforms
from bench.kit.views.geometry import apply_weights, axis_weights

_RATIO = (3 / 4, 4 / 3)  # torchvision.transforms.RandomResizedCrop
_ROLL = slice(5, 7)  # of the draws that `Column` leaves to spare: down, right
_CHUNK_BYTES = 16 * 2**20  # of matrices made at once


class Draws:
    """Random choices of one group, row t for iteration t, each row on its own whatever else is drawn.

    ``boxes`` int64 (T, 4) as (top, left, height, width); ``flips`` bool (T,); ``shifts`` (T, 2) of the shift crop
    and ``rolls`` (T, 2), both down and right.
    """

    def __init__(self, config: RecoveryAugmentation, seed: int, size: int, iterations: int, span: range):
        count = len(span)
        free = uniforms(seed, Purpose.IMAGE, 0, count, IMAGE_WIDTH, first=span.start)
        self.boxes = np.tile(np.array([0, 0, size, size]), (count, 1))
        if config.crop == "rrc":
            crops = uniforms(seed, Purpose.CROP, 0, count, CROP_WIDTH, first=span.start)
            smallest = np.array([config.smallest_area(iteration, iterations) for iteration in span])[:, None]
            areas = slice(0, 2 * TRIES, 2)
            crops[:, areas] = smallest + (1 - smallest) * crops[:, areas]  # the bound moves with the iteration
            sides = np.full(count, size)
            self.boxes = random_resized_boxes(crops, sides, sides, (0, 1), _RATIO)
        self.flips: NDArray[np.bool_] = (free[:, Column.FLIP] < 0.5) & config.flip
        self.shifts = np.zeros((count, 2), dtype=np.int64)
        if config.crop == "shift":
            self.shifts = _integers(free[:, Column.DOWN : Column.RIGHT + 1], -config.pad, config.pad)
        self.rolls = _integers(free[:, _ROLL], *config.roll)


def _integers(draws: Floats, low: int, high: int) -> NDArray[np.int64]:
    return (draws * (high - low + 1)).astype(np.int64) + low


class GroupViews:
    """The views of G groups of square images in every iteration of a recovery, reproducible from the seeds.

    Args:
        seeds: one per group; a group's views depend on its own alone.
        iterations: of the whole recovery, for the curriculum.
    """

    def __init__(
        self, config: RecoveryAugmentation, seeds: Sequence[int], size: int, iterations: int, device: torch.device
    ):
        self.config, self.seeds, self.size, self.iterations, self.device = config, seeds, size, iterations, device
        self._span = range(0)
        self._matrices: tuple[Tensor, Tensor] = torch.empty(0), torch.empty(0)

    def __call__(self, images: Tensor, iteration: int) -> Tensor:
        """Return the views (G, B, 3, S, S) of float images (G, B, 3, S, S), differentiable, without waiting."""
        if iteration not in self._span:
            self._make(iteration)
        rows, columns = (matrices[iteration - self._span.start] for matrices in self._matrices)
        return apply_weights(rows, columns, images.flatten(1, 2)).view(images.shape)

    def _make(self, first: int) -> None:
        """Draw the iterations from ``first`` and move their matrices (K, G, S, S) to the device."""
        each = 8 * len(self.seeds) * self.size**2
        self._span = range(first, min(first + max(1, _CHUNK_BYTES // each), max(self.iterations, first + 1)))
        drawn = [Draws(self.config, seed, self.size, self.iterations, self._span) for seed in self.seeds]
        columns = np.zeros((2, len(self._span), len(drawn), 5), dtype=np.int64)  # box, box, flip, shift, roll
        for group, draws in enumerate(drawn):
            for axis in (0, 1):
                columns[axis, :, group, 0] = draws.boxes[:, axis]
                columns[axis, :, group, 1] = draws.boxes[:, axis + 2]
                columns[axis, :, group, 3] = draws.shifts[:, axis]
                columns[axis, :, group, 4] = draws.rolls[:, axis]
            columns[1, :, group, 2] = draws.flips
        table = torch.from_numpy(columns).to(self.device, non_blocking=True).view(-1, 5)
        first_pixel, length, flip, shift, roll = table.unbind(1)
        weights = axis_weights(
            first_pixel, length, self.size, self.size, self.config.antialias,
            reverse=flip != 0 if self.config.flip else None, shift=shift if self.config.crop == "shift" else None,
        )  # fmt: skip
        if self.config.roll != (0, 0):  # output i shows what i - roll would, around the edges
            output = torch.arange(self.size, device=self.device)
            source = (output - roll[:, None]) % self.size
            weights = weights.gather(1, source[:, :, None].expand_as(weights))
        rows, across = weights.view(2, len(self._span), len(drawn), self.size, self.size).unbind(0)
        self._matrices = rows, across
