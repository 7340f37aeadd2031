"""Augmentation: how each view is made, how many there are in which batches, and a batch of them.

Stored labels belong to one schedule and are kept with it. Torch-free: grids are planned with it, and
``bench.kit.views`` makes the views.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from bench.api.config import BaseConfig

if TYPE_CHECKING:
    from torch import Tensor


class AugmentationConfig(BaseConfig):
    """The augmentation of each image before a student or a label model sees it.

    In this order: ShufflePatches(``shuffle``), the crop resized to ``size`` (bilinear), the horizontal flip, the mix.

    ``crop``: ``"rrc"`` is torchvision's RandomResizedCrop with areas in (``min_scale``, ``max_scale``) and
    aspects in ``ratio``; ``"shift"`` resizes to ``size`` and then is RandomCrop with ``pad`` black pixels on
    each side; ``"none"`` resizes alone; ``"given"`` stands for views whose coordinates came with labels
    of others. ``mix`` draws one weight from Beta(``alpha``, ``alpha``) and one permutation per batch.
    """

    size: int = Field(gt=0)
    min_scale: float = Field(0.08, gt=0, le=1)
    max_scale: float = Field(1.0, gt=0, le=1)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop: Literal["rrc", "shift", "none", "given"] = "rrc"
    pad: int = Field(4, ge=0)
    flip: bool = False
    shuffle: int = Field(1, ge=1)
    mix: Literal["none", "cutmix", "mixup"] = "none"
    alpha: float = Field(1.0, gt=0)
    antialias: bool = True
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_scale > self.max_scale:
            raise ValueError(f"min_scale {self.min_scale} is above max_scale {self.max_scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} is not (smallest, largest) with both above 0")
        return self

    @property
    def scale(self) -> tuple[float, float]:
        """Smallest and largest area of a crop, as shares of the image."""
        return self.min_scale, self.max_scale

    @property
    def keeps_squares(self) -> bool:
        """True where RandomResizedCrop leaves square images whole.

        Where only the whole area will do, no other shape fits and the fallback is the whole image (RDED relies on it
        below 128 pixels).
        """
        return self.min_scale == 1 and self.ratio[0] <= 1 <= self.ratio[1]

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the chosen fields: equal digests make equal views of equal images."""
        return hashlib.sha256(json.dumps(self.non_default_fields(), sort_keys=True).encode()).hexdigest()


class AugmentationSchedule(BaseConfig):
    """All views of a training: ``epochs`` passes over ``images`` images in batches of ``batch_size``.

    Batch b of epoch e holds the images b * batch_size and following of the epoch's order; the last one may be
    shorter.
    """

    plan: AugmentationConfig
    images: int = Field(ge=1)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return -(-self.images // self.batch_size)

    def rows(self, batch: int) -> range:
        """Return the places in an epoch's order that a batch holds."""
        return range(batch * self.batch_size, min((batch + 1) * self.batch_size, self.images))

    def differs(self, other: AugmentationSchedule) -> str:
        """Name the first field that differs, with both values, e.g. ``seed 5, expected 7``; empty: none.

        Views that came with labels stand for any of their size and batches.
        """
        mine, theirs = ({**s.plan.model_dump(), **s.model_dump(exclude={"plan"})} for s in (self, other))
        if other.plan.crop == "given":
            mine = {name: mine[name] for name in ("size", "images", "batch_size")}
        return next(
            (f"{name} {theirs[name]}, expected {mine[name]}" for name in mine if mine[name] != theirs[name]), ""
        )


@dataclass(frozen=True)
class AugmentedBatch:
    """An augmented batch, on one device.

    ``pixels`` float32 (B, 3, S, S) in [0, 1]; ``indices`` int64 (B,) of the base images in their set;
    ``labels`` int64 (B,) of the base images; ``partner_labels`` and ``partner_indices`` of the images that were
    mixed in (the same where none were); ``weight`` the share of the base image in every view, known on the host.
    ``channels`` float32 (B, P, S, S) in [0, 1] are extra channels, where the images have some: cut, flipped and mixed
    like the pixels.
    """

    pixels: Tensor
    indices: Tensor
    labels: Tensor
    partner_labels: Tensor
    partner_indices: Tensor
    weight: float
    epoch: int
    batch: int
    channels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)
