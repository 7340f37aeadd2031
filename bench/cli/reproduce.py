"""Compute a row of a board again and hold the numbers against the recorded ones.

They are the same to the last bit (same CPU, threads and versions), or inside the row's 95 % interval; else the exit
code is 1.

A row is named by the id of one of its cells or by words: a method, labels, ipcN, a data set, sN (the seed), a student.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bench.api import catalogue
from bench.cli import launch, parse, screen
from bench.cli.options import DATA_ROOT, request
from bench.errors import UserError
from bench.format import plural
from bench.planning.plan import plan
from bench.planning.protocols import all_protocols, unchanged
from bench.store.artifacts import Store
from bench.store.entries import SUFFIX

ARGUMENTS = f"""
ROW+  the id of a cell or its beginning; or words, e.g. hello projector ipc10 digits
--boards PATH  a folder of boards, or one *.records.jsonl (default: leaderboards, or results where those have no number
    of the row)
{launch.ARGUMENTS}
--dataset folder:PATH  the place of a folder of your own
--protocol FILE.toml  a protocol of your own
--teacher PATH  the checkpoint of the row, where it came from a file
--teacher-trajectory DIR  its checkpoints, where they came from a folder
{DATA_ROOT}
"""
EXAMPLES = """examples:
  python -m bench reproduce hello projector ipc10 digits s0     one seed of a row
  python -m bench reproduce rded teacher ipc10 digits           all seeds of it
  python -m bench reproduce rded-teacher-digits-ipc10-convnet3-w32-s0 --store again
"""


# a fresh store and no boards unless asked for; threads and device as recorded
DEFAULTS = {"store": None, "out": None, "threads": None, "device": None}


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench reproduce``; 1 when a cell failed, or the numbers are neither the same nor inside the interval."""
    row, wanted = _choose(arguments.row, arguments.boards)
    if ":" in row.base and arguments.store is None:
        raise UserError(f"{row.base} is an imported set; name the store that has it with --store")
    temporary = tempfile.TemporaryDirectory(prefix="bench-reproduce-") if arguments.store is None else None
    with temporary or nullcontext(str(arguments.store)) as place:
        arguments.store = Path(place)
        return _again(row, wanted, arguments, kept=temporary is None)


def _choose(words: Sequence[str], boards: Path | None) -> tuple[Any, list[Any]]:
    """Return the row and its finished records, of the first boards that have a number of it."""
    import pandas as pd

    from bench.exchange.reproduction import choose, matching
    from bench.report.results import load_results

    places = [Path("leaderboards"), Path("results")] if boards is None else [boards]
    files = [[place] if place.name.endswith(SUFFIX) else sorted(place.glob(f"*{SUFFIX}")) for place in places]
    frames = [load_results(found) for found in files if found]
    if not frames:
        shown = " or ".join(map(str, places))
        raise UserError(f"there are no boards in {shown} (*{SUFFIX}); name their folder with --boards")
    having = [one for one in frames if len(matching(words, one[one["state"] == "done"]))]
    return choose(words, having[0] if having else pd.concat(frames, ignore_index=True))


def _again(row: Any, wanted: list[Any], arguments: argparse.Namespace, kept: bool) -> int:
    from bench.exchange.reproduction import Again, find, title, verdict

    grid = plan(request(parse(_words(row, wanted[0].changed, arguments))))
    cells, notes = find(grid, wanted)
    recorded = wanted[0].environment
    arguments.threads = arguments.threads or int(recorded.get("threads", 1))
    arguments.device = arguments.device or ("cpu" if recorded.get("device", "cpu") == "cpu" else "auto")
    arguments.native_kernels |= recorded.get("kernels", "native") != "portable"
    arguments.out = arguments.out or arguments.store / "leaderboards"
    launch.preflight(grid, arguments, only=cells)
    out = screen.console()
    end = "" if kept else "; what is computed is removed at the end, --store DIR keeps it for bench diff"
    for line in (f"{title(row)}: {plural(len(cells), 'student')} again{end}", *notes):
        out.print(line, markup=False)
    whole = grid if kept else grid.reduced(cells)  # the board of a store of its own has no other rows
    if code := launch.compute(out, whole, arguments, only=set(cells), kept=kept):
        return code
    store = Store(arguments.store)
    computed = [record for cell_id in cells if (record := store.record(cell_id)) is not None]
    if len(computed) < len(cells):
        out.print(f"{len(cells) - len(computed)} students are not done yet; run the same command again")
        return 0
    results = [Again.of(record, cells[record.id]) for record in computed]
    rows = [
        [
            "/".join(map(str, dict.fromkeys((one.record.seed, one.record.student_seed)))),
            f"{100 * one.record.top1:.2f}", f"{100 * one.measured:.2f}", f"{100 * one.delta:+.2f}",
            "the same" if one.same_bits else "others",
        ]
        for one in results
    ]  # fmt: skip
    numbers = ["recorded", "measured", "Δ"]
    out.print()
    out.print(screen.table(["seed", *numbers, "bits"], rows, right=numbers))
    said, fine = verdict(row, results, computed[0].run.environment)
    out.print(said, markup=False)
    return 0 if fine else 1


def _words(row: Any, changed: dict[str, Any], arguments: argparse.Namespace) -> list[str]:
    """Return the words behind ``bench`` that make the row again, with what only the user can know."""
    from bench.report.command import command

    if arguments.protocol is None and unchanged(row.protocol) not in all_protocols():
        raise UserError(
            f"protocol {row.protocol!r} is none of this installation's (bench list protocols), so it came from a file; "
            "name it with --protocol FILE.toml"
        )
    if row.dataset not in catalogue.names() and arguments.dataset is None and "dataset" not in changed:
        raise UserError(f"{row.dataset} is a folder of its own; name its place with --dataset folder:PATH")
    for flag in ("teacher", "teacher_trajectory"):
        if changed.get(flag, "torchvision") != "torchvision" and getattr(arguments, flag) is None:
            option = flag.replace("_", "-")
            raise UserError(f"the row has a teacher from a file, {changed[flag]}; name it with --{option} PATH")
    words = shlex.split(command([row]).replace("\\\n", " "))
    words = words[words.index("run") :]
    for flag in ("dataset", "protocol", "teacher", "teacher_trajectory", "data_root"):  # the last of a flag wins
        if (value := getattr(arguments, flag)) is not None:
            words += [f"--{flag.replace('_', '-')}", str(value)]
    return [*words, "--store", str(arguments.store)]
