"""Set the papers' numbers beside ours: measured, published, and the difference in points.

Measured is what the boards and the store hold under a paper's own recipe (protocols official-…), with the method's own
labels: mean ± standard deviation (seeds) of the last epoch, where papers print their best. Δ is measured − published,
± half the 95 % interval of what was measured. Below stand the commands that measure what is missing."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from bench.cli import options as flags
from bench.cli import screen
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from bench.report_legacy.board import Row
    from bench.report_legacy.published_file import Published
    from bench.report_legacy.published_table import Number

HELP = "measured, published, Δ: the papers' numbers beside ours"
EXAMPLES = """examples:
  python -m bench published                                            every published number
  python -m bench published --dataset imagenet-1k --method hello       of one method on one data set
  python -m bench published --method rded --store /shared/me/bench     beside what a store holds
  python -m bench published --json                                     all of it, for programs
"""
WIDEST = 100  # columns of the table
NONE = "–"
COLUMNS = ("method", "student", "IPC", "published †", "by", "label bytes", "measured", "Δ")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench published``."""
    parser.add_argument("--dataset", metavar="NAME", help="of this data set alone")
    parser.add_argument("--method", metavar="NAME", help="of this method alone")
    parser.add_argument("--store", type=Path, metavar="PATH", help="look there too (default: as for bench run, if any)")
    parser.add_argument(
        "--boards", type=Path, default=Path("leaderboards"), metavar="DIR", help="default: leaderboards"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    """``bench published``."""
    from bench.report_legacy.published import load
    from bench.report_legacy.published_table import numbers

    every = load()
    for kind, wanted in (("dataset", arguments.dataset), ("method", arguments.method)):
        known = {getattr(one, kind) for one in every}
        if wanted is not None and wanted not in known:
            raise unknown(f"{kind} with published numbers", wanted, known)
    fits = [one for one in every if arguments.dataset in (None, one.dataset) and arguments.method in (None, one.method)]
    if not fits:
        raise UserError(f"nothing is published of {arguments.method} on {arguments.dataset}; leave out one of them")
    found = numbers(fits)
    measured = _measured(arguments.store, arguments.boards)
    out = screen.console()
    if arguments.json:
        out.print(json.dumps([_facts(one, measured) for one in found], indent=2, ensure_ascii=False), markup=False)
    else:
        _show(found, measured, out)
    return 0


def _measured(place: Path | None, boards: Path) -> list[Row]:
    """The rows of a store and, where it has none of the kind, of the boards."""
    from bench.report_legacy.board import make_rows
    from bench.report_legacy.boards import SUITES
    from bench.report_legacy.collect import collect
    from bench.report_legacy.entries import read_jsonl
    from bench.store.artifacts import Store

    entries = []
    root = Path(os.environ.get(flags.STORE_VARIABLE, ".bench")) if place is None else flags.existing_store(place)
    if (root / "cells").is_dir():
        entries = collect(Store(root), suite=None)
    for path in sorted([*boards.glob("*.records.jsonl"), *boards.glob(f"{SUITES}/*/*.records.jsonl")]):
        there = {entry.row for entry in entries}
        kept = read_jsonl(path)
        entries += [entry for entry in kept.entries if entry.row not in there]
        for one in kept.left_out:
            sys.stderr.write(f"bench: {path}: left out: {one}\n")
    return make_rows(entries)


def _facts(number: Number, rows: list[Row]) -> dict[str, Any]:
    from bench.report_legacy.published import commands, obstacle
    from bench.report_legacy.published_table import delta, measured_beside

    first, row = number.first, measured_beside(number, rows)
    difference = None if row is None else delta(number, row)
    asked = commands(number.rows)
    return {
        "dataset": first.dataset,
        "method": first.method,
        "variant": first.variant or None,
        "ipc": first.ipc,
        "student": first.student,
        "teacher": first.teacher or None,
        "published": first.printed,
        "published_top1": first.top1,
        "published_std": first.std,
        "sources": list(dict.fromkeys(one.source for one in number.rows)),
        "protocols": sorted({one.protocol for one in number.rows if one.protocol}),
        "unchecked": all(one.unchecked for one in number.rows),
        "notes": list(dict.fromkeys(one.note for one in number.rows if one.note)),
        "label_bytes_computed": number.label_bytes,
        "storage_printed": number.storage or None,
        "measured": None if row is None else _percentages(row),
        "delta": None if difference is None else round(difference, 4),
        "command": asked[0][0] if asked else None,
        "obstacle": obstacle(first) or None,
    }


def _percentages(row: Row) -> dict[str, Any]:
    top1, oracle = row.top1, row.oracle.mean
    facts = {"top1": top1.mean, "std": top1.std, "ci95": top1.ci95, "oracle_top1": oracle}
    shown = {name: None if value is None else round(100 * value, 4) for name, value in facts.items()}
    return {"protocol": row.protocol, "n": top1.n, **shown, "label_bytes": row.label_bytes}


def _show(found: list[Number], rows: list[Row], out: Console) -> None:
    from bench.report_legacy.published import commands
    from bench.report_legacy.published_table import measured_beside

    missing: list[Published] = []
    for dataset in dict.fromkeys(number.first.dataset for number in found):
        lines = []
        for number in (one for one in found if one.first.dataset == dataset):
            row = measured_beside(number, rows)
            lines.append(_line(number, row))
            missing += number.rows if row is None else ()
        out.print(f"{dataset}", markup=False)
        right = ["IPC", "published †", "label bytes", "measured", "Δ"]
        out.print(screen.table(COLUMNS, lines, right=right), width=min(WIDEST, out.width))
        out.print()
    out.print(
        "† printed by others; label bytes are computed from their recipe (≈: of which something is left open; –: it\n"
        "does not say enough); ?: not compared with its source. ‡: the recipe behind the published number is unknown.",
        markup=False,
    )
    if asked := commands(missing):
        out.print("\nTo measure what is missing:", markup=False)
    for command, _ in asked:
        out.print(_wrapped(command), markup=False)


def _wrapped(command: str) -> str:
    """A command over several lines, each flag beside its value."""
    joined = re.sub(r"(--\S+) ", "\\1\0", command)
    lines = textwrap.wrap(joined, WIDEST - 6, break_long_words=False, break_on_hyphens=False)
    return " \\\n    ".join(lines).replace("\0", " ")


def _line(number: Number, row: Row | None) -> list[str]:
    from bench.report_legacy.published_table import delta_text, measured_text
    from bench.report_legacy.wording import plain

    first = number.first
    method = f"{first.method}, {first.variant}" if first.variant else first.method
    by = ", ".join(dict.fromkeys(one.source for one in number.rows))
    ours = (NONE, NONE) if row is None else (measured_text(row), delta_text(number, row))
    cells = (method, first.student, str(first.ipc), number.text, by, number.label_text or NONE, *ours)
    return [escape(plain(cell)) for cell in cells]
