"""A distilled set as one picture: a line of images per class, drawn from the encoded files, without torch."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.errors import UserError
from bench.files import write_atomically
from bench.kit.data.decoding import opened, rgb

MOST_CLASSES, MOST_EACH = 100, 20  # lines and columns of a picture that still opens in any viewer
_SMALLEST_TILE = 48  # px; smaller images are enlarged by a whole factor, so that their pixels stay square
_GAP = 2
_BACK, _INK = (255, 255, 255), (90, 90, 90)


def draw(folder: Path, target: Path) -> str:
    """Draw the images of an images artifact (a folder per class) into a PNG file, atomically.

    Returns:
        What the picture shows: ``10 classes × 10 images (of 50)``.

    Raises:
        UserError: an image can't be read, or ``target`` can't be written.
    """
    classes = [sorted(home.iterdir()) for home in sorted(folder.iterdir()) if home.is_dir()]
    tiles = [[read(path) for path in files[:MOST_EACH]] for files in classes[:MOST_CLASSES]]
    side = max(max(tile.size) for line in tiles for tile in line)
    factor = -(-_SMALLEST_TILE // side)
    step, font = side * factor + _GAP, ImageFont.load_default()
    margin = round(max(font.getlength(str(number)) for number in range(len(tiles)))) + 2 * _GAP + 2
    each, of_each = max(map(len, tiles)), max(map(len, classes))
    grid = Image.new("RGB", (margin + each * step, len(tiles) * step + _GAP), _BACK)
    pen = ImageDraw.Draw(grid)
    for row, line in enumerate(tiles):
        top = _GAP + row * step
        pen.text((margin - _GAP - 2, top + side * factor // 2), str(row), fill=_INK, font=font, anchor="rm")
        for column, tile in enumerate(line):
            enlarged = tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
            grid.paste(enlarged, (margin + column * step, top))
    encoded = io.BytesIO()
    grid.save(encoded, format="png", optimize=True)
    try:
        if not target.absolute().parent.is_dir():
            raise FileNotFoundError(2, "No such file or directory")
        write_atomically(target, encoded.getvalue())
    except OSError as error:
        raise UserError(f"{target} can't be written: {error.strerror}; name another file") from None
    shown = [(len(tiles), len(classes), "classes"), (each, of_each, "images")]
    return " × ".join(f"{some} {what}" + (f" (of {whole})" if some < whole else "") for some, whole, what in shown)


def read(path: Path) -> Image.Image:
    """Read an image file as RGB.

    Raises:
        UserError: it is no readable image.
    """
    with opened(path) as image:
        return rgb(image)
