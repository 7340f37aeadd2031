"""Show the record of one cell in full: its configuration, parents, results, time and failure.

With --images, draw the distilled set that it is or was trained on.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from bench.cli import screen
from bench.cli.options import STORE, existing_store, read_record
from bench.errors import UserError
from bench.format import size
from bench.store.artifacts import Store
from bench.store.record import Record

ARGUMENTS = f"""
CELL  the id of a cell, or its beginning
--images FILE.png  draw the cell's images into this file
{STORE}
"""
EXAMPLES = """examples:
  python -m bench show hello-projector-digits-ipc10-convnet3-w32-s0-1f0c2ab9d4
  python -m bench show hello-projector-digits-ipc10       a beginning that only one cell has
  python -m bench show rded-digits-ipc10-s0 --images rded.png   the distilled images, a line per class
"""


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench show``."""
    store = existing_store(arguments.store)
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


def images_of(store: Store, record: Record) -> Path:
    """Return the folder of a cell's images: its own, or those it was made from.

    Raises:
        UserError: it has none, or they are not in the store as they were made.
    """
    cell_id = record.id if record.cell.stage == "distill" else record.cell.parents.get("images")
    if cell_id is None:
        raise UserError(f"{record.id} has no images: expected a cell of distill, or one made from images")
    return store.folder(store.whole(cell_id).id)
