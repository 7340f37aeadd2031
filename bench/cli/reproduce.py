"""Run a row of a committed board again, and hold the numbers against the recorded ones: the same to the last bit (same
CPU, threads and versions), or inside the row's 95 % interval? The exit code is 1 where neither holds.

A row is named by the id of one of its cells or by words: a method, labels, ipcN, sN (the seed), a student."""

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

if TYPE_CHECKING:
    from bench.exchange.reproduction import Chosen
    from bench.store.entries import Entry

HELP = "run a row of a board again and compare"
EXAMPLES = """examples:
  python -m bench reproduce hello projector ipc10 s0            one seed of a row
  python -m bench reproduce rded teacher ipc10 digits           all seeds of it
  python -m bench reproduce rded-teacher-digits-ipc10-convnet3-w32-s0 --store again
"""
_SUFFIX = ".records.jsonl"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``bench reproduce``."""
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
    group.add_argument(
        "--dataset", metavar="folder:PATH", help="where a folder of one's own lies, which no board knows"
    )
    group.add_argument("--protocol", metavar="FILE.toml", help="a protocol of one's own, which no board holds")
    group.add_argument("--teacher", metavar="PATH", help="the checkpoint of the row, where it had a foreign one")
    flags.data_root_flag(group)
    # a fresh store and no boards unless asked for; threads and device as recorded
    parser.set_defaults(store=None, out=None, threads=None, device=None)


def execute(arguments: argparse.Namespace) -> int:
    """``bench reproduce``; 1 when a cell failed, or the numbers are neither the same nor inside the interval."""
    from bench.exchange.reproduction import choose

    chosen = choose(arguments.row, _entries(arguments.boards))
    if chosen.row.base.startswith("external:") and arguments.store is None:
        raise UserError(f"{chosen.row.base} is an imported set; name the store that has it with --store")
    temporary = tempfile.TemporaryDirectory(prefix="bench-reproduce-") if arguments.store is None else None
    with temporary or nullcontext(str(arguments.store)) as place:
        arguments.store = Path(place)
        return _again(chosen, arguments)


def _entries(named: Path | None) -> list[Entry]:
    from bench.store.entries import read_jsonl

    for boards in [Path("leaderboards"), Path("results")] if named is None else [named]:
        if files := [boards] if boards.name.endswith(_SUFFIX) else sorted(boards.glob(f"*{_SUFFIX}")):
            break
    else:
        raise UserError(f"there are no boards in {boards} (*{_SUFFIX}); name their folder with --boards")
    return [entry for path in files for entry in read_jsonl(path).entries]


def _again(chosen: Chosen, arguments: argparse.Namespace) -> int:
    from bench.exchange.reproduction import again, find, title, verdict
    from bench.planning.plan import plan
    from bench.store.artifacts import Store

    words = _words(chosen, arguments)
    parser = Parser(prog="bench run")
    flags.grid_flags(parser)
    flags.store_flag(parser)
    grid = plan(flags.request(parser.parse_args(words)))
    cells, notes = find(grid, chosen.entries)
    recorded = chosen.entries[0].environment
    arguments.threads = arguments.threads or int(recorded.get("threads", 1))
    arguments.device = arguments.device or ("cpu" if recorded.get("device", "cpu") == "cpu" else "auto")
    arguments.out = arguments.out or arguments.store / "leaderboards"
    out = screen.console()
    out.print(f"{title(chosen.row)}: {screen.plural(len(cells), 'student')} again", markup=False)
    for note in notes:
        out.print(note, markup=False)
    if code := launch.compute(out, grid, arguments, only=set(cells)):
        return code
    store = Store(arguments.store)
    records = [(store.record(cell_id), entry) for cell_id, entry in cells.items()]
    results = [again(record, entry) for record, entry in records if record is not None]
    if len(results) < len(records):
        out.print(f"{len(records) - len(results)} students are not done yet; run the same command again")
        return 0
    rows = [
        [
            str(one.entry.seed if one.entry.student_seed is None else f"{one.entry.seed}/{one.entry.student_seed}"),
            f"{100 * (one.entry.top1 or 0):.2f}",
            f"{100 * one.measured:.2f}",
            f"{100 * one.delta:+.2f}",
            "the same" if one.same_bits else "others",
        ]
        for one in results
    ]
    numbers = ["recorded", "measured", "Δ"]
    out.print()
    out.print(screen.table(["seed", *numbers, "bits"], rows, right=numbers))
    here = next(record for record, _ in records if record is not None).run.environment
    said, fine = verdict(chosen.row, results, dict(here))
    out.print(said, markup=False)
    return 0 if fine else 1


def _words(chosen: Chosen, arguments: argparse.Namespace) -> Sequence[str]:
    """The words behind ``bench run`` that make the row again: its own command, and what only the user can know."""
    from bench.api import catalogue
    from bench.exchange.reproduction import checked_protocol
    from bench.planning.protocols import all_protocols
    from bench.report.command import command

    row, changed = chosen.row, chosen.entries[0].changed
    checked_protocol(row, all_protocols(), arguments.protocol is not None)
    if row.dataset not in catalogue.names() and arguments.dataset is None and "dataset" not in changed:
        raise UserError(f"{row.dataset} is a folder of somebody's own; say where it lies with --dataset folder:PATH")
    if "teacher" in changed and arguments.teacher is None:
        raise UserError(f"the row has a teacher from a file, {changed['teacher']}; name it with --teacher PATH")
    text = command([chosen.row]).replace("\\\n", " ")
    words = shlex.split(text)
    words = words[words.index("run") + 1 :]
    for flag in ("dataset", "protocol", "teacher", "data_root"):  # the last of a flag holds
        if (value := getattr(arguments, flag)) is not None:
            words += [f"--{flag.replace('_', '-')}", str(value)]
    return [*words, "--store", str(arguments.store)]
