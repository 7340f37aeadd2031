"""Listing of image folders: ``train/`` and ``val/`` with a folder per class in each; torch-free, for planning.

Every folder and file counts once: links are followed, but not to what is listed anyway.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.api.catalogue import Listing
from bench.errors import UserError, printable

# torchvision's IMG_EXTENSIONS
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))
SPLITS = (("train", "training"), ("val", "valid", "validation", "test", "testing"))


Seen = dict[tuple[int, int], Path]  # device and inode of folders that are listed, or contain one


def list_images(folder: Path, seen: Seen | None = None) -> tuple[str, ...]:
    """List the images below ``folder``, at any depth, as sorted relative paths; hidden files are left out.

    Raises:
        UserError: a folder can't be read; a link leads nowhere, back, or to something that is listed anyway; an image
            is no regular file, or its name is not UTF-8.
    """
    seen = _above(folder) if seen is None else seen
    found, waiting = [], [""]
    while waiting:
        inner = waiting.pop()
        for entry in _entries(folder / inner, seen):
            path = f"{inner}{entry.name}"
            if _is_folder(entry):
                waiting.append(f"{path}/")
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
                _check_file(entry, folder)
                found.append(path)
    return tuple(sorted(found))


def _above(folder: Path) -> Seen:
    return {(facts.st_dev, facts.st_ino): path for path in folder.resolve().parents for facts in [path.stat()]}


def _entries(folder: Path, seen: Seen) -> list[os.DirEntry[str]]:
    """Return what a folder holds but hidden names; refuse one that was listed before."""
    try:
        facts = folder.stat()
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: can't be read ({error.strerror}); make it a readable folder") from None
    if known := seen.get((facts.st_dev, facts.st_ino)):
        raise UserError(f"{folder}: leads to {known}, which holds it or is listed already; remove the link or the copy")
    seen[facts.st_dev, facts.st_ino] = folder
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder; refuse a link that leads nowhere, which may stand for one."""
    try:
        if entry.is_dir():
            return True
        if entry.is_symlink():
            entry.stat()
    except OSError as error:
        leads = f", a link to {Path(entry.path).readlink()}," if entry.is_symlink() else ""
        raise UserError(
            f"{entry.path}{leads} can't be read ({error.strerror}); get or mount what it stands for, or remove it"
        ) from None
    return False


def _check_file(entry: os.DirEntry[str], folder: Path) -> None:
    if not entry.name.isascii() or not entry.name.isprintable():  # a look at each of a million
        check_name(Path(entry.path))
    if not entry.is_file():
        raise UserError(f"{entry.path}: not a regular file but a pipe, socket or device; remove it")
    if entry.is_symlink():
        target = Path(entry.path).resolve()
        if target.is_relative_to(folder.resolve()):
            raise UserError(f"{entry.path}: a link to {target}, which is listed already; remove the link")


def check_name(path: Path) -> None:
    """Refuse a file name that is no text (PEP 383) or holds control characters."""
    if printable(str(path)) != str(path):
        raise UserError(f"{path}: its name is not UTF-8 or holds control characters; rename it")


def list_classes(split: Path, classes: dict[str, str] | None = None, seen: Seen | None = None) -> Listing:
    """List the images of ``split`` by class.

    Args:
        classes: class id -> its folder, in class order; all folders in sorted order where it is None.
        seen: the folders that other splits consist of.

    Raises:
        UserError: the folder is missing or has no class; a class has no folder or no image; or as :func:`list_images`.
    """
    if not split.is_dir():
        raise UserError(f"{split}: no such folder; expected train/ and val/, with a folder per class in each")
    seen = _above(split) if seen is None else seen
    entries = _entries(split, seen)
    if classes is None:
        classes = {entry.name: entry.name for entry in sorted(entries, key=_name) if _is_folder(entry)}
    if not classes:
        raise UserError(f"{split}: holds no folder; expected a folder of images per class")
    files = {}
    for name, folder in classes.items():
        if not (split / folder).is_dir():
            raise UserError(f"{split}: class {name!r} has no folder there; expected {split / folder}")
        check_name(split / folder)
        files[name] = tuple(f"{folder}/{path}" for path in list_images(split / folder, seen))
        if not files[name]:
            raise UserError(
                f"{split / folder}: class {name!r} is empty; "
                f"expected images ({', '.join(sorted(IMAGE_SUFFIXES))}); fill the folder or remove it"
            )
    return Listing(split, files)


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _split(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the folder of a split: ``names[0]``, or the one that is called by another of the names, in any case.

    Raises:
        UserError: there is none, or there are several.
    """
    if (folder / names[0]).is_dir():
        return folder / names[0]
    there = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [name for name in there if name.lower() in names]
    if len(found) == 1:
        return folder / found[0]
    holds = f"both {'/ and '.join(found)}/" if found else ", ".join(f"{name}/" for name in there[:3]) or "no folder"
    others = ", ".join(f"{name}/" for name in (names[0].title(), *names[1:]))
    split = not found and folder.name.lower() in (*SPLITS[0], *SPLITS[1])
    raise UserError(
        f"{folder}: holds {holds}; expected {names[0]}/ (or {others}), with a folder per class; "
        + (f"did you mean folder:{folder.parent}?" if split else f"call the one that is meant {names[0]}")
    )


def list_folder(folder: Path) -> tuple[Listing, Listing]:
    """List the splits of a user's data set, ``train/`` and ``val/`` or what ``SPLITS`` says; classes are sorted.

    Raises:
        UserError: either is missing, a class is empty, val's classes are not train's, or there is one class; or as
            :func:`list_images`.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected one that holds train/ and val/, a folder per class in each"
        )
    check_name(folder.resolve())
    places = [_split(folder, names) for names in SPLITS]
    seen = _above(places[0])
    train, val = (list_classes(place, seen=seen) for place in places)
    if train.files.keys() != val.files.keys():
        missing, extra = train.files.keys() - val.files.keys(), val.files.keys() - train.files.keys()
        wrong = [
            f"{what} {', '.join(sorted(names)[:3])}" for what, names in (("lacks", missing), ("adds", extra)) if names
        ]
        raise UserError(
            f"{val.root}: its classes are not those of {train.root.name}/: it {' and '.join(wrong)}; "
            "expected the same folders in both"
        )
    if len(train.files) < 2:
        raise UserError(f"{train.root}: holds one class; expected at least two class folders")
    return train, val
