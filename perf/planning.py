"""Seconds that planning and reporting take on large grids: the dry run, `status` and `report`.

Grids of four methods on digits, with as many seeds as make about the cells asked for, stand in stores of made-up but
valid records: a small file an artifact; of a hundred students one failed, one running and one not begun. A command is
the whole of a fresh process, start and imports included. The files are in the page cache. Growth is what a cell costs
the processor, against the size before: 1 is linear, and less where the start weighs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.execution import heartbeat
from bench.planning import manifest
from bench.planning.grid import Grid, Request
from bench.planning.plan import plan
from bench.store.artifacts import Store
from bench.store.cell import Cell
from bench.store.record import FileFacts, Record, RunFacts

METHODS = ("sre2l", "g_vbsm", "rded", "hello")
LABELS = ("native", "online", "stored:topk3", "stored:prune10+topk3+int8", "static:fp16", "teacher:int8", "hard")
RUN = RunFacts(started="2026-01-01T00:00:00+00:00", seconds=1.5, peak_memory=1 << 30, environment={"cpu": "made up"})


class Spent(NamedTuple):
    wall: float
    cpu: float


def request(seeds: int) -> Request:
    """A grid whose cells grow with its seeds."""
    return Request(methods=METHODS, labels=LABELS, seeds=tuple(range(seeds)))


def seeds_for(cells: int) -> int:
    """How many seeds make about so many cells."""
    few, more = (len(plan(request(seeds)).cells) for seeds in (4, 8))
    return max(1, round((cells - 2 * few + more) / ((more - few) / 4)))


def fill(store: Store, grid: Grid) -> None:
    """Write a record for nearly every cell of a grid."""
    contents: dict[str, str] = {}
    students = 0
    for cell in grid.cells:
        students += cell.stage == "evaluate"
        match students % 100 if cell.stage == "evaluate" else None:
            case 1:
                failed = Record(id=cell.id, cell=cell, state="failed", run=RUN, error="ValueError: made up")
                (store.root / "failures" / f"{cell.id}.json").write_text(failed.model_dump_json(indent=1))
            case 2:
                facts = {"done": 1, "total": 2, "metrics": {}, "pid": 1, "host": "made-up", "job": None}
                heartbeat.write(store, cell.id, {**facts, "started": time.time(), "first": 0, "time": time.time()})
            case 3:
                pass
            case _:
                contents[cell.id] = _finish(store, cell, contents)


def _finish(store: Store, cell: Cell, contents: dict[str, str]) -> str:
    folder = store.folder(cell.id)
    folder.mkdir()
    (folder / "artifact.bin").write_bytes(cell.id.encode())
    facts = FileFacts(bytes=len(cell.id), sha256=hashlib.sha256(cell.id.encode()).hexdigest())
    result: dict[str, Any] = {"top1": facts.bytes / 100, "oracle_top1": facts.bytes / 100}
    if cell.stage == "evaluate":
        result |= {"image_bytes": 1000, "label_bytes": 2000, "epochs": 300, "images": 100}
    record = Record(
        id=cell.id,
        cell=cell,
        state="done",
        inputs={parent: contents[parent] for parent in cell.parents.values()},
        result=result,
        files={"artifact.bin": facts},
        run=RUN,
    )
    (folder / "record.json").write_text(record.text)
    return record.content


def command(arguments: Sequence[str]) -> Spent:
    """Of a fresh process, as a whole."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    spent = time.perf_counter() - wall
    if done.returncode not in (0, 1):  # 1: cells have failed
        raise RuntimeError(f"{' '.join(arguments[:4])} …: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(spent, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(seeds: int, folder: Path) -> tuple[int, dict[str, Spent]]:
    """How many cells there are, and all measurements at one size."""
    grid, store = plan(request(seeds)), Store(folder / "store")
    fill(store, grid)
    manifest.keep(store, grid)
    place = ["--store", str(store.root)]
    wanted = ["--methods", ",".join(METHODS), "--labels", ",".join(LABELS), "--seeds", ",".join(map(str, range(seeds)))]
    spent = {
        "run --dry-run, no store": command(["-m", "bench", "run", "--dry-run", *wanted, "--store", str(folder / "no")]),
        "run --dry-run": command(["-m", "bench", "run", "--dry-run", *wanted, *place]),
        "status": command(["-m", "bench", "status", *place]),
    }
    if seeds > 1:
        spent["report"] = command(["-m", "bench", "report", *place, "--out", str(folder / "boards")])
    return len(grid.cells), spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", default="1000,10000", help="sizes of the grids (default: 1000,10000)")
    parser.add_argument("--folder", type=Path, help="where the stores are made for a while (default: the system's)")
    parser.add_argument("--tiny", action="store_true", help="the smallest grid alone")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    before: tuple[int, dict[str, Spent]] | None = None
    for wanted in [1] if options.tiny else map(int, options.cells.split(",")):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            cells, spent = measure(seeds_for(wanted), Path(folder))
        print(f"{f'{cells:,} cells':26}{'clock s':>10}{'CPU s':>10}{'growth':>10}")
        for what, (wall, cpu) in spent.items():
            growth = f"{(cpu / cells) / (before[1][what].cpu / before[0]):10.2f}" if before else ""
            print(f"{what:26}{wall:10.2f}{cpu:10.2f}{growth}")
            if before:
                print(f"ratio planning_growth_{what.replace(' ', '_')}_{cells} {growth.strip()}")
        before = cells, spent


if __name__ == "__main__":
    main()
