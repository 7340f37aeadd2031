"""Data densification (DD): images of one class are driven apart by the spectrum of their Gram matrix.

From shaoshitong/G_VBSM_Dataset_Condensation, ``recover/data_synthesis_with_svd_with_db_with_all_statistic.py``. The
authors take the real part of general eigenvalues, class by class; a Gram matrix is symmetric, so that a symmetric
solver gives the same, and classes of equally many images are solved together. On an accelerator the solver waits for
the device, once an iteration.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_SIDE = 32  # images are pooled to as many pixels a side, larger ones and smaller ones alike


class Densification:
    """The loss of batches whose classes are known.

    Args:
        labels: the classes of G groups of B images, on the host. Classes with one image in a group do not count.
        tau: the temperature of the flatter spectrum that is aimed at.
    """

    def __init__(self, labels: Sequence[Sequence[int]], tau: float, device: torch.device):
        self.tau = tau
        self.groups = len(labels)
        found: dict[int, list[tuple[int, list[int]]]] = {}  # by the images of a class: its group and their rows
        for group, classes in enumerate(labels):
            places = sorted(range(len(classes)), key=lambda place: classes[place])
            for _, same in itertools.groupby(places, key=lambda place: classes[place]):
                rows = [group * len(classes) + place for place in same]
                if len(rows) > 1:
                    found.setdefault(len(rows), []).append((group, rows))
        self._classes = []
        for count, listed in found.items():
            owners, members = (torch.tensor(each, device=device) for each in zip(*listed, strict=True))
            self._classes.append((count, owners, members.flatten()))

    def __call__(self, views: Tensor) -> Tensor:
        """Return Σ over the classes of KL(softmax(λ/τ), held fixed ‖ softmax(λ)) (G,) for views (G * B, 3, S, S)."""
        total = views.new_zeros(self.groups)
        if not self._classes:
            return total
        features, repeats = views, 1
        if _SIDE % views.shape[2]:
            features = F.adaptive_avg_pool2d(views, _SIDE)
        else:  # pooling to more pixels repeats each of them
            repeats = (_SIDE // views.shape[2]) ** 2
        features = features.flatten(1)
        for count, owners, rows in self._classes:
            chosen = features.index_select(0, rows).unflatten(0, (-1, count))  # (classes, images, numbers)
            spectrum = torch.linalg.eigvalsh(repeats * (chosen @ chosen.mT))
            aim = (spectrum / self.tau).softmax(1).detach()
            divergence = F.kl_div(spectrum.log_softmax(1), aim, reduction="none").sum(1)
            total = total.index_add(0, owners, divergence)
        return total
