"""Planes: what lies below the colours of an image and is cut, flipped and mixed with them, so that it stays in place.

There are two: the click, a disc around the prompt's point, and the exact mask where it is known. A click reaches
networks as such a map, as in interactive segmentation (Xu et al., "Deep Interactive Object Selection", CVPR 2016, has
maps of distances; discs are Benenson et al.'s, "Large-scale interactive object segmentation with human annotators",
CVPR 2019); whoever takes points finds them in it again (:func:`points_of`). A crop may leave the click outside: then
its plane is empty.
"""

from __future__ import annotations

import torch
from torch import Tensor

CLICK, MASK = 0, 1  # which plane is which
SIDES_A_RADIUS = 32  # a disc of two pixels around the point in an image of 64


def with_planes(pixels: Tensor, points: Tensor | None, masks: Tensor | None) -> Tensor:
    """Pixels uint8 (N, 3, H, W) with their planes below them, uint8 (N, 3 + P, H, W), 0 or 255; as they are where
    they have no prompts.

    Args:
        points: integers (N, 2), row and column of each prompt.
        masks: uint8 (N, H, W), 0 or 1.
    """
    if points is None:
        return pixels
    planes = [clicks(points, pixels.shape[2], pixels.shape[3])]
    if masks is not None:
        planes.append(masks * 255)
    return torch.cat([pixels, torch.stack(planes, 1).to(pixels.device)], 1)


def clicks(points: Tensor, height: int, width: int) -> Tensor:
    """Discs around points (N, 2): uint8 (N, H, W), 255 inside."""
    radius = max(1, min(height, width) // SIDES_A_RADIUS)
    down = torch.arange(height)[:, None] - points[:, 0, None, None]
    right = torch.arange(width) - points[:, 1, None, None]
    return (down**2 + right**2 <= radius**2).to(torch.uint8) * 255


def points_of(planes: Tensor) -> tuple[Tensor, Tensor]:
    """The points in click planes (B, H, W), as fractions of the sides: the discs' centres of mass (B, 2), row and
    column of pixels' middles; and whether there is one, bool (B,)."""
    weight = planes.sum((1, 2))
    there = weight > 0
    places = []
    for axis in (1, 2):
        pixels = planes.shape[axis]
        middles = (torch.arange(pixels, device=planes.device) + 0.5) / pixels
        places.append((planes.sum(3 - axis) * middles).sum(1) / weight.where(there, 1))
    return torch.stack(places, 1), there
