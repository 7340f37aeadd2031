"""Named data sets: the plug-ins of the group ``bench.datasets``; torch-free."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.api.dataset import DatasetInfo
from bench.api.plugins import Group
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from bench.api.dataset import Dataset

DATA_ROOT_VARIABLE = "DISTILL_BENCH_DATA"


@dataclass(frozen=True)
class Listing:
    """The images below ``root`` by class: class id -> sorted relative paths."""

    root: Path
    files: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class ImageFiles:
    """The image files of both splits, with the same classes in class order; ``words`` are these as words."""

    train: Listing
    val: Listing
    words: tuple[str, ...]


class DatasetPlugin(ABC):
    """A data set: its facts, without torch, and its images.

    The entry point's name is the data set's. With ``argument`` the plug-in stands for many: users write
    ``NAME:ARGUMENT`` (``folder:PATH``), and the names in its facts begin with ``NAME-``.
    """

    argument: ClassVar[str] = ""  # what follows the colon, e.g. "PATH"
    title: ClassVar[str] = ""  # of a plug-in with an argument, for ``bench list datasets``

    def __init__(self, name: str):
        self.name = name  # as the user wrote it

    @abstractmethod
    def info(self) -> DatasetInfo:
        """Return what is known of the data set before its images are read.

        Raises:
            UserError: there is no such data set.
        """

    def files(self, root: Path) -> ImageFiles | None:
        """List the image files of the data set; None where it is none of image files, and :meth:`load` reads it.

        They are hashed, watched for changes, and read into memory or per batch, as they fit. Torch-free.

        Raises:
            UserError: the data are missing or incomplete.
        """
        return None

    def load(self, info: DatasetInfo, root: Path) -> Dataset:
        """Read a data set that is none of image files. Import torch inside.

        Raises:
            UserError: the data are missing, incomplete, or broken.
        """
        raise NotImplementedError(f"the data set {self.name} overrides neither files nor load")

    def root(self, data_root: Path | None) -> Path:
        """Return the folder that :meth:`load` reads from: ``data_root`` or its default."""
        return (data_root or default_data_root()).expanduser()

    def locate(self, root: Path) -> str:
        """Say where the data are.

        Raises:
            UserError: they are missing; the message says where to get them and where to put them.
        """
        return "generated when it is read"

    def check_counts(self, info: DatasetInfo, root: Path, classes: int, train: int, test: int) -> None:
        """Refuse data whose counts are not those of the facts.

        Raises:
            UserError: what was found, and what was expected.
        """
        expected = info.classes, info.train_images, info.test_images
        if (classes, train, test) != expected:
            found, wanted = (
                f"{one[0]} classes, {one[1]} training and {one[2]} test images"
                for one in ((classes, train, test), expected)
            )
            raise UserError(f"{self.name} has {found}, not {wanted} as its facts say; get or build the data again")


def own_folder(kind: Literal["cache", "config"]) -> Path | None:
    """Return this package's folder below ``$XDG_CACHE_HOME`` or ``$XDG_CONFIG_HOME``, else below the home folder.

    None for a user without a home: no HOME, and no entry in the password file.
    """
    chosen = Path(os.environ.get(f"XDG_{kind.upper()}_HOME", ""))
    try:  # a relative path is invalid (XDG Base Directory Specification)
        return (chosen if chosen.is_absolute() else Path.home() / f".{kind}") / "distill-bench"
    except RuntimeError:
        return None


def default_data_root() -> Path:
    """Return ``$DISTILL_BENCH_DATA``, else ``~/.cache/distill-bench/data``."""
    if chosen := os.environ.get(DATA_ROOT_VARIABLE):
        return Path(os.path.expanduser(chosen))  # noqa: PTH111 - Path's own fails without a home
    if (cache := own_folder("cache")) is None:
        raise UserError(
            f"this user has no home folder to hold data sets; name a folder by --data-root or ${DATA_ROOT_VARIABLE}"
        )
    return cache / "data"


PLUGINS: Group[type[DatasetPlugin]] = Group("bench.datasets", "data set", DatasetPlugin, ["argument"])


def names() -> tuple[str, ...]:
    """Return the names of all data sets that take no argument."""
    return tuple(name for name, plugin in PLUGINS.usable.items() if not plugin.argument)


def plugin(name: str) -> DatasetPlugin:
    """Return the plug-in for a data set, by the name that the user wrote or the one in its facts.

    Raises:
        UserError: the name is unknown, or its plug-in cannot be used.
    """
    known = PLUGINS.usable
    if name in PLUGINS and (name not in known or not known[name].argument):
        return PLUGINS.get(name)(name)
    for prefix, kind in known.items():
        if kind.argument and name.startswith((f"{prefix}:", f"{prefix}-")):
            return kind(name)
    raise unknown("data set", name, [f"{one}:{kind.argument}" if kind.argument else one for one, kind in known.items()])


def dataset(name: str) -> DatasetInfo:
    """Return what is known of a data set before its images are read; refuse a name as :func:`plugin` does."""
    return plugin(name).info()


def root_of(name: str, data_root: Path | None = None) -> Path:
    """Return the folder from which a data set that the user called ``name`` is read."""
    return plugin(name).root(data_root)


def locate(name: str, data_root: Path | None = None) -> str:
    """Say where the data of ``name`` are; refuse data that are missing."""
    found = plugin(name)
    return found.locate(found.root(data_root))
