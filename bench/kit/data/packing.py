"""Images as files of squares, uint8 (N, S, S, 3), that are mapped into memory instead of decoded; torch-free to import.

``bench data NAME --pack S`` makes a data set of them, in a folder in which ``packed.json`` is written last; a store
keeps the test views of a set of image files. One process writes a file and others wait. It appears whole or not at all:
a killed writer leaves a draft, with the digest after every batch, from which the next goes on. A file that is not what
its ``.sum`` says, a digest and the stamp with which that is believed, is written anew.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.api import DatasetInfo
from bench.api.catalogue import ImageFiles, Listing
from bench.errors import UserError
from bench.files import write_atomically
from bench.kit.data.contents import CheckedPaths, Contents, contents_of, is_whole

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Split

TRAIN, VAL, SQUARES, CARD, CONTENTS = "train", "val", "squares.u8", "train/packed.json", "contents.npz"
_PACKED = "packed squares"  # stands for all classes, as no folder is called
BATCH = 256  # images between two digests
MOST_SHARES = 16  # processes that may share a test
_ANEW = "each cell decodes the test images anew: %s"
log = logging.getLogger("bench")

Progress = Callable[[int, int], None]  # images written, images in all


class Squares:
    """Images of a file of squares, uint8 (3, S, S) each; ``places`` int64 (N,) says which."""

    def __init__(self, path: Path, size: int, places: NDArray[np.int64]):
        self.path, self.size, self.places = path, size, places

    def __len__(self) -> int:
        return len(self.places)

    def some(self, places: NDArray[np.int64] | range) -> Squares:
        """Return those at some places."""
        return Squares(self.path, self.size, self.places[places])

    def stacked(self) -> Tensor:
        """Read all, uint8 (N, 3, S, S)."""
        import torch

        mapped, places = _mapped(self.path, self.size, self.path.stat().st_ino), self.places
        one_run = len(places) > 0 and bool((np.diff(places) == 1).all())
        rows = mapped[places[0] : places[-1] + 1] if one_run else mapped[places]  # a run is not copied
        return torch.from_numpy(rows).permute(0, 3, 1, 2)

    def __getitem__(self, index: int) -> Tensor:
        return self.some(range(index, index + 1)).stacked()[0]

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.stacked()


@lru_cache(8)
def _mapped(path: Path, size: int, inode: int) -> NDArray[np.uint8]:
    return np.memmap(path, np.uint8, "c").reshape(-1, size, size, 3)  # what is written stays in this process


def write_squares(path: Path, split: Split, size: int, whole: bool = True, progress: Progress | None = None) -> Squares:
    """Write a split into the file ``path``, centred as :meth:`bench.api.Split.centered` says, unless it is there.

    Raises:
        UserError: an image cannot be decoded, or the disk is too small.
    """
    found, count = Squares(path, size, np.arange(len(split))), len(split)
    if is_whole(path):
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        try:
            if not is_whole(path):
                if path.exists():
                    log.warning("%s is not what was written; it is made anew", path)
                _write(path, split, size, whole, progress or (lambda *_: None))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{path.parent}: the disk is full; free {count * 3 * size**2 / 2**30:.1f} GiB there for {path.name}: "
                "the same command goes on from here"
            ) from None
        finally:
            fcntl.flock(alone, fcntl.LOCK_UN)  # closing alone would leave it to a process that was forked meanwhile
    return found


def _write(path: Path, split: Split, size: int, whole: bool, progress: Progress) -> None:
    import torch

    draft, journal, bytes_of_one = path.with_suffix(".draft"), path.with_suffix(".digests"), 3 * size**2
    with draft.open("a+b") as stream, journal.open("a+") as lines:
        digest, done = hashlib.blake2b(digest_size=16), 0
        stream.seek(lines.seek(0))
        for line in lines.read().splitlines():  # what was written before, as far as it reached the disk
            after = digest.copy()
            after.update(stream.read(min(BATCH, len(split) - done) * bytes_of_one))
            if after.hexdigest() != line:
                break
            digest, done = after, min(done + BATCH, len(split))
        stream.truncate(done * bytes_of_one)
        lines.truncate(-(-done // BATCH) * (2 * digest.digest_size + 1))
        if shutil.disk_usage(path.parent).free < (len(split) - done) * bytes_of_one:
            raise OSError(errno.ENOSPC, "")
        rest = torch.arange(done, len(split))
        for pixels, _ in split.centered(size, "cpu", BATCH, rest, whole) if len(rest) else ():
            batch = pixels.permute(0, 2, 3, 1).contiguous().numpy().data
            digest.update(batch)
            stream.write(batch)
            stream.flush()
            lines.write(f"{digest.hexdigest()}\n")
            lines.flush()
            done += len(pixels)
            progress(done, len(split))
        os.fsync(stream.fileno())
    write_atomically(path.with_suffix(".sum"), f"{digest.hexdigest()} 0")
    draft.replace(path)
    journal.unlink()


def kept_views(path: Path, split: Split, size: int, whole: bool, wanted: int) -> Squares | None:
    """Return test views kept at ``path``, written if a good part is ``wanted``; None if the disk has little room."""
    draft = path.with_suffix(".draft")
    try:
        if not is_whole(path):
            if wanted * MOST_SHARES < len(split):
                return None
            if not draft.exists() and shutil.disk_usage(path.parent).free < 2 * 3 * size**2 * len(split):
                log.warning(_ANEW, f"{path.parent}: test images at {size} px would take half of the free space")
                return None
        return write_squares(path, split, size, whole)
    except (OSError, UserError) as error:  # a broken image is named again when it is read
        log.warning(_ANEW, error)
        if isinstance(error, UserError):  # perhaps the disk is full
            draft.unlink(missing_ok=True)
        return None


def pack(info: DatasetInfo, contents: Contents, splits: Sequence[Split], root: Path, size: int, step: Progress) -> Path:
    """Write both splits of a data set of image files below ``root``, and return their folder.

    Raises:
        UserError: the test view would enlarge such squares, an image cannot be decoded, or the disk is too small.
    """
    from bench.kit.views.geometry import short_side

    if size < (least := short_side(info.image_size)):
        raise UserError(
            f"{info.name} is used at {info.image_size} px, which test views cut out of {least} px; expected --pack "
            f"{least} or more, not {size}"
        )
    folder = root / "packed" / f"{info.name}-{size}-{contents.digest[:8]}"
    if packed_files(folder):
        return folder
    total, first = sum(map(len, splits)), len(splits[0])
    write_squares(folder / TRAIN / SQUARES, splits[0], size, progress=lambda done, _: step(done, total))
    write_squares(folder / VAL / SQUARES, splits[1], size, progress=lambda done, _: step(first + done, total))
    contents.save(folder, "contents").replace(folder / CONTENTS)
    facts = info.model_dump(mode="json", exclude={"fingerprint", "foreign"})
    facts["name"] = f"folder-{info.name.removeprefix('folder-')}-packed-{size}"
    facts["title"] = f"{info.title}, packed at {size} px"
    card = {"info": facts, "size": size, "source": contents.digest, "hashes": _hashes(contents_of(_files(folder)))}
    write_atomically(folder / CARD, json.dumps({**card, "digest": _digest(card)}, indent=1) + "\n")
    return folder


def packed_files(folder: Path) -> ImageFiles | None:
    """List the files of a packed data set; None where a folder is none."""
    return _files(folder, Path(CARD).name) if (folder / CARD).is_file() else None


def packed_info(folder: Path, files: ImageFiles) -> DatasetInfo:
    """Return the facts of a packed data set; refuse one that is damaged. Its files are hashed where none remembers."""
    card, found = _card(folder), contents_of(files)
    if _hashes(found) != card["hashes"]:
        raise _damaged(folder)
    info: DatasetInfo = card["info"]
    return info.model_copy(update={"fingerprint": found.digest})


def packed_splits(found: Contents) -> tuple[Contents, dict[str, Squares]] | None:
    """Return what the images of a packed data set were made of, and the images; None where ``found`` is of no such.

    Raises:
        UserError: they are damaged, or have changed since they were found.
    """
    if found.ids != (_PACKED,):
        return None
    paths = [[*CheckedPaths(part)][-1] for part in found.parts.values()]
    folder = paths[0].parents[1]
    card, source = _card(folder), None
    with suppress(UserError):  # its own advice is to make it anew, which nothing does
        source = Contents.load(folder / CONTENTS)
    if source is None or source.digest != card.get("source"):
        raise _damaged(folder)
    counts = (np.arange(part.counts.sum()) for part in source.parts.values())
    return source, {
        split: Squares(path, card["size"], places)
        for split, path, places in zip((TRAIN, VAL), paths, counts, strict=True)
    }


def _files(folder: Path, *more: str) -> ImageFiles:
    train = Listing(folder / TRAIN, {_PACKED: (*more, SQUARES)})
    return ImageFiles(train, Listing(folder / VAL, {_PACKED: (SQUARES,)}), ())


def _digest(card: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(card, sort_keys=True).encode(), digest_size=16).hexdigest()


def _hashes(found: Contents) -> list[str]:
    return [part.hashes[-1].tobytes().hex() for part in found.parts.values()]


def _card(folder: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if card.pop("digest") != _digest(card):
            raise ValueError("it was edited")
        return {**card, "info": DatasetInfo(**card["info"]), "size": int(card["size"]), "hashes": [*card["hashes"]]}
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder) from error


def _damaged(folder: Path) -> UserError:
    return UserError(f"{folder}: its files are not what was packed; delete the folder and pack the data set again")
