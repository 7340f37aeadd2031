"""The manifest of an exported set, and what a store keeps of an imported one; torch-free.

An imported set is ``STORE/imported/NAME/``: ``images/`` as in an images artifact, ``labels/`` as in a labels artifact
where it brought its own, and ``set.json``, written last. A grid names it as the method ``external:NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from bench.api import BaseConfig, Dataset, DatasetInfo, registry
from bench.errors import UserError, unknown
from bench.store.record import FileFacts

MANIFEST, KEPT = "manifest.json", "set.json"
IMAGES, LABELS = "images", "labels"  # folders of an imported set
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class ClassFolder(BaseConfig):
    """A class of an exported set. The folders' names sort in the order of the classes."""

    index: int
    id: str | None  # None: the data set was not available when it was exported
    name: str | None  # in words
    folder: str


class LabelFacts(BaseConfig):
    """Soft labels that come with images."""

    kind: str
    schedule: dict[str, Any] | None = None  # of labels stored for the views of a schedule
    protocol: str | None = None  # that shows those views, to which student
    student_seed: int | None = None


class DataFacts(BaseConfig):
    """The data set that a distilled set stands for."""

    name: str
    title: str
    version: int = 1
    fingerprint: str | None = None
    order_hash: str | None = None  # SHA-256 of the class ids; None: not known

    @classmethod
    def of(cls, info: DatasetInfo, real: Dataset | None) -> Self:
        """Return the facts of a data set; its class order where its data is available."""
        order_hash = None if real is None else real.order_hash
        facts = {name: getattr(info, name) for name in ("name", "title", "version", "fingerprint")}
        return cls(**facts, order_hash=order_hash)


class SetManifest(BaseConfig):
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

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the manifest of an exported set; None where the folder has none of ours.

        Raises:
            UserError: it has one that can't be read.
        """
        path = folder / MANIFEST
        try:
            text = path.read_bytes()
            return cls.model_validate_json(text)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from None
        except ValidationError as error:
            if b"distill-bench set" not in text:
                return None  # somebody else's manifest
            first = error.errors()[0]
            raise UserError(
                f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; expected a manifest as bench export "
                "writes it; export the set again, or remove the file to import a plain folder of images"
            ) from None


class ImportedSet(BaseConfig):
    """``set.json``: what planning needs to know of an imported set."""

    schema_version: Literal[1] = 1
    name: str
    title: str  # as it says itself
    data: DataFacts
    ipc: int = Field(ge=1)
    side: int = Field(ge=1)
    images: str  # digest of the image files
    labels: LabelFacts | None = None
    labels_digest: str | None = None

    @classmethod
    def read(cls, store: Path, name: str) -> Self | None:
        """Return what a store knows of an imported set; None where it has none of this name.

        Raises:
            UserError: its ``set.json`` can't be read.
        """
        path = home(store, name) / KEPT
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            what = str(error).splitlines()[0]
            raise UserError(f"{path}: {what}; remove its folder and import the set again") from None


def home(store: Path, name: str) -> Path:
    """Return the folder of the imported set called ``name``.

    Raises:
        UserError: a name that no set can have.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"an imported set can't be called {name!r}: expected up to 64 letters, digits and . _ + -, the first a "
            "letter or digit; choose another with --name"
        )
    return store / "imported" / name


def importer() -> str:
    """Return the name of the method that runs imported sets.

    Raises:
        UserError: none is installed.
    """
    for name in registry.method_names():
        if registry.method(name).info.imported:
            return name
    raise UserError("no installed method runs imported sets; install distill-bench again")


def settings(methods: Iterable[str], store: Path) -> dict[str, dict[str, Any]]:
    """Return the settings of each imported set among ``methods``, by ``external:NAME``.

    Raises:
        UserError: the store has no set of that name.
    """
    found = {}
    for method in methods:
        family, colon, name = method.partition(":")
        if not colon or family not in registry.method_names() or not registry.method(family).info.imported:
            continue
        if (known := ImportedSet.read(store, name)) is None:
            there = [f"{family}:{path.parent.name}" for path in (store / "imported").glob(f"*/{KEPT}")]
            if not there:
                raise UserError(f"--methods {method}: {store} has no imported set; bench import DIR brings one")
            raise unknown("imported set", method, there)
        found[method] = {
            "set": known.name, "folder": str(home(store, name).absolute()), "stands_for": known.data.name,
            "ipc": known.ipc, "images": known.images,
            **({"order_hash": known.data.order_hash} if known.data.order_hash else {}),
        }  # fmt: skip
        if own := known.labels:
            found[method] |= {"labels": own.kind, "labels_digest": known.labels_digest, "schedule": own.schedule}
    return found
