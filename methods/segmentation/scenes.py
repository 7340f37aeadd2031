"""Small scenes of icons pasted on backgrounds, with exact masks, for promptable segmentation.

A sample is a scene, one of the two to four icons in it, and a point on that icon, the prompt. Its mask is what of the
icon is in sight, exactly: an icon becomes a sticker, its drawing with all it encloses, and every pixel of a scene shows
one sticker or the background, never a blend. Its class is the icon's. The training scenes show drawings of the training
sets of icons-100 and the test scenes those of its test sets, which are other designers'.

Nothing is downloaded or kept: the scenes are made from the icons of icons-100 in a few seconds whenever the set is
read, by whole-number arithmetic on the words of a counter-based generator, so the same icons make the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bench.api import Dataset, DatasetInfo, TeacherSpec, seed_for
from bench.errors import UserError
from bench.kit.data.dataset import Resident
from bench.kit.data.decoding import decode_all
from bench.kit.data.listing import list_classes
from methods.segmentation.config import MASKS, POINTS, SHRINKS, TASK
from methods.segmentation.masks import channels_of

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# concepts of icons-100 that nearly every set draws as one closed shape
CLASSES = ("apple", "bell", "book", "camera", "car", "cloud", "gift", "heart", "lock", "star")

SIZE = 64  # pixels of the icons of icons-100
PAPER = 208  # grey from which on a pixel of an icon is ground
SMALLEST_STICKER = 0.12  # of the icon's square; smaller ones are a stroke, not a thing
SIDES = (18, 34)  # pixels of a sticker's longer side, from and below, in a scene of 64
MOST = 4  # icons per scene
IN_SIGHT = 0.4  # of the prompted icon, at least; else it is laid on top
NOISE = 48  # range of the ground's grain, of 256
_WORDS = 64  # draws per scene, of which some are to spare


def read_scenes(info: DatasetInfo, place: Path) -> Dataset:
    """Make icon-scenes of the icons in the folder of icons-100.

    Raises:
        UserError: a class has no folder or no icon fit for a scene, or an icon cannot be decoded.
    """
    splits = []
    for split, folder, count in (("train", "train", info.train_images), ("test", "val", info.test_images)):
        listing = list_classes(place / folder, {name: name for name in CLASSES})
        stickers = []
        for files in listing.files.values():
            icons = decode_all([listing.root / path for path in files], SIZE).permute(0, 2, 3, 1).numpy()
            stickers.append(stickers_of(icons))
            if not stickers[-1]:
                raise UserError(
                    f"{listing.root / Path(files[0]).parent}: no icon there is fit for a scene; build it anew"
                )
        splits.append(make_scenes(stickers, count, info.image_size, seed_for("icon-scenes", split)))
    return Dataset(info, CLASSES, CLASSES, *splits)


Sticker = tuple[Bytes, Mask]  # grey (h, w) from ink, 0, to paper, 255; and the shape (h, w), which touches all sides


def stickers_of(icons: Bytes) -> list[Sticker]:
    """Cut stickers out of drawings (N, S, S, 3), dark on white: the largest connected part with all it encloses.

    A drawing without a part of some size gives none.
    """
    found = []
    for icon in icons:
        grey = icon.min(2)  # light colours are ink too
        parts, count = ndimage.label(ndimage.binary_fill_holes(grey < PAPER))
        if count == 0:
            continue
        sizes = np.bincount(parts.ravel())[1:]
        if sizes.max() < SMALLEST_STICKER * parts.size:
            continue
        shape = parts == 1 + int(sizes.argmax())
        box = ndimage.find_objects(shape.astype(np.int8))[0]
        found.append((grey[box], shape[box]))
    return found


def make_scenes(stickers: Sequence[Sequence[Sticker]], count: int, size: int, seed: int) -> Resident:
    """Make ``count`` scenes of ``size`` pixels per side; sample i prompts for a sticker of class i modulo C."""
    words = np.random.Philox(key=seed).random_raw(count * _WORDS).reshape(count, _WORDS) >> np.uint64(32)
    pixels = np.empty((count, size, size, 3), dtype=np.uint8)
    masks = np.empty((count, size, size), dtype=bool)
    for index, draws in enumerate(words.tolist()):
        grain = np.random.Philox(key=seed, counter=[0, 0, 0, index + 1]).random_raw(size * size // 8)
        pixels[index], masks[index] = _scene(stickers, index % len(stickers), size, iter(draws), grain.view(np.uint8))
    return with_masks(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.arange(count) % len(stickers),
        torch.tensor([innermost(mask) for mask in masks]),
        torch.from_numpy(masks).to(torch.uint8),
    )


def with_masks(pixels: torch.Tensor, labels: torch.Tensor, points: torch.Tensor, masks: torch.Tensor) -> Resident:
    """Keep prompts (N, 2) and masks (N, H, W) with images, and cut them with them as extra channels."""
    extras = {POINTS: points, MASKS: masks}
    return Resident(pixels, labels, extras, channels_of(extras, *pixels.shape[2:]))


def example_data() -> Dataset:
    """Make tiny scenes of rectangles for the conformance checks."""
    sides, side = ((4, 4), (2, 4), (4, 2), (3, 4)), 16
    info = DatasetInfo(
        name="rectangles", title="Rectangles with masks", task=TASK, classes=len(sides), image_size=side,
        label_shape=(side // SHRINKS,) * 2, smallest_class=12, train_images=48, test_images=24, mean=(0.5,) * 3,
        std=(0.25,) * 3, teacher=TeacherSpec(), clip="icon-clip", student="promptable-w4",
    )  # fmt: skip
    stickers = [[(np.zeros(shape, dtype=np.uint8), np.ones(shape, dtype=bool))] for shape in sides]
    names = tuple(f"{height} by {width}" for height, width in sides)
    return Dataset(info, names, names, make_scenes(stickers, 48, side, 0), make_scenes(stickers, 24, side, 1))


Draws = Iterator[int]  # the words of a scene, 32 random bits each, in order


def _below(draws: Draws, bound: int) -> int:
    return next(draws) * bound >> 32


def _colour(draws: Draws) -> NDArray[np.int64]:
    return np.array([_below(draws, 256) for _ in range(3)])


def _scene(
    stickers: Sequence[Sequence[Sticker]], wanted: int, size: int, draws: Draws, grain: Bytes
) -> tuple[Bytes, Mask]:
    """Draw a scene uint8 (S, S, 3) and the mask (S, S) of its icon of class ``wanted``."""
    image, mean = _ground(size, draws, grain)
    others = [index for index in range(len(stickers)) if index != wanted]
    shown = [wanted] + [others.pop(_below(draws, len(others))) for _ in range(1 + _below(draws, MOST - 1)) if others]
    shown.insert(_below(draws, len(shown)), shown.pop(0))  # what comes later lies above
    laid = [_laid(stickers[index], size, mean, draws) for index in shown]
    place = shown.index(wanted)
    above = np.zeros((size, size), dtype=bool)
    for _, shape in laid[place + 1 :]:
        above |= shape
    mask = laid[place][1]
    if (mask & ~above).sum() < IN_SIGHT * mask.sum():
        laid.append(laid.pop(place))
    else:
        mask = mask & ~above
    for colours, shape in laid:
        image[shape] = colours[shape]
    return image, mask


def _ground(size: int, draws: Draws, grain: Bytes) -> tuple[Bytes, NDArray[np.int64]]:
    """Draw a grained background uint8 (S, S, 3), a slope of four colours, stripes or squares; and its mean colour."""
    down, right = np.indices((size, size))
    one, other, third, fourth = (_colour(draws) for _ in range(4))
    kind, period = _below(draws, 3), 3 + _below(draws, 10)
    flat: NDArray[np.int64]
    if kind == 0:
        a, b = (place[..., None].astype(np.int64) * 256 // size for place in (down, right))
        left, right_side = one * (256 - a) + other * a, third * (256 - a) + fourth * a
        flat = np.right_shift((left * (256 - b) + right_side * b).astype(np.int64), 16)
    else:
        slanted = down + right if _below(draws, 2) else down
        odd = (slanted // period if kind == 1 else down // period + right // period) % 2
        two = np.stack([(one + other) // 2, one])  # not too far apart
        flat = two[odd]
    grained = flat + (grain.reshape(size, size, 1).astype(np.int64) - 128) * NOISE // 256
    return grained.clip(0, 255).astype(np.uint8), flat.mean((0, 1)).astype(np.int64)


def _laid(stickers: Sequence[Sticker], size: int, ground: NDArray[np.int64], draws: Draws) -> tuple[Bytes, Mask]:
    """Colour and place a sticker in a scene: its colours uint8 (S, S, 3) and its shape (S, S)."""
    grey, shape = stickers[_below(draws, len(stickers))]
    side = (SIDES[0] + _below(draws, SIDES[1] - SIDES[0])) * size // SIZE
    height, width = (max(2, length * side // max(shape.shape)) for length in shape.shape)
    small_shape = _resized(shape.astype(np.uint8) * 255, height, width) >= 128
    small_grey = _resized(np.where(shape, grey, 255).astype(np.uint8), height, width).astype(np.int64)
    body = _colour(draws)
    if np.abs(body - ground).sum() < 150:  # hardly to be seen
        body = (body + 128) % 256
    ink = body // 3 if _below(draws, 2) else (body + 2 * 255) // 3
    top, left = _below(draws, size - height + 1), _below(draws, size - width + 1)
    window = np.s_[top : top + height, left : left + width]
    colours, placed = np.zeros((size, size, 3), dtype=np.uint8), np.zeros((size, size), dtype=bool)
    colours[window] = ink + (body - ink) * small_grey[..., None] // 255
    placed[window] = small_shape
    return colours, placed


def _resized(values: Bytes, height: int, width: int) -> Bytes:
    """Average over boxes; Pillow does it in whole numbers."""
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BOX))


def innermost(mask: Mask) -> tuple[int, int]:
    """Return row and column of the pixel of a mask that is farthest from its outside, the image's included.

    Of several it is the first.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = divmod(int(depth.argmax()), mask.shape[1])
    return row, column
