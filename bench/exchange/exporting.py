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
from pathlib import Path

import pandas as pd

from bench.api import Dataset, DatasetInfo, MethodInfo, catalogue, registry
from bench.errors import UserError
from bench.exchange.card import card
from bench.exchange.distilled_set import LABELS, MANIFEST, ClassFolder, DataFacts, LabelFacts, SetManifest
from bench.files import write_atomically
from bench.kit import data
from bench.planning import manifest as grids
from bench.report.results import load_results
from bench.store.artifacts import Store
from bench.store.cell import Cell
from bench.store.record import Record


def export(store: Store, record: Record, to: Path, data_root: Path | None) -> tuple[SetManifest, str]:
    """Write the images of a distill or evaluate cell, with the labels of the latter, into a new folder.

    Returns:
        Its manifest, and what is not known of it.

    Raises:
        UserError: the cell has no images, an artifact is damaged, or the folder exists and is not empty.
    """
    images, labels = _parts(store, record)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} is there already and not empty; export to another folder")
    real, info, note = _dataset(store, images.cell, data_root)
    facts = _manifest(record, images, labels, info, real)
    try:
        to.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to.absolute().parent, prefix=f".{to.name}.") as place:
            draft = Path(place) / "set"
            for one in facts.classes:
                source = store.folder(images.id) / f"{one.index:05d}"
                shutil.copytree(source, draft / "train" / one.folder, copy_function=shutil.copyfile)
            if labels is not None:
                shutil.copytree(store.folder(labels.id), draft / LABELS, copy_function=shutil.copyfile)
                (draft / LABELS / "record.json").unlink()
            (draft / "README.md").write_text(card(facts, _results(store, images.id)), encoding="utf-8")
            facts = facts.model_copy(update={"files": store.facts(draft)})
            write_atomically(draft / MANIFEST, facts.model_dump_json(indent=1) + "\n")
            draft.rename(to)
    except OSError as error:
        raise UserError(f"{to} can't be written: {error.strerror}; export to another folder") from None
    return facts, note


def _parts(store: Store, record: Record) -> tuple[Record, Record | None]:
    """Return the records of a cell's images and labels, whose files are whole."""
    cell, parents = record.cell, record.cell.parents
    if cell.stage != "distill" and not (cell.stage == "evaluate" and "images" in parents):
        what = "the whole training set" if cell.stage == "evaluate" else f"a cell of stage {cell.stage}"
        raise UserError(f"{record.id} is {what}; expected a distill cell, or an evaluate cell with distilled images")
    if record.state != "done":
        raise UserError(f"{record.id} failed, so there is nothing to export; bench retry computes it again")
    if cell.stage == "distill":
        return store.whole(record.id), None
    return store.whole(parents["images"]), store.whole(parents["labels"]) if "labels" in parents else None


def _dataset(store: Store, cell: Cell, data_root: Path | None) -> tuple[Dataset | None, DatasetInfo, str]:
    """Return the data set of a cell with its class names where its data is available, else its facts and why not."""
    grid = next((one.grid for one in grids.newest_first(store) if any(c.id == cell.id for c in one.grid.cells)), None)
    info = catalogue.dataset(cell.fields["dataset"]) if grid is None else grid.dataset
    name, root = (info.name, None) if grid is None else (grid.request.dataset, grid.request.data_root)
    try:
        return data.load(info, catalogue.root_of(name, data_root or root)), info, ""
    except UserError as problem:
        return None, info, f"the classes go by their numbers, since their names are with the data: {problem}"


def _manifest(
    record: Record, images: Record, labels: Record | None, info: DatasetInfo, real: Dataset | None
) -> SetManifest:
    by, numbers = images.cell.by, sorted({int(path.partition("/")[0]) for path in images.files})
    installed = by in registry.method_names()
    method = registry.method(by).info if installed else MethodInfo(name=by, title=by, version=1, paper="", labels="")
    own = None if labels is None else LabelFacts(kind=labels.result["kind"], schedule=labels.result.get("schedule"))
    if own is not None and own.schedule is not None:
        shown = {"protocol": record.cell.row["protocol"], "student_seed": record.cell.fields["seed"]}
        own = own.model_copy(update=shown)
    return SetManifest(
        method=method.name,
        title=method.title,
        paper=method.paper,
        settings={key: value for key, value in images.cell.fields.items() if key != "dataset"},
        cell=images.id,
        data=DataFacts.of(info, real),
        ipc=images.result["images"] // len(numbers),
        side=images.result["side"],
        classes=tuple(_class_folder(number, real) for number in numbers),
        labels=own,
        files={},
    )


def _class_folder(number: int, real: Dataset | None) -> ClassFolder:
    """``00003-ankle-boot``: a name for any file system."""
    class_id, name = (None, None) if real is None else (real.ids[number], real.names[number])
    words = re.sub(r"[^a-z0-9]+", "-", (name or "").lower()).strip("-")[:60]
    return ClassFolder(index=number, id=class_id, name=name, folder=f"{number:05d}-{words}".rstrip("-"))


def _results(store: Store, images: str) -> pd.DataFrame | None:
    """Return what students learned from these images; None where no grid of the store has any."""
    try:
        frame = load_results(store.root)
    except UserError:
        return None
    own = frame["parents"].map(lambda parents: parents.get("images") == images)
    return frame[own.astype(bool) & frame["top1"].notna()].drop_duplicates("cell").sort_values("top1")
