"""Augmentation of the images of a recovery. Torch-free: methods' configurations are made of it."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from bench.api import BaseConfig


class RecoveryAugmentation(BaseConfig):
    """The augmentation of a batch in each iteration, in this order: crop, horizontal flip, roll.

    ``crop``: ``"rrc"`` is torchvision's RandomResizedCrop with areas from ``min_scale`` up; ``"shift"`` is RandomCrop
    with ``pad`` zeros (of normalised space) on each side. ``roll``: pixels down and right, wrapping around, uniform
    in (lowest, highest), both included. ``antialias``: of the crop; torchvision before 0.17, with which the
    published sets were made, had none for tensors. ``curriculum``: CDA's share of the iterations in which the
    smallest area falls from the whole image to ``min_scale`` (1.0 in its released commands); None: it is ``min_scale``
    throughout.
    """

    crop: Literal["rrc", "shift", "none"] = "rrc"
    min_scale: float = Field(0.08, gt=0, le=1)
    pad: int = Field(4, ge=0)
    flip: bool = True
    roll: tuple[int, int] = (0, 32)
    antialias: bool = False
    curriculum: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.roll[0] > self.roll[1]:
            raise ValueError(f"roll {self.roll} is not (lowest, highest)")
        return self

    def smallest_area(self, iteration: int, iterations: int) -> float:
        """Return the lower bound of a crop's area as a share of the image (CDA, ``recover_cda_in1k.py``)."""
        if self.curriculum is None or iteration >= self.curriculum * iterations:
            return self.min_scale
        eased = 0.5 * (1 + math.cos(math.pi * iteration / (self.curriculum * iterations)))
        return self.min_scale + (1 - self.min_scale) * eased
