"""Show a cell: what it is, when and where it ran, its result, bytes, files and parents, or why it failed.

With --images, draw the distilled set that it is or was trained on. A glob, or a beginning that several cells have,
lists the ids and states of those cells.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from bench.cli import screen
from bench.cli.options import STORE, candidates, existing_store, read_record
from bench.errors import UserError
from bench.format import duration, plural, size
from bench.store.artifacts import Store
from bench.store.record import Record

ARGUMENTS = f"""
CELL  the id of a cell, its beginning, or a glob
--images FILE.png  draw the cell's images into this file
--json  the whole record, for programs
{STORE}
"""
EXAMPLES = """examples:
  python -m bench show hello-projector-digits-ipc10-convnet3-w32-s0-1f0c2ab9d4
  python -m bench show hello-projector-digits-ipc10       a beginning that only one cell has
  python -m bench show 'rded-*'                           the ids that match
  python -m bench show rded-digits-ipc10-s0 --images rded.png   the distilled images, a line per class
"""
_ROW = ("method", "labels", "ipc", "student", "protocol", "dataset", "seed")
_WHERE = ("on", "threads", "torch", "commit")
_MANY = 4  # files, which are counted then, not named
_MOST = 20  # facts of a kind
_MOST_CELLS = 50  # of a list


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench show``."""
    store = existing_store(arguments.store)
    out, done = screen.console(), store.ids("cells")
    found = candidates(arguments.cell, done | store.ids("failures"))
    if len(found) > 1 and not (arguments.json or arguments.images):
        lines = [f"{one}  {'done' if one in done else 'failed'}" for one in found]
        lines[_MOST_CELLS:] = [f"and {len(found) - _MOST_CELLS} more"] * (len(found) > _MOST_CELLS)
        out.print(*lines, sep="\n", markup=False, soft_wrap=True)
        return 0
    record = read_record(store, arguments.cell)
    if arguments.json:
        out.print(record.model_dump_json(indent=2), markup=False, soft_wrap=True)
        return 0
    page = Table.grid(padding=(0, 2))
    for head, text in _page(record):
        page.add_row(Text(head), Text(text, overflow="fold"))
    out.print(record.id, markup=False)
    out.print(page)
    if record.files:
        out.print(f"in {store.folder(record.id)}", markup=False, soft_wrap=True)
    if record.traceback:
        out.print(record.traceback, markup=False)
    if arguments.images is not None:
        from bench.exchange.image_grid import draw

        out.print(f"drew {draw(images_of(store, record), arguments.images)} into {arguments.images}", markup=False)
    elif record.state == "done" and record.cell.stage == "distill":
        place = shlex.join(["--store", str(arguments.store), "--images", f"{record.id}.png"])
        out.print(f"its images as a picture: python -m bench show {record.id} {place}", markup=False)
    return 0


def _page(record: Record) -> Iterator[tuple[str, str]]:
    """Yield the lines of the page: a word, and what there is to say."""
    cell, run, here, result = record.cell, record.run, record.run.environment, dict(record.result)
    row = {key: cell.row[key] for key in _ROW if key in cell.row}
    yield "what", f"{cell.stage}, by {cell.by} (version {cell.version}): {_listed(row or cell.fields)}"
    started = run.started.replace("T", " ").replace("+00:00", " UTC")
    yield "state", f"{record.state} in {duration(run.seconds)} from {started}, {size(run.peak_memory)} of memory"
    if record.error:
        yield "error", record.error
    held = {name: result.pop(f"{name}_bytes", None) for name in ("image", "label")}
    if cell.stage == "label":
        held["label"] = record.bytes
    held["public model"] = sum(one.bytes for one in record.public) or None
    if shown := _listed({key: value for key, value in result.items() if key != "schedule"}):
        yield "result", shown
    if counted := [f"{name}s {size(count)}" for name, count in held.items() if isinstance(count, int)]:
        yield "bytes", ", ".join(counted)
    if record.files:
        named = record.files if len(record.files) < _MANY else [plural(len(record.files), "file")]
        yield "files", ", ".join([*named, size(record.bytes)])
    yield from cell.parents.items()
    where = {"on": here.get("accelerator", here.get("cpu")), **here}
    yield "environment", _listed({key: where[key] for key in _WHERE if key in where})


def _listed(values: Mapping[str, Any]) -> str:
    """Write numbers and words by name; lists are left out."""
    shown = [
        f"{key} ({_listed(value)})" if isinstance(value, dict)
        else f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items() if isinstance(value, (dict, int, float, str))
    ]  # fmt: skip
    return ", ".join(shown[:_MOST]) + (f" and {len(shown) - _MOST} more" if len(shown) > _MOST else "")


def images_of(store: Store, record: Record) -> Path:
    """Return the folder of a cell's images: its own, or those it was made from.

    Raises:
        UserError: it has none, or they are not in the store as they were made.
    """
    cell_id = record.id if record.cell.stage == "distill" else record.cell.parents.get("images")
    if cell_id is None:
        raise UserError(f"{record.id} has no images: expected a cell of distill, or one made from images")
    return store.folder(store.whole(cell_id).id)
