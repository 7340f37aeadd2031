"""The data sets that the benchmark knows by name, and folders of the user's; torch-free, for planning.

Reads ``catalogue.toml`` beside this file and lists the folder of ``folder:PATH``. Writes nothing.
``bench.kit.data.load`` reads the images themselves.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from bench.api.config import BaseConfig
from bench.api.dataset import DatasetInfo
from bench.api.image_folders import folder_info
from bench.errors import UserError, unknown

DATA_ROOT_VARIABLE = "DISTILL_BENCH_DATA"
FOLDER = "folder:"


class Source(BaseConfig):
    """Where a data set comes from.

    ``page`` names where to get it, ``layout`` what must lie there, ``places`` the folders that may hold it:
    relative to the data root (an absolute one stands for itself), tried in order. ``exact``: are the counts
    in the catalogue those of every complete copy?
    """

    page: str
    layout: str
    places: tuple[str, ...]
    exact: bool = True


def default_data_root() -> Path:
    """``$DISTILL_BENCH_DATA``, else ``~/.cache/distill-bench/data``."""
    chosen = os.environ.get(DATA_ROOT_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "distill-bench" / "data"


def names() -> tuple[str, ...]:
    """The names of the catalogue; ``folder:PATH`` is valid beside them."""
    return tuple(_tables())


def dataset(name: str, data_root: Path | None = None) -> DatasetInfo:
    """What is known of a data set before its images are read.

    Args:
        name: one of :func:`names`; or ``folder:PATH``, which is listed (see
            :func:`bench.api.image_folders.folder_info`); a relative PATH starts from the working folder.
        data_root: not looked at: the facts of the catalogue hold for every complete copy.

    Raises:
        UserError: the name is unknown, or the folder is no data set.
    """
    if name.startswith(FOLDER):
        return folder_info(root_of(name))
    return _info(_known(name))


def source(name: str) -> Source:
    """Where the data set ``name`` of the catalogue comes from.

    Raises:
        UserError: the name is unknown.
    """
    return Source(**_tables()[_known(name)]["source"])


def root_of(name: str, data_root: Path | None = None) -> Path:
    """The ``data_root`` to hand to ``bench.kit.data.load`` for a data set that the user called ``name``: for
    ``folder:PATH`` the folder itself, else ``data_root`` or its default."""
    if name.startswith(FOLDER):
        return Path(name.removeprefix(FOLDER)).expanduser()
    return (data_root or default_data_root()).expanduser()


def locate(name: str, data_root: Path | None = None) -> Path:
    """The folder that holds the data set ``name`` of the catalogue; ``digits``, being embedded, has none.

    Raises:
        UserError: there is none; the message says where to get the data and where to put it.
    """
    root, wanted = root_of(name, data_root), source(name)
    for place in wanted.places:
        if (root / place).is_dir():
            return root / place
    raise UserError(
        f"{name} is not under {root}; get it from {wanted.page} and put it into {root / wanted.places[0]} "
        f"({wanted.layout}), or name another folder by --data-root or ${DATA_ROOT_VARIABLE}"
    )


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))


def _known(name: str) -> str:
    if name not in _tables():
        raise unknown("data set", name, (*names(), f"{FOLDER}PATH"))
    return name


def _info(name: str) -> DatasetInfo:
    facts = {key: value for key, value in _tables()[name].items() if key != "source"}
    return DatasetInfo(name=name, **facts)
