"""The store: every artifact in its own folder, content-addressed and atomic.

::

    STORE/cells/ID/        artifact files and record.json; a folder here is complete, or damaged from outside
    STORE/work/ID/         checkpoints of unfinished work; outlives a kill, removed when the cell is done
    STORE/failures/ID.json what went wrong the last time
    STORE/grids/ID.json    the grids that were asked for
    STORE/leases/ STORE/heartbeats/

An artifact is written into a temp folder, flushed to the disk, and renamed; ``record.json`` is its last file.
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
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from bench.errors import UserError
from bench.harness.record import FileFacts, Record

RECORD = "record.json"
_UMASK = os.umask(0)  # it can only be read by setting it
os.umask(_UMASK)


class Damaged(Exception):
    """An artifact is there but is not what its record says; the message names the file."""


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that a reader, or a kill at any moment, finds the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            os.fchmod(handle, 0o666 & ~_UMASK)  # mkstemp's files are for their owner alone; colleagues read ours
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECORD)


class Store:
    """The artifacts and records under one root folder.

    Raises:
        UserError: the root can't be made or written to.
    """

    def __init__(self, root: Path):
        self.root = root.absolute()
        try:
            for name in ("cells", "work", "failures", "grids", "leases", "heartbeats"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the store {root} can't be used: {error.strerror}; choose another with --store") from None

    def folder(self, cell_id: str) -> Path:
        """Where the finished artifact of a cell lies."""
        return self.root / "cells" / cell_id

    def work(self, cell_id: str) -> Path:
        """The scratch folder of a cell, made if need be."""
        folder = self.root / "work" / cell_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def record(self, cell_id: str) -> Record | None:
        """The record of a finished cell; None where there is none.

        Raises:
            Damaged: the folder is there but its record can't be read.
        """
        path = self.folder(cell_id) / RECORD
        if not path.parent.exists():
            return None
        try:
            record = Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise Damaged(f"{path.relative_to(self.root)}: {str(error).splitlines()[0]}") from None
        if record.id != cell_id or record.cell.id != cell_id:
            raise Damaged(f"{path.relative_to(self.root)} is the record of {record.id}")
        return record

    def failure(self, cell_id: str) -> Record | None:
        """What went wrong the last time this cell was tried; None where nothing did."""
        try:
            return Record.model_validate_json((self.root / "failures" / f"{cell_id}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def records(self) -> Iterator[Record]:
        """Every readable record, finished and failed, in the order of the ids."""
        for path in sorted((self.root / "cells").glob(f"*/{RECORD}")):
            try:
                record = self.record(path.parent.name)
            except Damaged:
                continue
            if record is not None:
                yield record
        for path in sorted((self.root / "failures").glob("*.json")):
            failed = self.failure(path.stem)
            if failed is not None and not self.folder(path.stem).exists():
                yield failed

    def verify(self, record: Record) -> None:
        """Hold every file of an artifact against its digest.

        Raises:
            Damaged: a file is missing, added or changed.
        """
        folder = self.folder(record.id)
        present = {str(path.relative_to(folder)) for path in _files(folder)}
        if odd := sorted(present ^ set(record.files)):
            raise Damaged(f"{record.id}/{odd[0]} is {'unknown' if odd[0] in present else 'missing'}")
        for name, facts in record.files.items():
            path = folder / name
            if path.stat().st_size != facts.bytes or sha256_of(path) != facts.sha256:
                raise Damaged(f"{record.id}/{name} is not what its record says")

    @contextmanager
    def draft(self, cell_id: str) -> Iterator[Path]:
        """A temp folder to write an artifact in; it is removed on the way out unless :meth:`commit` took it.

        The caller holds the lease of the cell, so drafts that are there already are those of killed workers.
        """
        self.sweep(cell_id)
        folder = Path(tempfile.mkdtemp(dir=self.root / "cells", prefix=f".{cell_id}."))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, cell_id: str) -> None:
        """Remove the drafts of a cell, of whoever holds no lease on it any more."""
        for draft in (self.root / "cells").glob(f".{glob.escape(cell_id)}.*"):
            shutil.rmtree(draft, ignore_errors=True)

    @staticmethod
    def facts(folder: Path) -> dict[str, FileFacts]:
        """Size and digest of every file under ``folder``, by relative path."""
        return {
            str(path.relative_to(folder)): FileFacts(bytes=path.stat().st_size, sha256=sha256_of(path))
            for path in _files(folder)
        }

    def commit(self, draft: Path, record: Record) -> None:
        """Make a draft the artifact of its cell: flush, write the record last, rename."""
        for path in _files(draft):
            _flush(path)
        write_atomically(draft / RECORD, record.model_dump_json(indent=1) + "\n")
        self.discard(record.id)
        draft.chmod(0o777 & ~_UMASK)
        draft.rename(self.folder(record.id))
        _flush(self.root / "cells")
        (self.root / "failures" / f"{record.id}.json").unlink(missing_ok=True)
        shutil.rmtree(self.root / "work" / record.id, ignore_errors=True)

    def fail(self, record: Record) -> None:
        """Keep what went wrong with a cell."""
        write_atomically(self.root / "failures" / f"{record.id}.json", record.model_dump_json(indent=1) + "\n")

    def discard(self, cell_id: str) -> None:
        """Remove an artifact; atomic for whoever looks at the same time."""
        folder = self.folder(cell_id)
        if folder.exists():
            grave = Path(tempfile.mkdtemp(dir=self.root / "cells", prefix=f".{cell_id}.old."))
            folder.rename(grave / "artifact")
            shutil.rmtree(grave, ignore_errors=True)

    def beat(self, cell_id: str, facts: dict[str, object]) -> None:
        """Note the progress of a running cell; for people only, so it isn't flushed."""
        path = self.root / "heartbeats" / f"{cell_id}.json"
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(facts), encoding="utf-8")
        temporary.replace(path)

    def heartbeat(self, cell_id: str) -> dict[str, object] | None:
        """The last progress of a running cell."""
        try:
            found: dict[str, object] = json.loads((self.root / "heartbeats" / f"{cell_id}.json").read_bytes())
            return found
        except (OSError, ValueError):
            return None

    def still(self, cell_id: str) -> None:
        """The cell is no longer running: forget its heartbeat."""
        (self.root / "heartbeats" / f"{cell_id}.json").unlink(missing_ok=True)
