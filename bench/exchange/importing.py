"""A released distilled set → ``STORE/imported/NAME/``, where the method ``external:NAME`` finds it.

Either an export of ours, whose manifest says everything and whose digests are verified, or a plain folder of images
by class. What is taken keeps its bytes.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.api import Dataset, DatasetInfo, catalogue
from bench.errors import UserError, unknown
from bench.exchange.distilled_set import (
    IMAGES,
    LABELS,
    REMEMBERED,
    DataFacts,
    ImportedSet,
    LabelFacts,
    SetManifest,
    home,
    read_manifest,
    remembered,
)
from bench.kit import data
from bench.kit.data.image_folders import UNREADABLE, list_images, unreadable
from bench.kit.images import files_digest
from bench.kit.images import name as image_name
from bench.kit.labels import KINDS
from bench.store.artifacts import Store, sha256_of, write_atomically

_NUMBERED = re.compile(r"(?:class[ _-]?)?(\d+)(?:[ _-].*)?")  # 3, 00003, class00003, 00003-dress (as we export)
_SPLITS = ("train", "images")  # folders in which released sets keep their classes
_MODES = ("RGB", "L", "1")  # of PIL: colours, or greys that mean the same as RGB


@dataclass(frozen=True)
class Imported:
    """What was taken, where it lies, whether it was there before, and what was left behind in words."""

    known: ImportedSet
    folder: Path
    already: bool
    left: str = ""


def import_set(source: Path, store: Store, name: str | None, dataset: str | None, data_root: Path | None) -> Imported:
    """Take a distilled set into a store.

    Args:
        name: what to call it; None: as its folder.
        dataset: as for ``bench run``; None: as its manifest says.

    Raises:
        UserError: it is no distilled set of that data set; nothing is written then.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; expected an exported set, or a folder of images by class")
    manifest = read_manifest(source)
    asked = dataset or (manifest.data.name if manifest else None)
    if asked is None:
        raise UserError(f"{source} doesn't say which data set it stands for; say --dataset NAME")
    if manifest is not None and dataset is None and manifest.data.fingerprint is not None:
        raise UserError(f"{source} stands for {manifest.data.name}, a folder of its own; say --dataset folder:PATH")
    called = name or re.sub(r"[^A-Za-z0-9._+-]+", "-", source.resolve().name).strip("-.")
    folder = home(store.root, called)
    real = data.load(catalogue.dataset(asked, data_root), catalogue.root_of(asked, data_root))
    if manifest is not None:
        _check_manifest(manifest, source, real)
    files = _by_class(source, manifest, real)
    ipc = _images_per_class(source, files, real)
    _check_images(files, real.info)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{called}.") as draft:
        place = Path(draft) / "set"
        for label, paths in files.items():
            for index, path in enumerate(paths):
                target = place / IMAGES / image_name(label, index, path.suffix[1:].lower())
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        labels, left = _labels(source, manifest)
        if labels is not None and manifest is not None:
            (place / LABELS).mkdir()
            for name_in_set in (one for one in manifest.files if one.startswith(f"{LABELS}/")):
                shutil.copyfile(source / name_in_set, place / LABELS / Path(name_in_set).name)
        known = ImportedSet(
            name=called,
            title=f"{manifest.title} ({manifest.cell})" if manifest else "",
            data=_facts(real),
            ipc=ipc,
            side=real.info.image_size,
            images=files_digest(place / IMAGES),
            labels=labels,
            labels_digest=files_digest(place / LABELS) if labels else None,
        )
        if (before := remembered(store.root, called)) is not None:
            if before.model_copy(update={"title": known.title}) != known:
                raise UserError(f"{folder} is another set already; choose another name with --name")
            return Imported(before, folder, already=True, left=left)
        write_atomically(place / REMEMBERED, known.model_dump_json(indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # what an import left that was killed
        place.rename(folder)
    return Imported(known, folder, already=False, left=left)


def _facts(real: Dataset) -> DataFacts:
    info = real.info
    return DataFacts(
        name=info.name,
        title=info.title,
        version=info.version,
        fingerprint=info.fingerprint,
        order_hash=real.order_hash,
    )


def _check_manifest(manifest: SetManifest, source: Path, real: Dataset) -> None:
    theirs, ours = manifest.data, _facts(real)
    if theirs.fingerprint is None and (theirs.name, theirs.version) != (ours.name, ours.version):
        raise UserError(
            f"{source} stands for {theirs.name} (version {theirs.version}), not {ours.name} (version {ours.version}); "
            f"say --dataset {theirs.name}"
        )
    if theirs.order_hash is not None and theirs.order_hash != ours.order_hash:
        raise UserError(
            f"{source} has another class order (sha256 {theirs.order_hash[:12]}) than {ours.name} here "
            f"({(ours.order_hash or '')[:12]}); it was made for another copy of the data set"
        )
    for path, facts in manifest.files.items():
        file = source / path
        if not file.resolve().is_relative_to(source.resolve()):
            raise UserError(f"{source}: its manifest names {path!r}, which lies outside; don't trust this set")
        if not file.is_file():
            raise UserError(f"{file} is missing; get the set again")
        if file.stat().st_size != facts.bytes or sha256_of(file) != facts.sha256:
            raise UserError(f"{file} is not what the manifest says (sha256 {facts.sha256[:12]}); get the set again")


def _by_class(source: Path, manifest: SetManifest | None, real: Dataset) -> dict[int, list[Path]]:
    """Class number -> its images in the order of their names."""
    if manifest is not None:
        found: dict[int, list[Path]] = {}
        for one in manifest.classes:
            place = f"train/{one.folder}/"
            found[one.index] = [source / path for path in sorted(manifest.files) if path.startswith(place)]
        if sorted(found) != list(range(real.info.classes)):
            raise UserError(f"{source} has {len(found)} classes, {real.info.name} has {real.info.classes}")
        return found
    root = next((source / split for split in _SPLITS if (source / split).is_dir()), source)
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UserError(f"{root} holds no folder; expected a folder of images for each class of {real.info.name}")
    return {
        label: [root / folder / path for path in list_images(root / folder)]
        for folder, label in sorted(_class_numbers(root, folders, real).items(), key=lambda pair: pair[1])
    }


def _class_numbers(root: Path, folders: Sequence[str], real: Dataset) -> dict[str, int]:
    """Folder -> class number, by ids, by names in words, or by numbers: one way for all of them.

    Raises:
        UserError: a folder is no class of the data set, a class has none, or two have the same.
    """
    ways: list[Mapping[str, int | None]] = [
        {folder: _spelled(real.ids).get(_plain(folder)) for folder in folders},
        {folder: _spelled(real.names).get(_plain(folder)) for folder in folders},
        {folder: _number(folder, real.info.classes) for folder in folders},
    ]
    best = max(ways, key=lambda way: sum(label is not None for label in way.values()))  # the first of equals
    if wrong := [folder for folder, label in best.items() if label is None]:
        known = real.names if best is ways[1] else real.ids
        error = unknown(f"class in {root}:", wrong[0], known)
        if len(known) <= 20:
            raise error
        hint = str(error).partition("; known:")[0]
        raise UserError(f"{hint}; expected the {len(known)} classes of {real.info.name} by id, name or number")
    taken: dict[int, str] = {}
    for folder, label in best.items():
        assert label is not None
        if label in taken:
            raise UserError(f"{root}: {taken[label]!r} and {folder!r} are both class {real.ids[label]!r}; join them")
        taken[label] = folder
    if missing := [one for label, one in enumerate(real.ids) if label not in taken]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"{root} has {len(taken)} of the {real.info.classes} classes of {real.info.name}: there is no folder for "
            f"{', '.join(missing[:3])}{more}"
        )
    return {folder: label for label, folder in taken.items()}


def _plain(text: str) -> str:
    return re.sub(r"[\s_/-]+", " ", text).strip().casefold()


def _spelled(classes: Sequence[str]) -> dict[str, int]:
    """Names that stand for one class alone (two classes of ImageNet are a crane)."""
    plain = [_plain(one) for one in classes]
    return {one: label for label, one in enumerate(plain) if plain.count(one) == 1}


def _number(folder: str, classes: int) -> int | None:
    found = _NUMBERED.fullmatch(folder)
    return int(found[1]) if found and int(found[1]) < classes else None


def _images_per_class(source: Path, files: Mapping[int, Sequence[Path]], real: Dataset) -> int:
    counts = {label: len(paths) for label, paths in files.items()}
    least, most = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    if counts[least] != counts[most] or not counts[least]:
        raise UserError(
            f"{source}: class {real.ids[least]!r} has {counts[least]} images and {real.ids[most]!r} has "
            f"{counts[most]}; expected as many in each, at least one"
        )
    return counts[least]


def _check_images(files: Mapping[int, Sequence[Path]], info: DatasetInfo) -> None:
    side = info.image_size
    for path in (path for paths in files.values() for path in paths):
        try:
            with Image.open(path) as image:
                size, mode = image.size, image.mode
                image.load()
        except (*UNREADABLE, Image.DecompressionBombError) as error:
            raise unreadable(path, error) from error
        if size != (side, side):
            raise UserError(
                f"{path} is {size[0]} x {size[1]} px, but {info.name} is used at {side} x {side}; resize the set first"
            )
        if mode not in _MODES:
            raise UserError(f"{path} is no RGB image of 8 bits a channel but {mode}; convert the set first")


def _labels(source: Path, manifest: SetManifest | None) -> tuple[LabelFacts | None, str]:
    """The labels that can be taken along, or why they can't."""
    if manifest is None or manifest.labels is None:
        there = (source / LABELS).is_dir()
        return None, "labels/ stays behind: only labels of an export with its manifest can be read" if there else ""
    if manifest.labels.kind not in KINDS:
        return None, (
            f"its labels stay behind: they are of a kind that {manifest.method} alone can read ({manifest.labels.kind})"
        )
    return manifest.labels, ""
