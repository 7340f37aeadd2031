"""Contents of a data set's image files: a hash of each, and a digest of all with their classes; torch-free.

A file is read once. Its hash is remembered in the user's cache and believed for as long as size, times, and inode of
the file are what they were; a file that was changed just before it was read is not. A store keeps the contents that
its cells are made from, so that cells list nothing and notice an image that changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.api.catalogue import ImageFiles, Listing, own_folder
from bench.errors import UserError
from bench.files import replaced, write_atomically
from bench.kit.data.decoding import processors

HASH = 16  # bytes
YOUNG = 2 * 10**9  # ns; a file system's clock may stand still for as long
WORTH_KEEPING = 1.0  # seconds of reading
CHUNK = 1000  # files
SPLITS = ("train", "val")
BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # what reading a damaged file raises

Hashes = NDArray[np.uint8]  # (N, HASH)


class DataChanged(UserError):
    """An image is not what the run was planned with; the cell that reads it fails."""


@dataclass(frozen=True)
class Part:
    """One split: its files class by class, relative to ``root``, their stamps and their hashes."""

    root: Path
    counts: NDArray[np.int64]  # (C,)
    names: bytes | bytearray  # joined by NUL
    stamps: NDArray[np.uint64]  # (N,) of size, times and inode; 0: none to believe
    hashes: Hashes


@dataclass(frozen=True)
class Contents:
    """The image files of both splits; ``ids`` are the classes and ``words`` their names, in class order."""

    digest: str  # BLAKE2b (hex, 128 bit) of the hashes, with split and class; places and names of files are not in it
    ids: tuple[str, ...]
    words: tuple[str, ...]
    parts: Mapping[str, Part]

    def save(self, folder: Path, name: str) -> Path:
        """Write them into ``folder`` and return the file, whose name follows from the data set and its folders."""
        roots = [str(part.root) for part in self.parts.values()]
        path = folder / f"{name}-{self.digest}-{_short(json.dumps(roots).encode()).hex()[:8]}.npz"
        facts = json.dumps([self.digest, self.ids, self.words, roots]).encode()
        arrays: dict[str, NDArray[Any]] = {"facts": np.frombuffer(facts, np.uint8)}
        for split, part in self.parts.items():
            arrays[f"{split}.names"] = np.frombuffer(part.names, np.uint8)
            arrays |= {f"{split}.{key}": getattr(part, key) for key in ("counts", "stamps", "hashes")}
        with replaced(path) as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        return path

    @classmethod
    def load(cls, path: Path) -> Contents:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: the file is gone or damaged.
        """
        try:
            with np.load(path) as held:
                digest, ids, words, roots = json.loads(held["facts"].tobytes())
                parts = {}
                for split, root in zip(SPLITS, roots, strict=True):
                    names, *rest = (held[f"{split}.{key}"] for key in ("names", "counts", "stamps", "hashes"))
                    parts[split] = Part(Path(root), rest[0], names.tobytes(), rest[1], rest[2])
        except BROKEN as error:
            raise UserError(f"{path} can't be read ({error}); run the same command again to make it anew") from None
        found = cls(digest, tuple(ids), tuple(words), parts)
        if _digest(found.ids, parts) != found.digest:
            raise UserError(f"{path} is damaged; run the same command again to make it anew")
        return found


class CheckedPaths(Sequence[Path]):
    """Paths of images, each checked when it is taken: a changed one raises :class:`DataChanged`."""

    def __init__(self, part: Part, names: Sequence[str] | None = None):
        self.root, self.stamps, self.hashes = part.root, part.stamps, part.hashes
        self.names = part.names.decode("utf-8", "surrogateescape").split("\0") if names is None else names

    def __len__(self) -> int:
        return len(self.names)

    def some(self, places: NDArray[np.int64] | range) -> CheckedPaths:
        """Return those at some places."""
        part = Part(self.root, np.empty(0, np.int64), b"", self.stamps[places], self.hashes[places])
        return CheckedPaths(part, [self.names[place] for place in places])

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]
        path = f"{self.root}/{self.names[index]}"
        try:
            same = _stamp(path) == self.stamps[index] or _hash(path) == self.hashes[index].tobytes()
        except OSError as error:
            raise DataChanged(f"{path} can't be read ({error.strerror}); put it back, or start the run again") from None
        if not same:
            raise DataChanged(f"{path} has changed since the run was planned; put it back, or start the run again")
        return Path(path)


def contents_of(files: ImageFiles, cache: Path | None = None) -> Contents:
    """Hash image files, those alone that are not known to be what they were.

    Args:
        cache: the folder that remembers hashes; None: that of the user, if there is one.

    Raises:
        UserError: a file can't be read.
    """
    started = time.monotonic()
    if cache is None and (own := own_folder("cache")) is not None:  # without a home folder nothing is remembered
        cache = own / "contents"
    parts, read = {}, 0
    for split, listing in zip(SPLITS, (files.train, files.val), strict=True):
        where = _short(str(listing.root.absolute()).encode("utf-8", "surrogateescape")).hex()
        kept = cache / f"{where}.npz" if cache else None
        parts[split], fresh = _read(listing, kept)
        read += fresh
        if fresh and kept and time.monotonic() - started > WORTH_KEEPING:
            with suppress(OSError):  # it only saves time
                part = parts[split]
                names = {"names": np.frombuffer(part.names, "u1"), "named": np.frombuffer(_short(part.names), "u1")}
                with replaced(kept) as stream:
                    np.savez(stream, allow_pickle=False, stamps=part.stamps, hashes=part.hashes, **names)
    ids = tuple(files.train.files)
    return Contents(_digest(ids, parts), ids, files.words, parts)


def is_whole(path: Path) -> bool:
    """Tell whether a file is what was written: its ``.sum`` holds a hash, and the stamp with which that is believed."""
    total = path.with_suffix(".sum")
    try:
        digest, stamp = total.read_text(encoding="utf-8").split()
        if stamp == (now := str(_stamp(str(path)))):
            return True
        whole = _hash(str(path)).hex() == digest
    except (OSError, ValueError):
        return False
    with suppress(OSError):
        if whole:  # it was renamed, touched or copied
            write_atomically(total, f"{digest} {now}")
    return whole


def _read(listing: Listing, kept: Path | None) -> tuple[Part, int]:
    """Return a split, and how many of its files were read."""
    now, root = time.time_ns(), listing.root.absolute()
    names = [name for files in listing.files.values() for name in files]
    blob = _joined(listing.files.values())
    counts = np.array([len(files) for files in listing.files.values()], np.int64)
    try:
        stamps = np.fromiter((_stamp(f"{root}/{name}", now) for name in names), np.uint64, len(names))
        hashes = np.zeros((len(names), HASH), np.uint8)
        unknown = np.flatnonzero(~_remembered(kept, names, blob, stamps, hashes))
        parts = np.array_split(unknown, -(-len(unknown) // CHUNK) or 1)
        with ThreadPoolExecutor(processors()) as pool:
            for some, values in zip(parts, pool.map(partial(_hash_all, root, names), parts), strict=True):
                hashes[some] = values
    except OSError as error:
        raise UserError(f"{error.filename} can't be read ({error.strerror}); put a whole copy in its place") from None
    return Part(root, counts, blob, stamps, hashes), len(unknown)


def _remembered(
    kept: Path | None, names: list[str], blob: bytearray, stamps: NDArray[np.uint64], hashes: Hashes
) -> NDArray[np.bool_]:
    """Fill in the hashes of files that are what they were, and say which these are."""
    known = np.zeros(len(names), bool)
    if kept is None or not kept.is_file():
        return known
    try:
        with np.load(kept) as held:
            there, then = held["stamps"], held["hashes"]
            if held["named"].tobytes() == _short(blob):
                known |= (there == stamps) & (stamps != 0)
                hashes[:] = then
                return known
            place_of = {name: place for place, name in enumerate(_unpacked(held["names"]))}
        places = np.array([place_of.get(name, -1) for name in names], np.int64)
        known |= (places >= 0) & (there[places] == stamps) & (stamps != 0)
        hashes[known] = then[places[known]]
    except (*BROKEN, IndexError):
        known[:] = False
    return known


def _joined(groups: Iterable[Iterable[str]]) -> bytearray:
    return bytearray(b"\0").join("\0".join(names).encode("utf-8", "surrogateescape") for names in groups)


def _short(blob: bytes | bytearray) -> bytes:
    return hashlib.blake2b(blob, digest_size=HASH).digest()


def _hash_all(root: Path, names: list[str], places: NDArray[np.int64]) -> Hashes:
    return np.frombuffer(b"".join(_hash(f"{root}/{names[place]}") for place in places), np.uint8).reshape(-1, HASH)


def _stamp(path: str, now: int | None = None) -> int:
    """Return a number of 64 bits that changes with size, times or inode of a file; 0 of one younger than ``now``."""
    facts = os.stat(path)  # noqa: PTH116 - pathlib takes twice as long, and there may be a million
    if now is not None and max(facts.st_mtime_ns, facts.st_ctime_ns) > now - YOUNG:
        return 0
    return hash((facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)) % 2**64


def _hash(path: str) -> bytes:
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=HASH)).digest()


def _digest(ids: Iterable[str], parts: Mapping[str, Part]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for split, part in parts.items():
        ends = part.counts.cumsum()
        for index, (name, count, end) in enumerate(zip(ids, part.counts, ends, strict=True)):
            digest.update(f"{split}\0{index}\0{name}\0{count}\0".encode())
            digest.update(part.hashes[end - count : end].tobytes())
    return digest.hexdigest()


def _unpacked(array: Hashes) -> tuple[str, ...]:
    return tuple(array.tobytes().decode("utf-8", "surrogateescape").split("\0"))
