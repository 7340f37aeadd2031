"""Show the record of one cell in full: what it was made from, what came out, how long it took, what failed."""

from __future__ import annotations

import argparse
import json

from bench.cli import options as flags
from bench.cli import screen
from bench.errors import UserError, unknown

HELP = "the record of one cell"
EXAMPLES = """examples:
  python -m bench show hello-projector-digits-ipc10-convnet3-w32-s0-1f0c2ab9d4
  python -m bench show hello-projector-digits-ipc10       any beginning that only one cell has
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bench show``."""
    parser.add_argument("cell", metavar="CELL", help="the id of a cell, or its beginning")
    flags.store_flag(parser)


def execute(arguments: argparse.Namespace) -> int:
    """``bench show``."""
    from bench.harness.store import Damaged, Store

    store = Store(flags.existing_store(arguments.store))
    known = [path.name for path in (store.root / "cells").iterdir() if not path.name.startswith(".")]
    known += [path.stem for path in (store.root / "failures").glob("*.json")]
    fitting = sorted({name for name in known if name.startswith(arguments.cell)})
    if arguments.cell in fitting:
        fitting = [arguments.cell]
    if not fitting:
        raise (
            unknown("cell", arguments.cell, known)
            if len(known) <= 20
            else UserError(f"no cell of {arguments.store} begins with {arguments.cell!r}; bench status lists grids")
        )
    if len(fitting) > 1:
        more = f" and {len(fitting) - 3} more" if len(fitting) > 3 else ""
        raise UserError(f"{arguments.cell!r} is the beginning of {', '.join(fitting[:3])}{more}; write more of it")
    try:
        record = store.record(fitting[0]) or store.failure(fitting[0])
    except Damaged as damage:
        raise UserError(f"{damage}; bench run makes it again") from None
    assert record is not None
    out = screen.console()
    facts = record.model_dump(mode="json")
    trace = facts.pop("traceback")
    files = facts.pop("files")
    out.print(json.dumps(facts, indent=2), markup=False)
    rows = [[name, screen.human_bytes(file["bytes"]), file["sha256"][:16]] for name, file in files.items()]
    if rows:
        out.print(screen.table(["file", "size", "sha256"], rows[:20], right=["size"]))
        if len(rows) > 20:
            out.print(f"… and {len(rows) - 20} more files; {screen.human_bytes(record.bytes)} in all")
        out.print(f"in {store.folder(record.id)}")
    if trace:
        out.print(trace, markup=False)
    return 0
