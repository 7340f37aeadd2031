"""CutMix and MixUp: one weight, one permutation and one box per batch.

That is how SRe2L, G_VBSM and RDED mix (SRe2L's ``relabel/utils_fkd.py``, after CutMix, Yun et al., ICCV 2019,
and mixup, Zhang et al., ICLR 2018). They keep the sampled weight of CutMix though the border may clip the
box; here the weight is the share of the base image that is really left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor

from bench.api.augmentation import AugmentationConfig
from bench.kit.views.draws import Floats


@dataclass(frozen=True)
class Mixture:
    """The mix of a batch, known on the host.

    ``weight`` is the share of the base image, ``box`` the pixels (top, bottom, left, right) that CutMix pastes, None of
    MixUp.
    """

    weight: float
    box: tuple[int, int, int, int] | None = None


def draw_mixture(config: AugmentationConfig, draws: Floats) -> Mixture:
    """Return the mix of a batch from its row (4,) of the BATCH table."""
    sampled, row, column, _ = draws.tolist()
    if config.alpha != 1:  # Beta(1, 1) is the uniform distribution itself
        sampled = float(betaincinv(config.alpha, config.alpha, sampled))
    if config.mix == "mixup":
        return Mixture(sampled)
    half = int(config.size * math.sqrt(1 - sampled)) // 2
    top, bottom = _clipped(int(row * config.size), half, config.size)
    left, right = _clipped(int(column * config.size), half, config.size)
    share = 1 - (bottom - top) * (right - left) / config.size**2
    return Mixture(share, (top, bottom, left, right))


def _clipped(centre: int, half: int, size: int) -> tuple[int, int]:
    return max(centre - half, 0), min(centre + half, size)


def mix(pixels: Tensor, partners: Tensor, mixture: Mixture) -> Tensor:
    """Mix ``pixels`` (B, 3, S, S), uint8 or float32, with ``pixels[partners]``, int64 (B,).

    CutMix overwrites them; MixUp returns float32.
    """
    if mixture.box is None:
        pixels = pixels.float()
        return torch.lerp(pixels.index_select(0, partners), pixels, mixture.weight)
    top, bottom, left, right = mixture.box
    others = pixels.index_select(0, partners)
    pixels[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return pixels
