"""Random samples of real images per class."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.api import Split
from bench.api.seeds import seed_for
from bench.errors import UserError
from bench.kit.views.draws import Purpose, permutation, uniforms


def sample_classes(labels: Tensor, classes: int, count: int, seed: int, most: bool = False) -> Tensor:
    """Draw ``count`` indices per class without replacement, class-major: (classes * count,) int64.

    A larger sample begins with the smaller one's images, so IPC 1 is part of IPC 10.

    Args:
        most: take all images of a class that has fewer than ``count``.

    Raises:
        UserError: a class has fewer than ``count`` images (unless ``most``).
    """
    order = torch.from_numpy(permutation(uniforms(seed_for("sample", seed), Purpose.ORDER, 0, 1, len(labels)))[0])
    shuffled = labels[order]
    chosen = []
    for index in range(classes):
        members = order[shuffled == index]
        if len(members) < count and not most:
            raise UserError(f"class {index} has {len(members)} training images, fewer than the {count} asked for")
        chosen.append(members[:count])
    return torch.cat(chosen)


def class_images(split: Split, label: int, size: int, device: torch.device) -> Tensor:
    """Return all images of a class, resized and centre-cropped: uint8 (N, 3, size, size) on ``device``."""
    members = (split.labels == label).nonzero().flatten()
    return torch.cat([pixels for pixels, _ in split.centered(size, device, indices=members)])
