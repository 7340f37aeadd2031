"""The store: every artifact in its own folder, content-addressed and atomic.

::

    STORE/cells/ID/        artifact files and record.json; a folder here is complete, or damaged from outside
    STORE/drafts/ID.XXXX/  an artifact that is being written, or removed; few, so that removing stale ones is cheap
    STORE/work/ID/         checkpoints of unfinished work; outlives a kill, removed when the cell is done
    STORE/failures/ID.json the failure of the last attempt
    STORE/grids/ID.json    the requested grids
    STORE/leases/ STORE/heartbeats/
    STORE/verified/        stamps of large files whose digest was compared
    STORE/format.json      the number of this layout and of the identities in it

An artifact is written as a draft, flushed to the disk, and renamed; ``record.json`` is its last file.
What has no record does not exist.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from bench.errors import UserError
from bench.files import UMASK, sha256_of, write_atomically
from bench.store.record import FileFacts, Record
from bench.store.sealing import read_sealed

RECORD = "record.json"
FORMAT = 3  # raise it when identities or the layout change: an older store is then named and left alone
_LARGE = 2**26  # bytes of a file that is not hashed again while it stays the same


class Damaged(Exception):
    """An artifact is there but is not what its record says; the message names the file."""


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> dict[str, Path]:
    """List every file of an artifact by its relative path, record.json left out."""
    start = len(f"{folder}/")
    paths = sorted(f"{place}/{name}" for place, _, names in os.walk(folder) for name in names)
    found = {path[start:]: Path(path) for path in paths}
    return {name: path for name, path in found.items() if name != RECORD and path.is_file()}


class Store:
    """The artifacts and records under one root folder.

    Raises:
        UserError: the root can't be made or written to, or holds a store of another format.
    """

    def __init__(self, root: Path):
        self.root = root.absolute()
        try:
            if (found := self._format()) != FORMAT:
                raise UserError(
                    f"the store {root} has format {found}, and this release reads and writes format {FORMAT}; it is "
                    "left as it is: choose another with --store, or remove it"
                )
            for name in ("cells", "drafts", "work", "failures", "grids", "leases", "heartbeats"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the store {root} can't be used: {error.strerror}; choose another with --store") from None

    def _format(self) -> int:
        """Read the format of the store: 1 where an older release has left cells; in a new store ours is noted."""
        marker = self.root / "format.json"
        try:
            return int(json.loads(marker.read_bytes())["format"])
        except FileNotFoundError:
            if any((self.root / "cells").glob("*")):
                return 1
            write_atomically(marker, json.dumps({"format": FORMAT}) + "\n")
            return FORMAT
        except (ValueError, KeyError, TypeError, RecursionError):
            return 0  # nobody's

    def folder(self, cell_id: str) -> Path:
        """Return the folder of the finished artifact of a cell."""
        return self.root / "cells" / cell_id

    def ids(self, kind: Literal["cells", "failures", "heartbeats"]) -> set[str]:
        """List the cells that have an artifact, a failure or a heartbeat: one look for a whole grid."""
        with os.scandir(self.root / kind) as entries:
            names = {entry.name for entry in entries if not entry.name.startswith(".")}
        return names if kind == "cells" else {one.removesuffix(".json") for one in names if one.endswith(".json")}

    def work(self, cell_id: str) -> Path:
        """Return the scratch folder of a cell, made if need be."""
        folder = self.root / "work" / cell_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def record(self, cell_id: str) -> Record | None:
        """Read the record of a finished cell; None where there is none.

        Raises:
            Damaged: the folder is there but its record can't be read.
        """
        place = f"cells/{cell_id}/{RECORD}"  # with plain text for paths: grids have thousands of cells
        try:
            try:
                text = read_sealed(f"{self.root}/{place}")
            except FileNotFoundError:
                if not self.folder(cell_id).exists():
                    return None
                text = read_sealed(self.root / place)  # the folder came in between; else its record is missing
            record = Record.parse(text)
        except (OSError, ValueError) as error:
            raise Damaged(f"{place}: {str(error).splitlines()[0]}") from None
        if record.id != cell_id or record.cell.id != cell_id:
            raise Damaged(f"{place} is the record of {record.id}")
        return record

    def failure(self, cell_id: str) -> Record | None:
        """Read what went wrong the last time this cell was tried; None where nothing did."""
        try:
            return Record.parse(read_sealed(self.root / "failures" / f"{cell_id}.json"))
        except (OSError, ValueError):
            return None

    def records(self) -> Iterator[Record]:
        """Yield every readable record, finished and failed, in the order of the ids."""
        finished = self.ids("cells")
        for cell_id in sorted(finished):
            with suppress(Damaged):
                if (record := self.record(cell_id)) is not None:
                    yield record
        for cell_id in sorted(self.ids("failures") - finished):
            if (failed := self.failure(cell_id)) is not None:
                yield failed

    def verify(self, record: Record) -> None:
        """Compare every file of an artifact with its digest.

        Raises:
            Damaged: a file is missing, added or changed.
        """
        present = _files(self.folder(record.id))
        if odd := sorted(present.keys() ^ record.files.keys()):
            raise Damaged(f"{record.id}/{odd[0]} is {'unknown' if odd[0] in present else 'missing'}")
        for name, facts in record.files.items():
            path = present[name]
            if path.stat().st_size != facts.bytes or not self._is_whole(path, facts.sha256):
                raise Damaged(f"{record.id}/{name} is not what its record says")

    def whole(self, cell_id: str) -> Record:
        """Read the record of an artifact that is to be shown or handed on, and compare its files with it.

        Raises:
            UserError: there is none, or it is damaged.
        """
        try:
            if (record := self.record(cell_id)) is None:
                raise UserError(f"{cell_id} is not in {self.root}; bench run makes it")
            self.verify(record)
        except Damaged as damage:
            raise UserError(f"{damage}; bench run makes it again") from None
        return record

    def _is_whole(self, path: Path, sha256: str) -> bool:
        """Compare a file with its digest; a large one once, as long as its inode, size and time of change are the same.

        A hundred students of a set would each read all of its stored labels.
        """
        found = path.stat()
        if found.st_size < _LARGE:
            return sha256_of(path) == sha256
        facts = f"{path} {sha256} {found.st_ino} {found.st_size} {found.st_mtime_ns}"
        stamp = self.root / "verified" / hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()
        if not stamp.exists():
            if sha256_of(path) != sha256:
                return False
            stamp.parent.mkdir(exist_ok=True)
            stamp.touch()
        return True

    @contextmanager
    def draft(self, cell_id: str) -> Iterator[Path]:
        """Make a temp folder to write an artifact in; it is removed on the way out unless :meth:`commit` took it.

        The caller holds the lease of the cell, so drafts that are there already are those of killed workers.
        """
        self.remove_stale_drafts(cell_id)
        folder = Path(tempfile.mkdtemp(dir=self.root / "drafts", prefix=f"{cell_id}."))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove_stale_drafts(self, cell_id: str) -> None:
        """Remove the drafts of a cell, of whoever holds no lease on it any more."""
        for draft in (self.root / "drafts").glob(f"{glob.escape(cell_id)}.*"):
            shutil.rmtree(draft, ignore_errors=True)

    @staticmethod
    def facts(folder: Path) -> dict[str, FileFacts]:
        """Return size and digest of every file under ``folder``, by relative path."""
        files = _files(folder)
        return {name: FileFacts(bytes=path.stat().st_size, sha256=sha256_of(path)) for name, path in files.items()}

    def commit(self, draft: Path, record: Record) -> None:
        """Make a draft the artifact of its cell: flush, write the record last, rename."""
        for path in _files(draft).values():
            _flush(path)
        write_atomically(draft / RECORD, record.text)
        self.discard(record.id)
        draft.chmod(0o777 & ~UMASK)
        draft.rename(self.folder(record.id))
        _flush(self.root / "cells")
        (self.root / "failures" / f"{record.id}.json").unlink(missing_ok=True)
        shutil.rmtree(self.root / "work" / record.id, ignore_errors=True)

    def fail(self, record: Record) -> None:
        """Keep what went wrong with a cell."""
        write_atomically(self.root / "failures" / f"{record.id}.json", record.text)

    def discard(self, cell_id: str) -> None:
        """Remove an artifact; atomic for whoever looks at the same time."""
        folder = self.folder(cell_id)
        if folder.exists():
            trash = Path(tempfile.mkdtemp(dir=self.root / "drafts", prefix=f"{cell_id}.old."))
            folder.rename(trash / "artifact")
            shutil.rmtree(trash, ignore_errors=True)
