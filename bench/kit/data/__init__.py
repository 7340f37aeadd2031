"""Real data: reading what the plug-ins of ``bench.datasets`` describe. Importing this package imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.api import DatasetInfo, catalogue
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.api import Dataset
    from bench.kit.data.contents import Contents

__all__ = ["load", "scan"]


def scan(info: DatasetInfo, data_root: Path | None = None) -> Contents | None:
    """Hash the image files of a data set; None where it is none of files. Torch-free.

    Raises:
        UserError: the data are missing or incomplete, or not those that ``info`` was made of.
    """
    from bench.kit.data.contents import contents_of

    plugin = catalogue.plugin(info.name)
    root = data_root if data_root is not None else plugin.root(None)
    if (files := plugin.files(root)) is None:
        return None
    counts = (sum(map(len, part.files.values())) for part in (files.train, files.val))
    if info.fingerprint is None:
        plugin.check_counts(info, root, len(files.train.files), *counts)
    found = contents_of(files)
    if info.fingerprint not in (None, found.digest):
        raise UserError(f"{root}: its files are not those that were planned with; start the run again")
    return found


def load(info: DatasetInfo, data_root: Path | None = None, kept: Path | None = None) -> Dataset:
    """Read a data set; image files are read when their split is first used, and again per batch where they are many.

    Args:
        data_root: that of ``root_of``.
        kept: the file in which a store keeps what :func:`scan` found; then nothing is listed.

    Raises:
        UserError: the data are missing (where to get them and where to put them), incomplete or broken (which file),
            or not those that ``info`` was made of.
    """
    from bench.kit.data.contents import Contents
    from bench.kit.data.dataset import FileDataset

    if (found := Contents.load(kept) if kept else scan(info, data_root)) is not None:
        return FileDataset(info, found, kept)
    plugin = catalogue.plugin(info.name)
    root = data_root if data_root is not None else plugin.root(None)
    made = plugin.load(info, root)
    plugin.check_counts(info, root, len(made.ids), len(made.train), len(made.test))
    return made
