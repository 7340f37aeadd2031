"""Image files as pixels: the one way to open them, decoding one or many, and checking that all are whole.

An image is JPEG, PNG, BMP, PPM, TIFF or WEBP, whatever its name says, with one frame. It is turned as its EXIF says,
whole numbers of more bits are scaled by their depth (65,535 becomes 255), transparency is laid on white, and CMYK is
converted without a profile, which is ignored as in the field. Decoding imports torch, opening does not.

A long check leaves a stamp below ``~/.cache/distill-bench/checked``: an empty file named by a digest of the contents.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from bench.api.catalogue import own_folder
from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MOST_NAMED = 5  # broken files in one message
MOST_CHECKED = 100_000  # files; from here on a broken one is found when it is read
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")  # no other decoder of Pillow's is tried: EPS runs Ghostscript
MOST_PIXELS = 2**26  # of one image: 192 MiB in RGB; more is taken for a decompression bomb
FAINTEST = 2  # of 255: an image whose pixels differ by no more shows nothing
BACKGROUND = "white"  # behind transparent images
_MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "F"))
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _LOWEST, _HIGHEST = 258, 262, 339, 340, 341  # tags (TIFF 6.0)
_SIGNED = 2  # a sample format
_TURNS = {
    place: getattr(Image.Transpose, name)
    for place, name in enumerate(
        ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"), 2
    )
}  # EXIF's orientation -> what undoes it
WORTH_A_STAMP = 5.0  # seconds; faster checks are repeated each time


def processors() -> int:
    """Count the processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open the image at ``path``, with its header read and its pixels not.

    Raises:
        UserError: it cannot be opened, or not be decoded within the block; the file is named.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            raise UserError("not a regular file; remove it")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(f"{image.width} x {image.height} px are more than {MOST_PIXELS:,} pixels; resize it")
            if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's previews
                raise UserError("it holds several frames and one is expected; keep one of them")
            yield image
    except UserError as error:
        raise UserError(f"{path}: not a usable image: {error}") from None
    except Exception as error:  # decoders raise whatever a broken file makes them trip over
        reason = str(error).replace(str(path), "").strip(" ':") or type(error).__name__
        reason = re.sub(r"^decode_jpeg, \S+, ", "", reason)  # the place in torchvision's source
        if isinstance(error, UnidentifiedImageError):
            reason = f"not one of {', '.join(FORMATS)}"
        raise UserError(
            f"{path}: not a readable image ({reason}); put a whole copy in its place or remove it"
        ) from error


def rgb(image: Image.Image) -> Image.Image:
    """Return an opened image upright, in RGB of 8 bits, on white where it is transparent.

    Raises:
        UserError: floating-point or negative pixels, whose range nothing states.
    """
    if image.mode not in _MODES and not image.mode.startswith("I"):
        raise UserError(f"its pixels are {image.mode}; convert it to RGB")
    image.load()
    with suppress(Exception):  # broken EXIF is no reason to refuse the pixels
        image = image.transpose(_TURNS[image.getexif()[ExifTags.Base.Orientation]])
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_of_depth(image)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> bool:
    with suppress(Exception):
        return bool(image.getexif().get(ExifTags.Base.Orientation, 1) == 1)
    return False


def _of_depth(image: Image.Image) -> NDArray[np.uint8]:
    """Scale grey of 16 or 32 bits to 8; a TIFF states its depth, its sign, and perhaps the range of its values."""
    tags = getattr(image, "tag_v2", {})
    bits, kind = tags.get(_BITS, (16,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0]
    values: NDArray[Any] = np.array(image)
    clear = values == image.info.get("transparency")
    if kind == 1 and bits == 32 and values.dtype == np.int32:
        values = values.view(np.uint32)
    low, high = 0.0, 2.0 ** (bits - (kind == _SIGNED)) - 1
    if _LOWEST in tags and _HIGHEST in tags:
        low, high = (float(np.ravel(tags[tag])[0]) for tag in (_LOWEST, _HIGHEST))
    elif image.mode == "F":
        raise UserError("floating-point pixels without a range; store whole numbers of 8 or 16 bits")
    if not (np.isfinite(values).all() and low < high and values.min() >= low):
        raise UserError(f"pixels outside of {low:g} to {high:g}; store whole numbers of 8 or 16 bits")
    shares = (values.astype(np.float64) - low) / (high - low)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        shares = 1 - shares
    scaled: NDArray[np.uint8] = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return np.where(clear, np.uint8(255), scaled)


def decode(path: Path) -> Tensor:
    """Decode the image at ``path`` as RGB, uint8 (3, H, W); a UserError names one that is missing or broken.

    A JPEG that needs no conversion is decoded by torchvision, to the pixels of Pillow in half its time: both use
    libjpeg-turbo, and builds of it may differ by a level.
    """
    import torch  # here: plans open images, too
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    with opened(path) as image:
        if image.format == "JPEG" and image.mode in ("RGB", "L") and _upright(image):
            decoded: Tensor = decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB)
            return decoded
        pixels = np.array(rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decode_all(paths: Sequence[Path], size: int) -> Tensor:
    """Decode images that are all ``size`` pixels square: uint8 (N, 3, S, S); a UserError names those broken."""
    import torch

    pixels = torch.empty((len(paths), 3, size, size), dtype=torch.uint8)

    def fill(place: int) -> None:
        pixels[place] = decode(paths[place])

    with counting_broken(paths), ThreadPoolExecutor(processors()) as pool:
        list(pool.map(fill, range(len(paths))))
    return pixels


def common_side(paths: Sequence[Path]) -> int:
    """Return the side in pixels of images that are all squares of one size, else 0."""
    side = 0
    with counting_broken(paths):
        for path in paths:
            with opened(path) as image:
                side = side or image.width
                if image.size != (side, side):
                    return 0
    return side


@contextmanager
def counting_broken(paths: Iterable[Path]) -> Iterator[None]:
    """Refuse all broken files where one stops the block, as :func:`check_all` does."""
    try:
        yield
    except UserError:
        if len(some := [*islice(paths, MOST_CHECKED)]) < MOST_CHECKED:
            check_all(some)
        raise


def check_all(paths: Sequence[Path], contents: str = "", stamps: Path | None = None) -> None:
    """Decode every file once, so that a broken one is found before anything is computed.

    JPEGs are decoded at an eighth of their size, which reads every byte for a third of the time. A check that
    took long is remembered by a digest of the ``contents``, below ``stamps`` or the cache of the user.

    Raises:
        UserError: files cannot be decoded; they are counted, and the first are named.
    """
    stamps = stamps or own_folder("cache")  # None: without a home folder, the check is not remembered
    stamp = stamps / "checked" / contents if stamps is not None and contents else None
    if stamp is not None and stamp.exists():
        return
    started = time.monotonic()
    with ThreadPoolExecutor(processors()) as pool:
        broken = [*filter(None, pool.map(_check, paths))]
    if broken:
        count = f"{len(broken):,} of {len(paths):,} images cannot be read, e.g. " if len(broken) > 1 else ""
        raise UserError(count + "; ".join(broken[:MOST_NAMED]))
    if stamp is not None and time.monotonic() - started > WORTH_A_STAMP:
        with suppress(OSError):  # a stamp only saves time
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.touch()


def _check(path: Path) -> str:
    """Say what is wrong with an image file; empty: nothing."""
    try:
        with opened(path) as image:
            image.draft("RGB", (1, 1))
            rgb(image)
    except UserError as error:
        return str(error)
    return ""


def check_varied(classes: Mapping[str, Sequence[Path]]) -> None:
    """Refuse a class of constant images, and a set that is nearly of one colour: values were lost on the way.

    Raises:
        UserError: there is one, or an image cannot be decoded.
    """

    def varied(paths: Sequence[Path]) -> tuple[NDArray[Any], NDArray[Any]] | None:
        for path in paths:  # nearly always the first will do
            with opened(path) as image:
                pixels = np.asarray(rgb(image))
            if np.ptp(pixels, axis=(0, 1)).max() > FAINTEST:
                return pixels.mean(axis=(0, 1)), pixels.var(axis=(0, 1))
        return None

    found = []
    with ThreadPoolExecutor(processors()) as pool:
        for (name, paths), moments in zip(classes.items(), pool.map(varied, classes.values()), strict=True):
            found.append(moments)
            if moments is None:
                raise UserError(
                    f"class {name!r}: every image is of one colour, e.g. {paths[0]}: no pixels differ by more than "
                    f"{FAINTEST} of 255; check how the files were made, or remove the class"
                )
    means, variances = (np.stack(part) for part in zip(*filter(None, found), strict=True))
    if (std := np.sqrt((means.var(axis=0) + variances.mean(axis=0)).max())) < FAINTEST:
        raise UserError(
            f"the images hardly differ: over an image per class their std is {std:.1f} of 255, e.g. "
            f"{next(iter(classes.values()))[0]}; values of fewer bits than the files' depth must be scaled to it"
        )
