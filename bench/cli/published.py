"""Compare the papers' numbers with ours: measured, published, and the difference in points.

Measured is what the boards and the store hold under a paper's own recipe (protocols official-…), with the method's own
labels: mean ± standard deviation (sets) of the last epoch, where papers print their best. Δ is measured − published,
with the 95 % interval of what was measured. What is missing comes with the command that measures it.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from bench.cli import screen
from bench.cli.options import existing_store
from bench.cli.parser import default_store
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

ARGUMENTS = """
--dataset NAME  of this data set alone
--method NAME  of this method alone
--store PATH  look there too (default: as for bench run, if any)
--boards DIR = leaderboards  default: leaderboards
--json  print JSON
"""
DEFAULTS = {"store": None}
EXAMPLES = """examples:
  python -m bench published                                            every published number
  python -m bench published --dataset imagenet-1k --method hello       of one method on one data set
  python -m bench published --method rded --store /shared/me/bench     beside what a store holds
  python -m bench published --json                                     all of it, for programs
"""
WIDEST = 100  # columns of the table
COLUMNS = ("method", "student", "IPC", "published †", "by", "label bytes", "measured", "Δ")
JSON = ["dataset", "method", "variant", "ipc", "student", "teacher", "printed", "value", "std", "source", "protocol",
        "unchecked", "note", "label_bytes", "storage", "measured_protocol", "measured_n", "measured_top1_mean",
        "measured_top1_std", "measured_top1_low", "measured_top1_high", "measured_oracle_mean",
        "measured_label_bytes", "delta", "command", "obstacle"]  # fmt: skip


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench published``."""
    from bench.report.papers.published import SETTING, beside, load

    frame, every = load(), load()
    for name in ("dataset", "method"):
        if (wanted := getattr(arguments, name)) is not None:
            if wanted not in set(every[name]):
                raise unknown(f"{name} with published numbers", wanted, set(every[name]))
            frame = frame[frame[name] == wanted]
    if frame.empty:
        raise UserError(f"nothing is published of {arguments.method} on {arguments.dataset}; leave out one of them")
    found, out = beside(frame, _measured(arguments.store, arguments.boards)), screen.console()
    if arguments.json:
        place = [*SETTING, "value"]
        asked = {key: commands(own) for key, own in frame.groupby(place)}
        found["command"] = [next(iter(asked[key]), None) for key in found[place].itertuples(index=False, name=None)]
        found["obstacle"] = [obstacle(one) or None for one in found.itertuples()]
        text = found[JSON].to_json(orient="records", indent=2, force_ascii=False, double_precision=6)
        out.print(text, markup=False, soft_wrap=True)
    else:
        _show(found, frame, out)
    return 0


def obstacle(one: Any) -> str:
    """Tell why the benchmark can't measure a published setting; empty where it can."""
    from bench.api import architectures, catalogue, registry

    if one.variant:
        return "a changed method"
    for noun, name, known in (
        ("plug-in", one.method, registry.method_names()),
        ("data set", one.dataset, catalogue.names()),
    ):
        if name not in known:
            return f"no {noun} {name}"
    try:
        architectures.check(one.student)
    except UserError:
        return f"no student {one.student}"
    return "" if one.can_run else "its recipe is not known well enough"


def commands(frame: pd.DataFrame) -> list[str]:
    """Commands that measure published settings, as few as make no other setting.

    Settings that the benchmark can't measure come in none.
    """
    frame = frame[[not obstacle(one) for one in frame.itertuples()]]
    request = ["method", "dataset", "runs_as", "labels_as"]
    scales = frame.groupby([*request, "student"], sort=False)["ipc"].agg(
        lambda own: ",".join(map(str, sorted(set(own))))
    )
    grids = scales.reset_index().groupby([*request, "ipc"], sort=False)["student"].agg(",".join).reset_index()
    flags = {
        "method": "methods",
        "dataset": "dataset",
        "ipc": "ipc",
        "student": "students",
        "runs_as": "protocol",
        "labels_as": "labels",
    }
    return [
        "python -m bench run "
        + " ".join(f"--{flag} {shlex.quote(one[name])}" for name, flag in flags.items() if one[name] != "native")
        for one in grids.to_dict("records")
    ]


def _measured(place: Path | None, boards: Path) -> pd.DataFrame:
    """Return the rows of a store and of the boards; what both have, the boards' records stand for."""
    from bench.report.results import load_results, to_frame
    from bench.report.rows import pool

    root = default_store() if place is None else existing_store(place).root
    sources = [root] if (root / "cells").is_dir() else []
    if any(boards.glob("**/*.records.jsonl")):
        sources.append(boards)
    elif boards != Path("leaderboards"):
        raise UserError(f"there are no boards in {boards} (*.records.jsonl); name their folder with --boards")
    frame = load_results(sources) if sources else to_frame([])
    for line in frame.attrs["left_out"]:
        sys.stderr.write(f"bench: left out: {line}\n")
    return pool(frame[frame["metric"] != "cost"].drop_duplicates("cell", keep="last"))


def _show(found: pd.DataFrame, frame: pd.DataFrame, out: Console) -> None:
    from bench.format import plain
    from bench.report.papers.published import SETTING, texts
    from bench.report.rows import records

    for dataset, own in found.groupby("dataset", sort=False):
        out.print(dataset, markup=False)
        lines = []
        for one in records(own):
            printed, measured, delta, weight = texts(one)
            if one.measured_top1_low is not None:  # half of the interval
                delta = re.sub(r" \(.*\)", f" ± {50 * (one.measured_top1_high - one.measured_top1_low):.1f}", delta)
            method = f"{one.method}, {one.variant}" if one.variant else one.method
            cells = (method, one.student, str(one.ipc), printed, ", ".join(one.source), weight, measured, delta)
            lines.append([escape(plain(cell)) for cell in cells])
        table = screen.table(COLUMNS, lines, right=[COLUMNS[2], COLUMNS[3], *COLUMNS[5:]])
        out.print(table, width=min(WIDEST, out.width))
        out.print()
    out.print(
        "† printed by others; label bytes are computed from their recipe (≈: of which something is left open; —: it\n"
        "does not say enough); ?: not compared with its source. ‡: the recipe behind the published number is unknown.",
        markup=False,
    )
    missing = frame.merge(found.loc[found["measured_protocol"].isna(), [*SETTING, "value"]], on=[*SETTING, "value"])
    if asked := commands(missing):
        out.print("\nTo measure what is missing:", markup=False)
    for command in asked:  # over several lines, each flag beside its value
        joined = re.sub(r"(--\S+) ", "\\1\0", command)
        words = textwrap.wrap(joined, 94, break_long_words=False, break_on_hyphens=False)
        out.print(" \\\n    ".join(words).replace("\0", " "), markup=False)
