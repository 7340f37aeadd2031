"""Recovery: images that a frozen network is made to dream up, by descent on its loss and its statistics.

``recover`` is the descent, ``GroupViews`` what happens to the images before the network sees them, ``group_moments``
and ``BatchNormInputs`` the statistics that are matched. Several official batches ("groups") are optimised at once:
each has its own views and statistics, so the result is that of separate runs.
"""

from __future__ import annotations

from bench.kit.recovery.augment import GroupViews, RecoveryViews
from bench.kit.recovery.bn_statistics import BatchNormInputs, Distances, group_moments
from bench.kit.recovery.loop import RecoveryLoss, Remembers, noise, recover
from bench.kit.recovery.memory import groups_that_fit

__all__ = [
    "BatchNormInputs",
    "Distances",
    "GroupViews",
    "RecoveryLoss",
    "RecoveryViews",
    "Remembers",
    "group_moments",
    "groups_that_fit",
    "noise",
    "recover",
]
