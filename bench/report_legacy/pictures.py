"""``<dataset>.pictures.json``: small sheets of distilled images beside real ones, which a page shows.

Like the entries they are kept beside the boards, because pages are made again where there is no store. They are
drawn by :mod:`bench.exchange.nearest_images`; this module imports neither torch nor an imaging library.
"""

from __future__ import annotations

import base64
import binascii
import struct
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from bench.api import BaseConfig
from bench.errors import UserError
from bench.store.artifacts import write_atomically

SUFFIX = ".pictures.json"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Sheet(BaseConfig):
    """The images of one distilled set: a line for each class, in it pairs of a distilled and a real image.

    ``distance`` is the mean over the pairs of the root mean square difference of their pixels, in grey levels of
    256; of a method that hands out real images it is what encoding them costs.
    """

    methods: Annotated[tuple[str, ...], Field(min_length=1)]  # those that share this set
    seed: int
    cell: str
    distance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    png: str  # base64

    @field_validator("png")
    @classmethod
    def _is_a_picture(cls, text: str) -> str:
        try:
            head = base64.b64decode(text, validate=True)[:24]
        except binascii.Error as error:
            raise ValueError(f"is not base64: {error}") from None
        if not head.startswith(_SIGNATURE) or len(head) < 24:
            raise ValueError("is not a PNG")
        return text

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the header of the PNG."""
        width, height = struct.unpack(">II", base64.b64decode(self.png[:32])[16:24])
        return width, height


class Pictures(BaseConfig):
    """All sheets of a data set: of the same classes and as many images a class each, at one IPC."""

    schema_version: Literal[1] = 1
    dataset: str
    ipc: Annotated[int, Field(ge=1)]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]  # those shown, from top to bottom
    of_classes: Annotated[int, Field(ge=1)]
    each: Annotated[int, Field(ge=1)]  # pairs a line
    side: Annotated[int, Field(ge=1)]  # px of an image as it is shown
    of_side: Annotated[int, Field(ge=1)]  # px of the images themselves
    sheets: tuple[Sheet, ...]


def render_pictures(pictures: Pictures) -> str:
    """The text of the file: the same for the same pictures."""
    return pictures.model_dump_json(indent=1) + "\n"


def write_pictures(path: Path, pictures: Pictures) -> None:
    """Write the file, atomically.

    Raises:
        UserError: it can't be written.
    """
    try:
        write_atomically(path, render_pictures(pictures))
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}; choose another folder") from None


def read_pictures(path: Path) -> Pictures | None:
    """What :func:`write_pictures` wrote; None where there is no such file.

    Raises:
        UserError: the file can't be read, or holds something else.
    """
    try:
        return Pictures.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}; remove it, or make it readable") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path}: {field}: {first['msg']}; expected pictures as `bench report` draws them: remove the file and "
            "draw them again"
        ) from None
