"""Compare two cells, or two entries of a board: configuration, environment, artifacts and metrics.

The first line names the likeliest reason why their numbers differ.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.cli import screen
from bench.cli.options import STORE, existing_store, read_record, select_one
from bench.errors import UserError
from bench.exchange.comparison import Change, RunView, compare
from bench.exchange.reason import reason
from bench.store.artifacts import Damaged
from bench.store.entries import SUFFIX, read_jsonl

ARGUMENTS = f"""
A  the id of a cell, or its beginning; or FILE.records.jsonl:CELL, an entry of a board
B?  another one (default: the same in --store-b)
{STORE}
--store-b PATH  the store of B (default: that of A)
--json  everything that differs, for programs
"""
EXAMPLES = """examples:
  python -m bench diff hello-projector-digits-ipc10-convnet3-w32-s0 hello-projector-digits-ipc10-convnet3-w32-s1
  python -m bench diff CELL CELL --store-b /shared/you/bench     the same cell in two stores
  python -m bench diff CELL leaderboards/digits.records.jsonl:CELL   mine and the board's
"""
_MOST = 20  # changes shown per kind
_LONGEST = 44  # characters of a value


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench diff``."""
    if arguments.b is None and arguments.store_b is None:
        raise UserError("bench diff needs two cells, or one and --store-b, where it also is; see bench diff --help")
    a = _view(arguments.a, arguments.store)
    b = _view(arguments.a if arguments.b is None else arguments.b, arguments.store_b or arguments.store)
    row, levels = compare(a, b)
    why, out = reason(a, b, row, levels), screen.console()
    if arguments.json:
        facts = {"reason": why, "row": [asdict(one) for one in row], "levels": [asdict(one) for one in levels]}
        out.print(json.dumps(facts, indent=1, default=str), markup=False, soft_wrap=True)
        return 0
    out.print(f"{why}\n", markup=False)
    out.print(f"A  {a.id}\nB  {b.id}", markup=False)
    _table(out, "row", row)
    for level in levels:
        if level.path:
            same = level.a if level.a == level.b else f"{level.a}\n   {level.b}"
            out.print(f"\n{' › '.join(level.path)}: {same}", markup=False)
        if level.absent:
            out.print(f"  {level.absent}", markup=False)
        _table(out, "configuration", level.configuration)
        _table(out, "environment", level.environment)
        _table(out, "artifact", level.artifacts)
        _table(out, "metric", level.metrics, delta=True)
    return 0


def _view(word: str, place: Path) -> RunView:
    """Return the run that a word of the command line names.

    Raises:
        UserError: it names none or several, or its record can't be read.
    """
    file, colon, name = word.rpartition(":")
    if colon and file.endswith(SUFFIX):
        loaded = read_jsonl(Path(file))
        if loaded.left_out and not loaded.entries:
            raise UserError(f"{file} has no records: {loaded.left_out[0].why}")
        entries = {entry.cell: entry for entry in loaded.entries}
        return RunView.of_entry(entries[select_one(name, entries)])
    if word.endswith(SUFFIX):
        raise UserError(f"{word} has many entries; name one: {word}:CELL")
    store = existing_store(place)

    def lookup(cell_id: str) -> Any:
        try:
            return store.record(cell_id)
        except Damaged:
            return None

    return RunView.of_record(read_record(store, word), lookup)


def _table(out: Console, title: str, found: Sequence[Change], delta: bool = False) -> None:
    if not found:
        return
    columns = [title, "A", "B", *(["Δ"] if delta else [])]
    rows: Any = []
    for change in found[:_MOST]:
        values = ["·" if value is None else str(value) for value in (change.a, change.b)]
        short = [text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…" for text in values]
        difference = "" if change.delta is None else f"{change.delta:+.6g}"
        rows.append([Text(cell) for cell in (change.name, *short, difference)][: len(columns)])
    out.print()
    out.print(screen.table(columns, rows, right=["Δ"]))
    if len(found) > _MOST:
        out.print(f"… and {len(found) - _MOST} more; --json has all")
