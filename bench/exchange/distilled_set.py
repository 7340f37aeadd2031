"""What ``manifest.json`` of an exported set says, and what the benchmark remembers of an imported one; torch-free.

An imported set lies in ``STORE/imported/NAME/``: ``images/`` as in an images artifact, ``labels/`` as in a labels
artifact where it brought its own, and ``set.json``, written last. A grid names it as the method ``external:NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import UserError, unknown
from bench.store.record import FileFacts

MANIFEST, REMEMBERED = "manifest.json", "set.json"
IMAGES, LABELS = "images", "labels"  # folders of an imported set
METHOD = "external"  # the plug-in that runs imported sets
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassFolder(_Facts):
    """A class of an exported set. The folders' names sort in the order of the classes."""

    index: int
    id: str | None  # None: the data set was not to be had when it was exported
    name: str | None  # in words
    folder: str


class LabelFacts(_Facts):
    """Soft labels that come with images."""

    kind: str
    schedule: dict[str, Any] | None = None  # of labels stored for the views of a schedule
    protocol: str | None = None  # whose views those are, and which student's
    student_seed: int | None = None


class DataFacts(_Facts):
    """The data set that a distilled set stands for."""

    name: str
    title: str
    version: int = 1
    fingerprint: str | None = None
    order_hash: str | None = None  # SHA-256 of the class ids; None: not known


class SetManifest(_Facts):
    """``manifest.json`` of an exported set."""

    format: Literal["distill-bench set"] = "distill-bench set"
    schema_version: Literal[1] = 1
    method: str
    title: str
    paper: str
    settings: dict[str, Any]  # that decided the images
    cell: str
    data: DataFacts
    ipc: int = Field(ge=1)
    side: int = Field(ge=1)
    classes: tuple[ClassFolder, ...]
    labels: LabelFacts | None = None
    files: dict[str, FileFacts]  # relative path -> facts, of all files but this one


class ImportedSet(_Facts):
    """``set.json``: what must be known of an imported set to plan with it."""

    schema_version: Literal[1] = 1
    name: str
    title: str  # what it is, as far as it said so itself
    data: DataFacts
    ipc: int = Field(ge=1)
    side: int = Field(ge=1)
    images: str  # digest of the image files
    labels: LabelFacts | None = None
    labels_digest: str | None = None


def read_manifest(folder: Path) -> SetManifest | None:
    """The manifest of an exported set; None where the folder has none of ours.

    Raises:
        UserError: it has one that can't be read.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    try:
        return SetManifest.model_validate_json(text)
    except ValidationError as error:
        if b"distill-bench set" not in text:
            return None  # somebody else's manifest
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: {place}: {first['msg']}; expected a manifest as bench export writes it; export the set again, or "
            "remove the file to import a plain folder of images"
        ) from None


def home(store: Path, name: str) -> Path:
    """The folder of the imported set called ``name``.

    Raises:
        UserError: no set can be called that.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"an imported set can't be called {name!r}: expected up to 64 letters, digits and . _ + -, the first a "
            "letter or digit; choose another with --name"
        )
    return store / "imported" / name


def remembered(store: Path, name: str) -> ImportedSet | None:
    """What is known of an imported set; None where there is none of this name.

    Raises:
        UserError: its ``set.json`` can't be read.
    """
    path = home(store, name) / REMEMBERED
    try:
        return ImportedSet.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}; remove its folder and import the set again") from None


def settings(methods: Iterable[str], store: Path) -> dict[str, dict[str, Any]]:
    """What the method ``external:NAME`` must be told of each imported set among ``methods``.

    Raises:
        UserError: the store has no set of that name.
    """
    found = {}
    for method in methods:
        family, colon, name = method.partition(":")
        if family != METHOD or not colon:
            continue
        known = remembered(store, name)
        if known is None:
            places = sorted(path.parent.name for path in (store / "imported").glob(f"*/{REMEMBERED}"))
            if not places:
                raise UserError(f"--methods {method}: {store} has no imported set; bench import DIR brings one")
            raise unknown("imported set", method, (f"{METHOD}:{place}" for place in places))
        found[method] = _settings(known, home(store, name))
    return found


def _settings(known: ImportedSet, folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "set": known.name,
        "folder": str(folder.absolute()),
        "stands_for": known.data.name,
        "ipc": known.ipc,
        "images": known.images,
    }
    if known.data.order_hash:
        facts["order_hash"] = known.data.order_hash
    if known.labels:
        facts |= {"labels": known.labels.kind, "labels_digest": known.labels_digest, "schedule": known.labels.schedule}
    return facts
