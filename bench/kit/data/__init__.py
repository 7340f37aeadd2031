"""Real data: reading what the plug-ins of ``bench.datasets`` describe. Importing this package imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.api import DatasetInfo, catalogue

if TYPE_CHECKING:
    from bench.api import Dataset

__all__ = ["load"]


def load(info: DatasetInfo, data_root: Path | None = None) -> Dataset:
    """Read a data set, or list its files where it is too large for memory; ``data_root`` is that of ``root_of``.

    Raises:
        UserError: the data are missing (where to get them and where to put them), incomplete or broken (which file),
            or not those that ``info`` was made of.
    """
    plugin = catalogue.plugin(info.name)
    return plugin.load(info, data_root if data_root is not None else plugin.root(None))
