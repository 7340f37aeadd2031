"""``<dataset>.pictures.json``: grids of distilled and real images, for the page of a board.

:mod:`bench.exchange.nearest_images` draws them from a store; this module imports neither torch nor an imaging library.
"""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bench.api.config import BaseConfig
from bench.errors import UserError

SUFFIX = ".pictures.json"
Count = Annotated[int, Field(ge=1)]


class ImageGrid(BaseConfig):
    """The images of one distilled set: a row per class of pairs of a distilled and a real image.

    ``distance`` is the mean over the pairs of the root mean square difference of their pixels, in grey levels of 256.
    """

    methods: Annotated[tuple[str, ...], Field(min_length=1)]  # those that share this set
    seed: int
    cell: str
    distance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    png: Annotated[str, Field(pattern=r"^iVBORw0KGgo[A-Za-z0-9+/]{20}[A-Za-z0-9+/]*=*$")]  # base64

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the header of the PNG."""
        width, height = struct.unpack(">II", base64.b64decode(self.png[:32])[16:24])
        return width, height


class ImageGrids(BaseConfig):
    """All grids of a data set: of the same classes and as many images per class each, at one IPC."""

    schema_version: Literal[1] = 1
    dataset: str
    ipc: Count
    classes: Annotated[tuple[str, ...], Field(min_length=1)]  # those shown, from top to bottom
    of_classes: Count
    each: Count  # pairs per class
    side: Count  # px of an image as it is shown
    of_side: Count  # px of the images themselves
    sheets: tuple[ImageGrid, ...]

    def render(self) -> str:
        """Return the text of the file: the same for the same grids."""
        return self.model_dump_json(indent=1) + "\n"


def read_grids(path: Path) -> ImageGrids | None:
    """Read the file of a board; None where there is none.

    Raises:
        UserError: it can't be read, or holds something else.
    """
    try:
        return ImageGrids.model_validate_json(path.read_bytes()) if path.exists() else None
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"{path}: {why}; expected pictures as `bench report --pictures` draws them: remove the file and draw them "
            "again"
        ) from None
