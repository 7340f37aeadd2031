"""Show the record of one cell in full: its configuration, parents, results, time and failure.

With --images, draw the distilled set that it is or was trained on.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import options as flags
from bench.cli import screen
from bench.cli.naming import select_one
from bench.cli.parser import text_path
from bench.errors import UserError
from bench.format import size

if TYPE_CHECKING:
    from bench.store.artifacts import Store
    from bench.store.record import Record

HELP = "show the record of one cell, and its images"
EXAMPLES = """examples:
  python -m bench show hello-projector-digits-ipc10-convnet3-w32-s0-1f0c2ab9d4
  python -m bench show hello-projector-digits-ipc10       a beginning that only one cell has
  python -m bench show rded-digits-ipc10-s0 --images rded.png   the distilled images, a line per class
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bench show``."""
    parser.add_argument("cell", metavar="CELL", help="the id of a cell, or its beginning")
    parser.add_argument("--images", type=text_path, metavar="FILE.png", help="draw the cell's images into this file")
    flags.store_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench show``."""
    from bench.store.artifacts import Store

    store = Store(flags.existing_store(arguments.store))
    record = read_record(store, arguments.cell)
    out = screen.console()
    facts = record.model_dump(mode="json")
    trace, files = facts.pop("traceback"), facts.pop("files")
    out.print(json.dumps(facts, indent=2), markup=False)
    if rows := [[name, size(file["bytes"]), file["sha256"][:16]] for name, file in files.items()]:
        out.print(screen.table(["file", "size", "sha256"], rows[:20], right=["size"]))
        if len(rows) > 20:
            out.print(f"… and {len(rows) - 20} more files; {size(record.bytes)} in all")
        out.print(f"in {store.folder(record.id)}")
    if trace:
        out.print(trace, markup=False)
    if arguments.images is not None:
        from bench.exchange.image_grid import draw

        out.print(f"drew {draw(images_of(store, record), arguments.images)} into {arguments.images}", markup=False)
    elif record.state == "done" and record.cell.stage == "distill":
        place = shlex.join(["--store", str(arguments.store), "--images", f"{record.id}.png"])
        out.print(f"its images as a picture: python -m bench show {record.id} {place}", markup=False)
    return 0


def read_record(store: Store, word: str) -> Record:
    """Return the record of the one cell that a word names, finished or failed.

    Raises:
        UserError: the word names none or several, or the record can't be read.
    """
    from bench.store.artifacts import Damaged

    cell_id = select_one(word, store.ids("cells") | store.ids("failures"))
    try:
        record = store.record(cell_id) or store.failure(cell_id)
    except Damaged as damage:
        raise UserError(f"{damage}; bench run makes it again") from None
    if record is None:
        raise UserError(f"the record of {cell_id} can't be read; bench run makes it again")
    return record


def images_of(store: Store, record: Record) -> Path:
    """Return the folder of a cell's images: its own, or those it was made from.

    Raises:
        UserError: it has none, or they are not in the store.
    """
    cell_id = record.id if record.cell.stage == "distill" else record.cell.parents.get("images")
    if cell_id is None:
        raise UserError(f"{record.id} has no images: expected a cell of distill, or one made from images")
    if not store.folder(cell_id).is_dir():
        raise UserError(f"the images {cell_id} are not in {store.root}; bench run makes them")
    return store.folder(cell_id)
