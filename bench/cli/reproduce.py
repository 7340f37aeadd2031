"""Compute a row of a board again and hold the numbers against the recorded ones.

They are the same to the last bit (same CPU, threads and versions), or inside the row's 95 % interval; else the exit
code is 1.

A row is named by the id of one of its cells or by words: a method, labels, ipcN, sN (the seed), a student.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import launch, screen
from bench.cli import options as flags
from bench.cli.parser import Parser
from bench.errors import UserError
from bench.format import plural

if TYPE_CHECKING:
    from bench.exchange.reproduction import Chosen

HELP = "compute a row of a board again and compare"
EXAMPLES = """examples:
  python -m bench reproduce hello projector ipc10 s0            one seed of a row
  python -m bench reproduce rded teacher ipc10 digits           all seeds of it
  python -m bench reproduce rded-teacher-digits-ipc10-convnet3-w32-s0 --store again
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bench reproduce``."""
    parser.add_argument(
        "row", nargs="+", metavar="ROW", help="the id of a cell or its beginning; or words, e.g. hello projector ipc10"
    )
    parser.add_argument(
        "--boards",
        type=Path,
        metavar="PATH",
        help="a folder of boards, or one *.records.jsonl (default: leaderboards, else results)",
    )
    group = launch.flags(parser)
    group.add_argument("--dataset", metavar="folder:PATH", help="the place of a folder of your own")
    group.add_argument("--protocol", metavar="FILE.toml", help="a protocol of your own")
    group.add_argument("--teacher", metavar="PATH", help="the checkpoint of the row, where it came from a file")
    flags.data_root_flag(group)
    # a fresh store and no boards unless asked for; threads and device as recorded
    parser.set_defaults(store=None, out=None, threads=None, device=None)


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench reproduce``; 1 when a cell failed, or the numbers are neither the same nor inside the interval."""
    from bench.exchange.reproduction import choose
    from bench.report.results import load_results
    from bench.store.entries import SUFFIX

    boards = arguments.boards
    files = [boards] if boards.name.endswith(SUFFIX) else sorted(boards.glob(f"*{SUFFIX}"))
    if not files:
        raise UserError(f"there are no boards in {boards} (*{SUFFIX}); name their folder with --boards")
    chosen = choose(arguments.row, load_results(files))
    if ":" in chosen.row.base and arguments.store is None:
        raise UserError(f"{chosen.row.base} is an imported set; name the store that has it with --store")
    temporary = tempfile.TemporaryDirectory(prefix="bench-reproduce-") if arguments.store is None else None
    with temporary or nullcontext(str(arguments.store)) as place:
        arguments.store = Path(place)
        return _again(chosen, arguments)


def _again(chosen: Chosen, arguments: argparse.Namespace) -> int:
    from bench.exchange.reproduction import again, find, title, verdict
    from bench.planning.plan import plan
    from bench.store.artifacts import Store

    parser = Parser(prog="bench run")
    flags.grid_flags(parser)
    flags.store_flag(parser)
    grid = plan(flags.request(parser.parse_args(_words(chosen, arguments))))
    cells, notes = find(grid, chosen.records)
    recorded = chosen.records[0].environment
    arguments.threads = arguments.threads or int(recorded.get("threads", 1))
    arguments.device = arguments.device or ("cpu" if recorded.get("device", "cpu") == "cpu" else "auto")
    arguments.out = arguments.out or arguments.store / "leaderboards"
    out = screen.console()
    for line in (f"{title(chosen.row)}: {plural(len(cells), 'student')} again", *notes):
        out.print(line, markup=False)
    if code := launch.compute(out, grid, arguments, only=set(cells)):
        return code
    store = Store(arguments.store)
    computed = {cell_id: record for cell_id in cells if (record := store.record(cell_id)) is not None}
    if len(computed) < len(cells):
        out.print(f"{len(cells) - len(computed)} students are not done yet; run the same command again")
        return 0
    results = [again(record, cells[cell_id]) for cell_id, record in computed.items()]
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
    said, fine = verdict(chosen.row, results, next(iter(computed.values())).run.environment)
    out.print(said, markup=False)
    return 0 if fine else 1


def _words(chosen: Chosen, arguments: argparse.Namespace) -> Sequence[str]:
    """Return the words behind ``bench run`` that make the row again, with what only the user can know."""
    from bench.api import catalogue
    from bench.planning.protocols import all_protocols, unchanged
    from bench.report.command import command

    row, changed = chosen.row, chosen.records[0].changed
    if arguments.protocol is None and unchanged(row.protocol) not in all_protocols():
        raise UserError(
            f"protocol {row.protocol!r} is none of this installation's (bench list protocols), so it came from a file; "
            "name it with --protocol FILE.toml"
        )
    if row.dataset not in catalogue.names() and arguments.dataset is None and "dataset" not in changed:
        raise UserError(f"{row.dataset} is a folder of its own; name its place with --dataset folder:PATH")
    if "teacher" in changed and arguments.teacher is None:
        raise UserError(f"the row has a teacher from a file, {changed['teacher']}; name it with --teacher PATH")
    words = shlex.split(command([chosen.row]).replace("\\\n", " "))
    words = words[words.index("run") + 1 :]
    for flag in ("dataset", "protocol", "teacher", "data_root"):  # the last of a flag wins
        if (value := getattr(arguments, flag)) is not None:
            words += [f"--{flag.replace('_', '-')}", str(value)]
    return [*words, "--store", str(arguments.store)]
