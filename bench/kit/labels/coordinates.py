"""FKD's coordinates of views (SRe2L, relabel/utils_fkd.py): what its files hold beside the labels.

Our views are made again from their augmentation config, so nothing reads these; they are written for a fair
comparison of sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.kit.views import AugmentationStream
from bench.kit.views.table import BOX, FLIP

CPU = torch.device("cpu")


def coordinates(
    stream: AugmentationStream, epoch: int, batch: int, batch_size: int, height: int, width: int
) -> dict[str, Tensor]:
    """Return the coordinates of a batch by the names of :mod:`bench.api.stored.layout`, on the host.

    ``coords`` float32 (B, 4), the crop's top, left, height and width as fractions of the image; ``flip`` bool (B, 1);
    ``partner`` int64 (B, 1), the place in the batch of what is mixed in; ``weight`` float64 (1, 1) of the base image;
    ``box`` int32 (1, 4), CutMix's top, left, bottom and right pixel. Shifts and patch shuffles have no place there.

    Args:
        height, width: of the images, in pixels.
    """
    indices = stream.order(epoch)[batch * batch_size : (batch + 1) * batch_size]
    table = stream.table(epoch, indices, height, width, CPU)
    sides = torch.tensor([height, width, height, width])
    partners, weight, box = torch.arange(len(indices)), 1.0, (0, 0, 0, 0)
    if (mixture := stream.mixture(epoch, batch)) is not None:
        partners, weight = table.partners(None), mixture.weight
        if mixture.box is not None:
            top, bottom, left, right = mixture.box
            box = top, left, bottom, right
    return {
        "coords": table.columns[:, BOX:FLIP] / sides,
        "flip": table.columns[:, FLIP + 1, None] != 0,
        "partner": partners[:, None],
        "weight": torch.tensor([[weight]], dtype=torch.float64),
        "box": torch.tensor([box], dtype=torch.int32),
    }
