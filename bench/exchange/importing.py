"""A released distilled set → ``STORE/imported/NAME/``, where the method ``external:NAME`` finds it.

The set is an export of ours, whose digests are verified, or a plain folder of images by class. Files keep their bytes,
and nothing is stored before all of it is checked.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bench.api import Dataset, DatasetInfo, catalogue
from bench.errors import UserError, unknown
from bench.exchange import image_grid
from bench.exchange.distilled_set import IMAGES, KEPT, LABELS, DataFacts, ImportedSet, SetManifest, home
from bench.exchange.published_labels import import_labels
from bench.files import sha256_of, write_atomically
from bench.kit import data
from bench.kit import images as image_files
from bench.kit import labels as label_sources
from bench.kit.data.listing import list_images
from bench.kit.overlap import Leakage, too_many
from bench.kit.validation import InvalidResult, check_finite, check_images
from bench.store.artifacts import Store

# 3, 00003, class00003, new003 (SRe2L, G_VBSM), 00003-dress (as we export)
_NUMBERED = re.compile(r"(?:class[ _-]?|new)?(\d+)(?:[ _-].*)?")
_SPLITS = ("train", "images")  # folders in which released sets keep their classes


class Imported(NamedTuple):
    """An imported set, its folder, whether it was there before, and what was left behind in words."""

    known: ImportedSet
    folder: Path
    already: bool
    left: str


def import_set(
    source: Path, store: Store, name: str | None, dataset: str | None, data_root: Path | None,
    allow_overlap: bool = False, published: Path | None = None, order: str | None = None,
) -> Imported:  # fmt: skip
    """Import a distilled set into a store.

    Args:
        name: of the set; None: that of its folder.
        dataset: as for ``bench run``; None: as its manifest says.
        allow_overlap: take one that holds test images.
        published, order: label files of others, and which images they are of, see :func:`import_labels`.

    Raises:
        UserError: it is no distilled set of that data set, or holds test images of it; nothing is stored then.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; expected an exported set, or a folder of images by class")
    manifest = SetManifest.read(source)
    stands_for = dataset or (manifest.data.name if manifest else None)
    if stands_for is None:
        raise UserError(f"{source} doesn't say which data set it stands for; add --dataset NAME")
    if manifest is not None and dataset is None and manifest.data.fingerprint is not None:
        raise UserError(f"{source} stands for {manifest.data.name}, a folder of its own; add --dataset folder:PATH")
    called = name or re.sub(r"[^A-Za-z0-9._+-]+", "-", source.resolve().name).strip("-.")
    folder = home(store.root, called)
    real = data.load(catalogue.dataset(stands_for), catalogue.root_of(stands_for, data_root))
    labels, left = None, ""
    if manifest is None:
        files = _by_folder(source, real)
    else:
        _check_manifest(manifest, source, real)
        files, labels = _by_manifest(source, manifest, real), manifest.labels
        if labels is not None and labels.kind not in label_sources.KINDS:
            left = f"its labels stay behind: they are of a kind that {manifest.method} alone can read ({labels.kind})"
            labels = None
    if not left and labels is None and (source / LABELS).is_dir() and published is None:
        left = "labels/ stays behind: only labels of an export with its manifest can be read, or see --labels"
    ipc = _images_per_class(source, files, real)
    _check_images(files, real.info)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{called}.") as place:
        draft = Path(place) / "set"
        for label, paths in files.items():
            for index, path in enumerate(paths):
                target = draft / IMAGES / image_files.name(label, index, path.suffix[1:].lower())
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if labels is not None and published is None:
            shutil.copytree(source / LABELS, draft / LABELS, copy_function=shutil.copyfile)
        if published is not None:
            labels, left = import_labels(
                published, order, files, image_files.load(draft / IMAGES), real, draft / LABELS
            )
        left = _check_draft(source, draft, real, ipc, allow_overlap) or left
        known = ImportedSet(
            name=called,
            title=f"{manifest.title} ({manifest.cell})" if manifest else "",
            data=DataFacts.of(real.info, real),
            ipc=ipc,
            side=real.info.image_size,
            images=image_files.files_digest(draft / IMAGES),
            labels=labels,
            labels_digest=image_files.files_digest(draft / LABELS) if labels else None,
        )
        if (before := ImportedSet.read(store.root, called)) is not None:
            if before.model_copy(update={"title": known.title}) != known:
                raise UserError(f"{folder} is another set already; choose another name with --name")
            return Imported(before, folder, True, left)
        write_atomically(draft / KEPT, known.model_dump_json(indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # what an import left that was killed
        draft.rename(folder)
    return Imported(known, folder, False, left)


def _check_manifest(manifest: SetManifest, source: Path, real: Dataset) -> None:
    theirs, ours = manifest.data, DataFacts.of(real.info, real)
    if theirs.fingerprint is None and (theirs.name, theirs.version) != (ours.name, ours.version):
        raise UserError(
            f"{source} stands for {theirs.name} (version {theirs.version}), not {ours.name} (version {ours.version}); "
            f"add --dataset {theirs.name}"
        )
    if theirs.order_hash is not None and theirs.order_hash != ours.order_hash:
        raise UserError(
            f"{source} has another class order (sha256 {theirs.order_hash[:12]}) than {ours.name} here "
            f"({(ours.order_hash or '')[:12]}); it was made for another copy of the data set"
        )
    for path, facts in manifest.files.items():
        file = source / path
        if not file.resolve().is_relative_to(source.resolve()):
            raise UserError(f"{source}: its manifest names {path!r}, which is outside; don't trust this set")
        if not file.is_file():
            raise UserError(f"{file} is missing; get the set again")
        if file.stat().st_size != facts.bytes or sha256_of(file) != facts.sha256:
            raise UserError(f"{file} is not what the manifest says (sha256 {facts.sha256[:12]}); get the set again")
    present = {path.relative_to(source).as_posix() for path in source.glob(f"{LABELS}/**/*") if path.is_file()}
    if odd := sorted(present - manifest.files.keys()):
        raise UserError(f"{source / odd[0]} is not in the manifest; get the set again")


def _by_manifest(source: Path, manifest: SetManifest, real: Dataset) -> dict[int, list[Path]]:
    """Class number → its images in the order of their names."""
    found = {
        one.index: [source / path for path in sorted(manifest.files) if path.startswith(f"train/{one.folder}/")]
        for one in manifest.classes
    }
    if sorted(found) != list(range(real.info.classes)):
        raise UserError(f"{source} has {len(found)} classes, {real.info.name} has {real.info.classes}")
    return found


def _by_folder(source: Path, real: Dataset) -> dict[int, list[Path]]:
    """Class number → its images in the order of their names, of folders named by ids, by names in words, or numbers."""
    root = next((source / split for split in _SPLITS if (source / split).is_dir()), source)
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise UserError(f"{root} holds no folder; expected a folder of images for each class of {real.info.name}")
    ways = [_spelled(real.ids, folders), _spelled(real.names, folders), _numbered(folders, real.info.classes)]
    best = max(ways, key=lambda way: len(way) - way.count(None))  # the first of equals
    found: dict[int, str] = {}
    for folder, label in zip(folders, best, strict=True):
        if label is None:
            raise _unknown_class(root, folder, real.names if best is ways[1] else real.ids, real.info.name)
        if label in found:
            raise UserError(f"{root}: {found[label]!r} and {folder!r} are both class {real.ids[label]!r}; join them")
        found[label] = folder
    if missing := [one for label, one in enumerate(real.ids) if label not in found]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"{root} has {len(found)} of the {real.info.classes} classes of {real.info.name}: there is no folder for "
            f"{', '.join(missing[:3])}{more}"
        )
    return {label: [root / found[label] / path for path in list_images(root / found[label])] for label in sorted(found)}


def _unknown_class(root: Path, folder: str, known: Sequence[str], dataset: str) -> UserError:
    error = unknown(f"class in {root}:", folder, known)
    if len(known) <= 20:
        return error
    hint = str(error).partition("; known:")[0]
    return UserError(f"{hint}; expected the {len(known)} classes of {dataset} by id, name or number")


def _spelled(classes: Sequence[str], folders: Sequence[str]) -> list[int | None]:
    """By names that stand for one class alone (two classes of ImageNet are a crane)."""
    plain, wanted = (
        [re.sub(r"[\s_/-]+", " ", one).strip().casefold() for one in words] for words in (classes, folders)
    )
    labels = {one: label for label, one in enumerate(plain) if plain.count(one) == 1}
    return [labels.get(one) for one in wanted]


def _numbered(folders: Sequence[str], classes: int) -> list[int | None]:
    matches = map(_NUMBERED.fullmatch, folders)
    return [int(match[1]) if match and int(match[1]) < classes else None for match in matches]


def _images_per_class(source: Path, files: Mapping[int, Sequence[Path]], real: Dataset) -> int:
    least, most = (extreme(files, key=lambda label: len(files[label])) for extreme in (min, max))
    if len(files[least]) != len(files[most]) or not files[least]:
        raise UserError(
            f"{source}: class {real.ids[least]!r} has {len(files[least])} images and {real.ids[most]!r} has "
            f"{len(files[most])}; expected as many in each, at least one"
        )
    return len(files[least])


def _check_images(files: Mapping[int, Sequence[Path]], info: DatasetInfo) -> None:
    for path in (path for paths in files.values() for path in paths):
        image, side = image_grid.read(path), info.image_size
        if image.size != (side, side):
            size = f"{image.width} x {image.height} px"
            raise UserError(f"{path} is {size}, but {info.name} is used at {side} x {side}; resize the set first")


def _check_draft(source: Path, draft: Path, real: Dataset, ipc: int, allow_overlap: bool) -> str:
    """Refuse images that a method may not return either, and labels that are not whole or belong to others.

    Returns:
        What is to be said of test images among the synthetic ones; empty: there are none.
    """
    try:
        images = check_images(image_files.load(draft / IMAGES), real.info, ipc, str(source))
        if (draft / LABELS).is_dir():
            source = source / LABELS
            labels = label_sources.load(draft / LABELS, torch.device("cpu"), {})
            labels.check(images, real.order_hash)
            if (classes := getattr(labels, "classes", real.info.logits)) != real.info.logits:
                raise InvalidResult(f"labels of {classes} classes, expected {real.info.logits}")
            for path in sorted((draft / LABELS).rglob("*.safetensors")):
                check_finite(load_file(path), path.name)
    except (InvalidResult, OSError, KeyError, ValueError, SafetensorError) as error:
        raise UserError(f"{source} can't be used: {str(error).splitlines()[0]}; get the set again") from None
    copies = Leakage.of(real).among(images.pixels)
    refusal = too_many(copies, len(images), f"images of {source} are test images of {real.info.name}")
    if refusal and not allow_overlap:
        raise UserError(refusal)
    return f"{copies} of its {len(images)} images are test images of {real.info.name}" if copies else ""
