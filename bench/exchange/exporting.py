"""A distilled set as a folder that can be published: images by class, labels, a data set card and a manifest.

::

    DIR/train/00003-dress/class00003_id00000.jpg   the files of the images artifact, byte by byte
    DIR/labels/                                    the files of the labels artifact, of an evaluate cell with labels
    DIR/README.md                                  the card, as the Hugging Face Hub reads it
    DIR/manifest.json                              what it is, and the size and SHA-256 of every other file

The names of the class folders sort in the order of the classes, so every reader of image folders numbers the classes
as the benchmark does.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.api import DatasetInfo, MethodInfo, catalogue, registry
from bench.errors import UserError
from bench.exchange.card import Measured, card
from bench.exchange.distilled_set import LABELS, MANIFEST, ClassFolder, DataFacts, LabelFacts, SetManifest
from bench.kit import data
from bench.kit.data.dataset import Dataset
from bench.planning import manifest as grids
from bench.store.artifacts import Damaged, Store, write_atomically
from bench.store.cell import Cell
from bench.store.record import Record


@dataclass(frozen=True)
class Exported:
    """Where a set lies now, how many images and bytes it has, and what could not be said of it."""

    folder: Path
    images: int
    bytes: int
    note: str = ""


def export(store: Store, record: Record, to: Path, data_root: Path | None) -> Exported:
    """Write the images of a distill or evaluate cell, with the labels of the latter, into a new folder.

    Raises:
        UserError: the cell has no images, an artifact is damaged, or the folder is there and not empty.
    """
    images, labels = _parts(store, record)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} is there already and not empty; export to another folder")
    real, info, note = _dataset(store, images.cell, data_root)
    folders = _class_folders(images, real)
    try:
        to.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to.absolute().parent, prefix=f".{to.name}.") as place:
            draft = Path(place) / "set"
            for one in folders:
                source = store.folder(images.id) / f"{one.index:05d}"
                shutil.copytree(source, draft / "train" / one.folder, copy_function=shutil.copyfile)
            if labels is not None:
                shutil.copytree(store.folder(labels.id), draft / LABELS, copy_function=shutil.copyfile)
                (draft / LABELS / "record.json").unlink()
            method = _method(images.cell.by)
            facts = SetManifest(
                method=method.name,
                title=method.title,
                paper=method.paper,
                settings={key: value for key, value in images.cell.fields.items() if key != "dataset"},
                cell=images.id,
                data=_facts(info, real),
                ipc=images.result["images"] // len(folders),
                side=images.result["side"],
                classes=folders,
                labels=None if labels is None else _label_facts(labels, record),
                files={},
            )
            (draft / "README.md").write_text(card(facts, _measured(store, images.id)), encoding="utf-8")
            facts = facts.model_copy(update={"files": store.facts(draft)})
            write_atomically(draft / MANIFEST, facts.model_dump_json(indent=1) + "\n")
            draft.rename(to)
    except OSError as error:
        raise UserError(f"{to} can't be written: {error.strerror}; export to another folder") from None
    return Exported(to, images.result["images"], sum(one.bytes for one in facts.files.values()), note)


def _parts(store: Store, record: Record) -> tuple[Record, Record | None]:
    """The records of a cell's images and labels, whose files are whole."""
    if record.cell.stage == "distill":
        images, labels = record, None
    elif record.cell.stage == "evaluate" and "images" in record.cell.parents:
        images = _whole(store, record.cell.parents["images"])
        labels = _whole(store, record.cell.parents["labels"]) if "labels" in record.cell.parents else None
    else:
        what = "the whole training set" if record.cell.stage == "evaluate" else f"a cell of stage {record.cell.stage}"
        raise UserError(f"{record.id} is {what}; expected a distill cell, or an evaluate cell with distilled images")
    if record.state != "done":
        raise UserError(f"{record.id} failed, so there is nothing to export; bench retry computes it again")
    return _whole(store, images.id), labels


def _whole(store: Store, cell_id: str) -> Record:
    try:
        record = store.record(cell_id)
        if record is None:
            raise UserError(f"{cell_id} is not in {store.root}; bench run makes it")
        store.verify(record)
    except Damaged as damage:
        raise UserError(f"{damage}; bench run makes it again") from None
    return record


def _dataset(store: Store, cell: Cell, data_root: Path | None) -> tuple[Dataset | None, DatasetInfo, str]:
    """The data set of a cell with its class names where its data is to be had, else its facts and why not."""
    grid = next((one.grid for one in grids.newest_first(store) if any(c.id == cell.id for c in one.grid.cells)), None)
    info = catalogue.dataset(cell.fields["dataset"]) if grid is None else grid.dataset
    asked, root = (info.name, None) if grid is None else (grid.request.dataset, grid.request.data_root)
    try:
        return data.load(info, catalogue.root_of(asked, data_root or root)), info, ""
    except UserError as problem:
        return None, info, f"the classes go by their numbers, since their names are with the data: {problem}"


def _facts(info: DatasetInfo, real: Dataset | None) -> DataFacts:
    return DataFacts(
        name=info.name,
        title=info.title,
        version=info.version,
        fingerprint=info.fingerprint,
        order_hash=None if real is None else real.order_hash,
    )


def _class_folders(images: Record, real: Dataset | None) -> tuple[ClassFolder, ...]:
    numbers = sorted({int(path.partition("/")[0]) for path in images.files})
    if real is None:
        return tuple(ClassFolder(index=n, id=None, name=None, folder=f"{n:05d}") for n in numbers)
    return tuple(
        ClassFolder(index=n, id=real.ids[n], name=real.names[n], folder=_folder(n, real.names[n])) for n in numbers
    )


def _folder(number: int, name: str) -> str:
    """``00003-ankle-boot``: a name for any file system."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    return f"{number:05d}-{words}".rstrip("-")


def _method(name: str) -> MethodInfo:
    if name in registry.method_names():
        return registry.method(name).info
    return MethodInfo(name=name, title=name, version=1, paper="", labels="")  # it is installed elsewhere


def _label_facts(labels: Record, student: Record) -> LabelFacts:
    schedule, row = labels.result.get("schedule"), student.cell.row
    if schedule is None:
        return LabelFacts(kind=labels.result["kind"])
    return LabelFacts(
        kind=labels.result["kind"],
        schedule=schedule,
        protocol=row["protocol"],
        student_seed=student.cell.fields["seed"],
    )


def _measured(store: Store, images: str) -> Sequence[Measured]:
    """What students learned from these images, by protocol, student and labels."""
    found: dict[tuple[str, int, str, str], list[float]] = {}
    for record in store.records():
        row = record.cell.row
        if record.state == "done" and row and record.cell.parents.get("images") == images:
            key = (row["protocol"], row["protocol_version"], row["student"], row["labels"])
            found.setdefault(key, []).append(record.result["top1"])
    return [Measured(*key, tuple(sorted(values))) for key, values in sorted(found.items())]
