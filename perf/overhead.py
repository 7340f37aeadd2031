"""Seconds of the processor that the harness spends on a cell beside its work: a grid of cells that do nothing.

A method and an evaluator that do nothing, as plug-ins in a temporary folder, through the launchers of this machine.
Every run is a fresh process with a fresh store; what a cell costs is the difference between a long and a short run over
the difference in cells, so the start of the processes (imports, data set, asking git) is left out. Half of the cells
distill one image of 16 px, the others evaluate it.

    python perf/overhead.py [--cells 400]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.execution import local
from bench.execution.environment import Options
from bench.execution.scheduling import Schedule, prepare
from bench.planning.grid import Request
from bench.planning.plan import plan
from bench.store.artifacts import Store

PLUGINS = """
from bench.api import Distiller, Evaluator, Images, MethodInfo, Protocol
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule


class Nothing(Distiller):
    info = MethodInfo(name="nothing", title="nothing", version=1, paper="", labels="hard")

    def teachers(self, point):
        return ()

    def distill(self, task):
        import torch

        count = task.ipc * task.dataset.classes
        labels = torch.arange(task.dataset.classes).repeat_interleave(task.ipc)
        return Images(torch.zeros(count, 3, 16, 16, dtype=torch.uint8), labels)

    def encoding(self, point):
        return "png"


class Nobody(Evaluator):
    name, version, Config = "nobody", 1, Protocol

    def schedule(self, protocol, dataset, *, ipc, seed):
        return AugmentationSchedule(plan=AugmentationConfig(size=16), images=10 * ipc, epochs=1, batch_size=1)

    def evaluate(self, task):
        return {"top1": 0.0}
"""
ENTRY_POINTS = """
[bench.methods]
nothing = nothing_at_all:Nothing

[bench.evaluators]
nobody = nothing_at_all:Nobody
"""
PROTOCOL = 'name = "none"\nversion = 1\ntrack = "common"\ntitle = "nothing"\nevaluator = "nobody"\n'


class Unwatched:
    """Shows nothing."""

    def update(self, schedule: Schedule) -> None:
        """Nothing."""


def install(folder: Path) -> None:
    """Write the plug-ins where an interpreter with ``folder`` on its path finds them."""
    facts = folder / "nothing_at_all-1.dist-info"
    facts.mkdir()
    (folder / "nothing_at_all.py").write_text(PLUGINS)
    (folder / "none.toml").write_text(PROTOCOL)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: nothing-at-all\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)


def run(cells: int, jobs: int, folder: Path) -> None:
    """Work off a grid in this process (``jobs`` 0) or in a pool, and print the seconds as JSON."""
    seeds = tuple(range(cells // 2))
    protocols = (str(folder / "none.toml"),)
    grid = plan(
        Request(methods=("nothing",), ipc=(1,), seeds=seeds, labels=("hard",), baselines=False, protocols=protocols)
    )
    options = Options(store=folder / "store", device="cpu")
    schedule = prepare(grid, Store(options.store))
    if jobs:
        local.run(schedule, options, jobs, Unwatched())
    else:
        local.run_inline(schedule, options, Unwatched())
    failures = [path.read_text() for path in (folder / "store" / "failures").iterdir()]
    assert len(schedule.computed) == cells, failures[:1]
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps(sum(one.ru_utime + one.ru_stime for one in used)))


def fresh(cells: int, jobs: int) -> float:
    """Seconds of a run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, __file__, "--run", str(cells), str(jobs), folder]
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return float(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=400, help="of the long runs (default: 400)")
    parser.add_argument("--tiny", action="store_true", help="two cells in one process")
    parser.add_argument("--run", nargs=3, metavar=("CELLS", "JOBS", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(int(options.run[0]), int(options.run[1]), Path(options.run[2]))
        return
    if options.tiny:
        print(f"two cells and the start: {fresh(2, 0):.1f} s")
        return
    few, many = 20, options.cells
    for jobs, what in ((0, "in one process"), (2, "in a pool of 2")):
        start, whole = (fresh(cells, jobs) for cells in (few, many))
        each = (whole - start) / (many - few)
        print(f"{what}: {1000 * each:.1f} ms a cell, {start - few * each:.1f} s to start")


if __name__ == "__main__":
    main()
