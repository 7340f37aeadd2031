"""The part of an image that a view shows: the box of RandomResizedCrop, for many images of any size at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.kit.views.draws import Floats

TRIES = 10  # torchvision.transforms.RandomResizedCrop.get_params
CROP_WIDTH = 2 * TRIES + 2  # draws per image: an area and an aspect per try; top, left


def random_resized_boxes(
    draws: Floats,
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> NDArray[np.int64]:
    """Place boxes (B, 4) as (top, left, height, width), by the algorithm of torchvision's RandomResizedCrop.

    Ten tries of an area, uniform in ``scale`` times the image's, and a log-uniform aspect; both sides are
    rounded (half to even); the first try that fits is placed uniformly. If none fits, the largest central box
    of a valid aspect is taken, which is the whole image if its own aspect is valid: so a scale of (1, 1) is
    the identity on square images.

    Args:
        draws: uniforms (B, 22): area and aspect try by try, then top and left.
        heights, widths: (B,), of the images, in pixels.
    """
    tries = draws[:, : 2 * TRIES].reshape(-1, TRIES, 2)
    area = (heights * widths)[:, None] * (scale[0] + (scale[1] - scale[0]) * tries[..., 0])
    low, high = np.log(ratio[0]), np.log(ratio[1])
    aspect = np.exp(low + (high - low) * tries[..., 1])
    tried_w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    tried_h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (tried_w > 0) & (tried_w <= widths[:, None]) & (tried_h > 0) & (tried_h <= heights[:, None])
    first = fits.argmax(axis=1)[:, None]
    found = fits.any(axis=1)
    central_h = np.minimum(heights, np.rint(widths / ratio[0]).astype(np.int64))
    central_w = np.minimum(widths, np.rint(heights * ratio[1]).astype(np.int64))
    height = np.where(found, np.take_along_axis(tried_h, first, axis=1)[:, 0], central_h)
    width = np.where(found, np.take_along_axis(tried_w, first, axis=1)[:, 0], central_w)
    free_h, free_w = heights - height, widths - width
    top = np.where(found, (draws[:, -2] * (free_h + 1)).astype(np.int64), free_h // 2)
    left = np.where(found, (draws[:, -1] * (free_w + 1)).astype(np.int64), free_w // 2)
    return np.stack([top, left, height, width], axis=1)
