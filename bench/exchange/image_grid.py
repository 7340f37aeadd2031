"""A distilled set as one picture: a line of images for each class, drawn from the encoded files, without torch."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from bench.errors import UserError
from bench.kit.data.image_folders import UNREADABLE, unreadable

MOST_CLASSES, MOST_EACH = 100, 20  # lines and columns of a sheet that still opens in any viewer
_SMALLEST_TILE = 48  # px; smaller images are enlarged by a whole factor, so that their pixels stay square
_GAP = 2
_BACK, _INK = (255, 255, 255), (90, 90, 90)


class Drawn(NamedTuple):
    """What a sheet shows of a set."""

    classes: int
    of_classes: int
    each: int  # images of a class
    of_each: int

    def __str__(self) -> str:
        """For instance ``10 classes × 10 images (of 50)``."""
        lines = f"{self.classes} classes" + (f" (of {self.of_classes})" if self.classes < self.of_classes else "")
        return f"{lines} × {self.each} images" + (f" (of {self.of_each})" if self.each < self.of_each else "")


def draw(folder: Path, target: Path) -> Drawn:
    """Draw the images of a distilled set into a PNG file, atomically.

    Args:
        folder: an images artifact, a folder for each class.

    Raises:
        UserError: an image can't be read, or ``target`` can't be written.
    """
    classes = [sorted(home.iterdir()) for home in sorted(folder.iterdir()) if home.is_dir()]
    longest = max(map(len, classes))
    drawn = Drawn(min(len(classes), MOST_CLASSES), len(classes), min(longest, MOST_EACH), longest)
    shown = [files[:MOST_EACH] for files in classes[:MOST_CLASSES]]
    tiles = [[_read(path) for path in files] for files in shown]
    side = max(max(tile.size) for line in tiles for tile in line)
    factor = -(-_SMALLEST_TILE // side)
    step = side * factor + _GAP
    font = ImageFont.load_default()
    margin = round(max(font.getlength(str(number)) for number in range(len(tiles)))) + 2 * _GAP + 2
    sheet = Image.new("RGB", (margin + drawn.each * step, len(tiles) * step + _GAP), _BACK)
    pen = ImageDraw.Draw(sheet)
    for row, line in enumerate(tiles):
        top = _GAP + row * step
        pen.text((margin - _GAP - 2, top + side * factor // 2), str(row), fill=_INK, font=font, anchor="rm")
        for column, tile in enumerate(line):
            enlarged = tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (margin + column * step, top))
    _write(sheet, target)
    return drawn


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error


def _write(sheet: Image.Image, target: Path) -> None:
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as stream:
            sheet.save(stream, format="png", optimize=True)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(f"{target} can't be written: {error.strerror}; name another file") from None
