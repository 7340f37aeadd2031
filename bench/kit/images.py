"""The images artifact: encoded files as a user would ship them, ``00003/class00003_id00000.jpg`` (RDED's names).

Where images have prompts, ``points.json`` has a [row, column] for each, in the order of the files; where they have
masks, ``masks/`` has a PNG of one bit a pixel for each, under the same name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from bench.api import Images
from bench.kit.data.decoding import decode

Encoding = Literal["jpeg", "png"]
MASKS = "masks"  # the folder of the exact masks
_POINTS = "points.json"
_SUFFIX = {"jpeg": "jpg", "png": "png"}


@dataclass(frozen=True)
class EncodedImages(Images):
    """Images that are files already: :func:`save` keeps their bytes, so that nothing is encoded twice."""

    paths: tuple[Path, ...] = ()


def save(images: Images, folder: Path, encoding: Encoding) -> None:
    """Write every image; JPEG is PIL's default, quality 75 with 4:2:0 chroma, as SRe2L and RDED publish."""
    if images.points is not None:
        text = json.dumps(images.points.tolist(), separators=(",", ":"))
        (folder / _POINTS).write_text(text + "\n", encoding="utf-8")
    seen: dict[int, int] = {}
    files = images.paths if isinstance(images, EncodedImages) else [None] * len(images)
    masks: Sequence[Tensor | None] = [None] * len(images) if images.masks is None else list(images.masks.cpu())
    for pixels, label, file, mask in zip(images.pixels.cpu(), images.labels.tolist(), files, masks, strict=True):
        index = seen.get(label, 0)
        seen[label] = index + 1
        if mask is not None:
            path = folder / MASKS / name(label, index, "png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.numpy().astype(bool)).save(path)
        path = folder / name(label, index, _SUFFIX[encoding] if file is None else file.suffix[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        if file is not None:
            link(file, path)
            continue
        encoded = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(encoded, format=encoding)
        path.write_bytes(encoded.getvalue())


def name(label: int, index: int, suffix: str) -> str:
    """``00003/class00003_id00000.jpg``: the file of image ``index`` of class ``label``."""
    return f"{label:05d}/class{label:05d}_id{index:05d}.{suffix}"


def load(folder: Path) -> EncodedImages:
    """Read what :func:`save` wrote: class-major, uint8 (N, 3, S, S).

    Raises:
        UserError: a file is no whole image; it is named.
    """
    paths = sorted(path for home in sorted(folder.iterdir()) if home.name.isdecimal() for path in home.iterdir())
    pixels = torch.stack([decode(path) for path in paths]).contiguous()
    labels = torch.tensor([int(path.parent.name) for path in paths])
    points = masks = None
    if (folder / _POINTS).is_file():
        points = torch.tensor(json.loads((folder / _POINTS).read_text(encoding="utf-8")))
    if (folder / MASKS).is_dir():
        masks = torch.stack([_mask(folder / MASKS / path.parent.name / f"{path.stem}.png") for path in paths])
    return EncodedImages(pixels, labels, points=points, masks=masks, paths=tuple(paths))


def _mask(path: Path) -> Tensor:
    return (decode(path)[0] > 0).to(torch.uint8)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where there are no links or it lies on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def files_digest(folder: Path) -> str:
    """SHA-256 (hex) of the relative paths and the contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def quantise(pixels: torch.Tensor) -> torch.Tensor:
    """Float pixels (N, 3, S, S) in [0, 1] → uint8 by truncation, as the field's methods do (``(x * 255).astype``).

    Values are clamped first: RDED does not, and a -1e-8 would wrap around to 255.
    """
    return pixels.clamp(0, 1).mul(255).to(torch.uint8)
