"""The data sets of ``catalogue.toml``: facts, and the folders in which their files belong; torch-free."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api import BaseConfig, DatasetInfo
from bench.api.catalogue import DATA_ROOT_VARIABLE, DatasetPlugin, ImageFiles
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.api import Dataset


class Source(BaseConfig):
    """The origin of a data set, and the function that reads it.

    ``page`` names where to get it, ``layout`` its files, and ``places`` the folders below the data root that may hold
    them, tried in order (an absolute one stands for itself). ``exact`` says whether every complete copy has the counts
    of the catalogue. ``reader`` is a function of this package, ``module:name``.
    """

    page: str
    layout: str
    reader: str
    places: tuple[str, ...] = ()
    exact: bool = True


class Packaged(DatasetPlugin):
    """A data set of the catalogue."""

    def info(self) -> DatasetInfo:
        facts = {key: value for key, value in _tables()[self.name].items() if key != "source"}
        return DatasetInfo(name=self.name, **facts)

    @property
    def source(self) -> Source:
        """Its origin."""
        return Source(**_tables()[self.name]["source"])

    def root(self, data_root: Path | None) -> Path:
        return super().root(data_root) if self.source.places or data_root else Path()  # embedded: not read

    def locate(self, root: Path) -> str:
        return str(self._folder(root)) if self.source.places else self.source.page

    def files(self, root: Path) -> ImageFiles | None:
        if not self.source.reader.startswith("image_folders:"):
            return None
        found: ImageFiles = self._reader()(self._folder(root))
        return found

    def load(self, info: DatasetInfo, root: Path) -> Dataset:
        made: Dataset = self._reader()(info, self._folder(root) if self.source.places else root)
        return made

    def check_counts(self, info: DatasetInfo, root: Path, classes: int, train: int, test: int) -> None:
        found, expected = {"classes": classes}, {"classes": info.classes}
        if self.source.exact:
            found |= {"training images": train, "test images": test}
            expected |= {"training images": info.train_images, "test images": info.test_images}
        if found != expected:
            has, lacks = (", ".join(f"{n} {kind}" for kind, n in counts.items()) for counts in (found, expected))
            raise UserError(f"{self.locate(root)}: holds {has}, expected {lacks} of {self.name}; unpack it again")

    def _folder(self, root: Path) -> Path:
        source = self.source
        for place in source.places:
            if (root / place).is_dir():
                return root / place
        raise UserError(
            f"{self.name} is not under {root}; get it from {source.page} and put it into {root / source.places[0]} "
            f"({source.layout}), or name another folder by --data-root or ${DATA_ROOT_VARIABLE}"
        )

    def _reader(self) -> Callable[..., Any]:
        module, _, function = self.source.reader.partition(":")
        read: Callable[..., Any] = getattr(import_module(f"bench.kit.data.{module}"), function)
        return read


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
