"""Random views of a batch of icons, which make a network trained on icons useful on other small images.

    images = augment(pixels, generator)    # (B, 32, 32) uint8, dark on white -> (B, 3, 32, 32) float, normalised

Icons come in grey and get their colours here: nine in ten have none of their own. No flips: left and right are
names of icons.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

MEAN, STD = 0.5, 0.5


def normalise(pixels: Tensor) -> Tensor:
    """Normalise grey (B, H, W) uint8 -> (B, 3, H, W) float32, at the model's mean and deviation."""
    return ((pixels.float() / 255.0 - MEAN) / STD)[:, None].expand(-1, 3, -1, -1)


def augment(pixels: Tensor, generator: Generator) -> Tensor:
    """Change pose, stroke width, resolution, fill texture, colours and noise, each drawn per image or per eighth."""
    ink = 1.0 - pixels[:, None].float() / 255.0  # (B, 1, 32, 32); 0 where the paper is, so zero padding is paper
    ink = _affine(ink, generator)
    for change in (_thicker, _thinner, _low_resolution, _blurred):
        # A part of the batch at a time; the batch is shuffled, so a slice is a random choice.
        first = int(_random(1, generator) * len(ink))
        part = slice(first, first + len(ink) // 8)
        ink[part] = change(ink[part], generator)
    images = _coloured(ink, generator)
    strength = 0.06 * _random((len(images), 1, 1, 1), generator)
    noisy = _random((len(images), 1, 1, 1), generator) < 0.4
    images.add_(torch.randn(ink.shape, generator=generator) * strength * noisy).clamp_(0, 1)
    return images.sub_(MEAN).div_(STD).contiguous(memory_format=torch.channels_last)


def _random(shape: int | tuple[int, ...], generator: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _affine(ink: Tensor, generator: Generator) -> Tensor:
    count = len(ink)
    angle = torch.randn(count, generator=generator) * 0.15  # radians; 95 % within 17 degrees
    zoom = _random(count, generator, 0.85, 1.45)  # of the sampling grid: above 1 shrinks the icon
    aspect = _random(count, generator, 0.85, 1.18)
    shear = torch.randn(count, generator=generator) * 0.12
    cosine, sine = angle.cos(), angle.sin()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = zoom * aspect * cosine, zoom * (shear - sine)
    theta[:, 1, 0], theta[:, 1, 1] = zoom * sine, zoom / aspect * cosine
    theta[:, :, 2] = _random((count, 2), generator, -0.15, 0.15)
    grid = F.affine_grid(theta, list(ink.shape), align_corners=False)
    return F.grid_sample(ink, grid, align_corners=False)


def _thicker(ink: Tensor, generator: Generator) -> Tensor:
    share = _random((len(ink), 1, 1, 1), generator)
    return torch.lerp(ink, F.max_pool2d(ink, 3, stride=1, padding=1), share)


def _thinner(ink: Tensor, generator: Generator) -> Tensor:
    # Halfway to the eroded icon: a full erosion at 32 px would erase outline icons.
    return 0.5 * ink - 0.5 * F.max_pool2d(-ink, 3, stride=1, padding=1)


def _low_resolution(ink: Tensor, generator: Generator) -> Tensor:
    size = (8, 10, 12, 16)[int(_random(1, generator) * 4)]
    return F.interpolate(F.interpolate(ink, size=size, mode="area"), size=ink.shape[-1], mode="bilinear")


def _blurred(ink: Tensor, generator: Generator) -> Tensor:
    return F.avg_pool2d(ink, 3, stride=1, padding=1, count_include_pad=False)


def _coloured(ink: Tensor, generator: Generator) -> Tensor:
    """Paper and ink colours: a quarter black on white, a third white on black, the rest greys and colours."""
    count = len(ink)
    paper, pen = _random((count, 3, 1, 1), generator), _random((count, 3, 1, 1), generator)
    kind = _random((count, 1, 1, 1), generator)
    grey = kind < 0.8
    paper, pen = torch.where(grey, paper[:, :1], paper), torch.where(grey, pen[:, :1], pen)
    paper = torch.where(kind < 0.25, torch.ones(()), torch.where(kind < 0.6, torch.zeros(()), paper))
    pen = torch.where(kind < 0.25, torch.zeros(()), torch.where(kind < 0.6, torch.ones(()), pen))
    # An icon in nearly the colour of its paper cannot be named by anyone: push such pairs apart.
    difference = (pen - paper).mean(dim=1, keepdim=True)
    push = (0.4 - difference.abs()).clamp_min(0) * torch.where(difference < 0, -0.5, 0.5)
    paper, pen = (paper - push).clamp(0, 1), (pen + push).clamp(0, 1)
    # Photographs have shading where icons are flat: some icons are filled with smooth random grey.
    shading = F.interpolate(_random((count, 1, 4, 4), generator, 0.3, 1.0), size=ink.shape[-1], mode="bilinear")
    shaded = _random((count, 1, 1, 1), generator) < 0.3
    return paper + ink * torch.where(shaded, shading, torch.ones(())) * (pen - paper)
