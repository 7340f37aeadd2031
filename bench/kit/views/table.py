"""The choices for every image of an epoch: drawn on the host and moved to the device once.

Small sets have many short epochs, so a table spans as many epochs as make it worth its overhead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.api.augmentation import AugmentationConfig
from bench.errors import UserError
from bench.kit.views.boxes import CROP_WIDTH, random_resized_boxes
from bench.kit.views.draws import Column, Floats, Purpose, permutation, some_uniforms, span_uniforms
from bench.kit.views.geometry import axis_weights

CACHED_BYTES = 8 * 2**20  # of weights; larger ones are made by the batch, which stays in a processor's cache
BATCH_CACHED_BYTES = 64 * 2**10  # the same of a single batch, because many of them are held

# Columns of an epoch's table: one for the partner, then pairs, of which the first is about the rows of the
# image and the second about its columns; the places of f strips are the last f pairs.
PARTNER, BOX, BOX_SIZE, FLIP, SHIFT, STRIPS = 0, 1, 3, 5, 7, 9


@dataclass(frozen=True)
class SpanTable:
    """Choices for N images of ``height`` x ``width`` pixels in a span of epochs, one row per image, epoch by epoch.

    ``columns`` int32 (epochs * N, 9 + 2f) on the device, see above. ``identity``: but for the flip, views are
    the images themselves. ``weights``: the matrices of all rows, where they are small enough to keep.
    """

    config: AugmentationConfig
    height: int
    width: int
    columns: Tensor
    identity: bool
    weights: tuple[Tensor, Tensor] | None

    @property
    def bytes(self) -> int:
        """Memory of the table."""
        return self.columns.nbytes + sum(weights.nbytes for weights in self.weights or ())

    def flips(self, rows: Tensor | None) -> Tensor:
        """Return int32 (B,), 1 for the images that are mirrored, else 0.

        Here and below ``rows`` (B,) are those of the images, None standing for all rows in their order.
        """
        return _chosen(self.columns[:, FLIP + 1], rows)

    def partners(self, rows: Tensor | None) -> Tensor:
        """Return int64 (B,), which image of the batch ``rows`` is mixed into each.

        It is a uniform permutation, made on the device from a draw per image.
        """
        return _chosen(self.columns[:, PARTNER], rows).argsort(stable=True)

    def weights_of(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the weights (B, S, H) of the rows and (B, S, W) of the columns of the images."""
        if self.weights is not None:
            return _chosen(self.weights[0], rows), _chosen(self.weights[1], rows)
        return _weights(self.config, self.height, self.width, _chosen(self.columns, rows))


def draw_table(
    config: AugmentationConfig,
    epochs: range,
    image_draws: Floats,
    height: int,
    width: int,
    device: torch.device,
    cropped: bool = False,
    rows: NDArray[np.int64] | None = None,
) -> SpanTable:
    """Draw the table of ``epochs`` for N images of one size, from their IMAGE tables (epochs * N, 8).

    Args:
        cropped: the images are ``config.size`` square and the box was already cut out of them.
        rows: (B,) only these images of a single epoch, of which ``image_draws`` are given.

    Raises:
        UserError: the images cannot be cut into ``config.shuffle`` strips of equal width.
    """
    f = config.shuffle

    def drawn(purpose: Purpose, columns: int) -> Floats:
        if rows is not None:
            return some_uniforms(config.seed, purpose, epochs.start, rows, columns)
        return span_uniforms(config.seed, purpose, epochs, len(image_draws) // len(epochs), columns)

    if height % f or width % f:
        raise UserError(
            f"images of {height} x {width} pixels cannot be cut into {f} x {f} equal patches; "
            f"expected sides that {f} divides; choose another `shuffle` or image size"
        )
    columns = np.zeros((len(image_draws), STRIPS + 2 * f), dtype=np.int32)
    columns[:, PARTNER] = image_draws[:, Column.PARTNER] * 2.0**31
    whole = cropped or config.crop != "rrc" or (height == width and config.keeps_squares)
    if whole:
        columns[:, BOX_SIZE:FLIP] = height, width
    else:
        draws = drawn(Purpose.CROP, CROP_WIDTH)
        heights, widths = np.full(len(draws), height), np.full(len(draws), width)
        columns[:, BOX:FLIP] = random_resized_boxes(draws, heights, widths, config.scale, config.ratio)
    if config.flip:
        columns[:, FLIP + 1] = image_draws[:, Column.FLIP] < 0.5
    if config.crop == "shift":
        steps = image_draws[:, Column.DOWN : Column.RIGHT + 1] * (2 * config.pad + 1)
        columns[:, SHIFT:STRIPS] = steps.astype(np.int32) - config.pad
    if f > 1:
        draws = drawn(Purpose.SHUFFLE, 2 * f)
        places = permutation(draws.reshape(-1, f, 2).swapaxes(1, 2)).swapaxes(1, 2)
        columns[:, STRIPS:] = places.reshape(-1, 2 * f)
    identity = whole and height == width == config.size and f == 1 and config.crop != "shift"
    on_device = torch.from_numpy(columns).to(device, non_blocking=True)
    limit = CACHED_BYTES if rows is None else BATCH_CACHED_BYTES
    small = not identity and 4 * len(columns) * config.size * (height + width) <= limit
    weights = _weights(config, height, width, on_device) if small else None
    return SpanTable(config, height, width, on_device, identity, weights)


def _chosen(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values.index_select(0, rows)


def _weights(config: AugmentationConfig, height: int, width: int, columns: Tensor) -> tuple[Tensor, Tensor]:
    of_rows, of_columns = columns[:, 1:].view(len(columns), -1, 2).unbind(2)
    if height != width:
        return _axis_weights(config, height, of_rows), _axis_weights(config, width, of_columns)
    rows, across = _axis_weights(config, height, torch.cat([of_rows, of_columns])).chunk(2)
    return rows, across


def _axis_weights(config: AugmentationConfig, pixels: int, columns: Tensor) -> Tensor:
    first, length, reverse, shift = columns[:, :4].unbind(1)
    return axis_weights(
        first,
        length,
        pixels,
        config.size,
        config.antialias,
        reverse=reverse != 0 if config.flip else None,
        shift=shift if config.crop == "shift" else None,
        places=columns[:, 4:].long() if config.shuffle > 1 else None,
    )
