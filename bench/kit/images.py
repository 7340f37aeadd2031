"""The images artifact: encoded files as a user would ship them, ``00003/class00003_id00000.jpg`` (RDED's names)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from bench.contract import Images
from bench.kit.data.decoding import decode

Encoding = Literal["jpeg", "png"]
_SUFFIX = {"jpeg": "jpg", "png": "png"}


def save(images: Images, folder: Path, encoding: Encoding) -> None:
    """Write every image; JPEG is PIL's default, quality 75 with 4:2:0 chroma, as SRe2L and RDED publish."""
    seen: dict[int, int] = {}
    for pixels, label in zip(images.pixels.cpu(), images.labels.tolist(), strict=True):
        index = seen.get(label, 0)
        seen[label] = index + 1
        home = folder / f"{label:05d}"
        home.mkdir(parents=True, exist_ok=True)
        encoded = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(encoded, format=encoding)
        path = home / f"class{label:05d}_id{index:05d}.{_SUFFIX[encoding]}"
        path.write_bytes(encoded.getvalue())


def load(folder: Path) -> Images:
    """Read what :func:`save` wrote: class-major, uint8 (N, 3, S, S).

    Raises:
        UserError: a file is no whole image; it is named.
    """
    paths = sorted(path for home in sorted(folder.iterdir()) if home.is_dir() for path in home.iterdir())
    pixels = torch.stack([decode(path) for path in paths]).contiguous()
    return Images(pixels, torch.tensor([int(path.parent.name) for path in paths]))


def quantise(pixels: torch.Tensor) -> torch.Tensor:
    """Float pixels (N, 3, S, S) in [0, 1] → uint8 by truncation, as the field's methods do (``(x * 255).astype``).

    Values are clamped first: RDED does not, and a -1e-8 would wrap around to 255.
    """
    return pixels.clamp(0, 1).mul(255).to(torch.uint8)
