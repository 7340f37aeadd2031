"""The images artifact: encoded files as a user would ship them, ``00003/class00003_id00000.jpg`` (RDED's names).

Extras of images are in ``extras/``: maps of whole numbers as one PNG per image under the same name, with a bit per
pixel where all are 0 or 1; short rows of whole numbers as one JSON list in the order of the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.api import Images
from bench.files import sha256_of
from bench.kit.data.decoding import decode_all, opened
from bench.kit.validation import check_finite

Encoding = Literal["jpeg", "png"]
EXTRAS = "extras"
_SUFFIX = {"jpeg": ".jpg", "png": ".png"}


@dataclass(frozen=True)
class EncodedImages(Images):
    """Images that are files already: :func:`save` keeps their bytes, so that nothing is encoded twice."""

    paths: tuple[Path, ...] = ()


def save(images: Images, folder: Path, encoding: Encoding) -> None:
    """Write every image and its extras; JPEG is PIL's default, quality 75 with 4:2:0 chroma, as SRe2L and RDED publish.

    Raises:
        ValueError: an extra is neither rows (N, K) of whole numbers nor uint8 maps (N, H, W).
    """
    paths = images.paths if isinstance(images, EncodedImages) else [None] * len(images)
    stems = _stems(images.labels)
    for stem, pixels, file in zip(stems, images.pixels.cpu(), paths, strict=True):
        path = _make_home(folder / f"{stem}{file.suffix if file else _SUFFIX[encoding]}")
        if file:
            link(file, path)
        else:
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path, format=encoding)
    for key, extra in images.extras.items():
        if extra.dim() == 2 and not extra.is_floating_point():
            text = json.dumps(extra.tolist(), separators=(",", ":"))
            _make_home(folder / EXTRAS / f"{key}.json").write_text(text + "\n", encoding="utf-8")
        elif extra.dim() == 3 and extra.dtype == torch.uint8:
            maps = extra.cpu().numpy()
            for stem, values in zip(stems, maps.astype(bool) if maps.max(initial=0) <= 1 else maps, strict=True):
                Image.fromarray(values).save(_make_home(folder / EXTRAS / key / f"{stem}.png"))
        else:
            raise ValueError(f"extra {key!r} is {extra.dtype} {tuple(extra.shape)}; expected rows or uint8 maps")


def name(label: int, index: int, suffix: str) -> str:
    """Return the file of image ``index`` of class ``label``: ``00003/class00003_id00000.jpg``."""
    return f"{label:05d}/class{label:05d}_id{index:05d}.{suffix}"


def load(folder: Path) -> EncodedImages:
    """Read what :func:`save` wrote: class-major, uint8 (N, 3, S, S).

    Raises:
        UserError: a file is no whole image; it is named.
    """
    paths = sorted(path for home in sorted(folder.iterdir()) if home.name.isdecimal() for path in home.iterdir())
    with opened(paths[0]) as first:
        pixels = decode_all(paths, first.width)
    labels = torch.tensor([int(path.parent.name) for path in paths])
    extras = {}
    for path in sorted((folder / EXTRAS).iterdir()) if (folder / EXTRAS).is_dir() else ():
        if path.is_dir():
            maps = [_read_map(path / image.parent.name / f"{image.stem}.png") for image in paths]
            extras[path.name] = torch.stack(maps)
        else:
            extras[path.stem] = torch.tensor(json.loads(path.read_text(encoding="utf-8")))
    return EncodedImages(pixels, labels, extras, paths=tuple(paths))


def is_label(path: str) -> bool:
    """Tell whether a file of the artifact, by its relative path, belongs to a map, which is a dense hard label."""
    home, *rest = path.split("/")
    return home == EXTRAS and len(rest) > 1


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where there are no links or the file systems differ."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def files_digest(folder: Path) -> str:
    """Return the SHA-256 (hex) of the relative paths and the contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def quantise(pixels: Tensor) -> Tensor:
    """Turn float pixels (N, 3, S, S) in [0, 1] into uint8 by truncation, as the field does (``(x * 255).astype``).

    Values are clamped first: RDED does not, and a -1e-8 would wrap around to 255.

    Raises:
        InvalidResult: they are not finite.
    """
    check_finite({"pixels": pixels}, "a synthetic image")
    return pixels.clamp(0, 1).mul(255).to(torch.uint8)


def _stems(labels: Tensor) -> list[str]:
    """Return the relative paths of images without suffix."""
    numbers: defaultdict[int, count[int]] = defaultdict(count)
    return [name(label, next(numbers[label]), "")[:-1] for label in labels.tolist()]


def _make_home(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _read_map(path: Path) -> Tensor:
    with opened(path) as image:
        return torch.from_numpy(np.array(image).astype(np.uint8))
