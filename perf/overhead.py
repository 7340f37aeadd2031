"""Seconds of the processor that the harness spends on a cell beside its work: a grid of cells that do nothing.

A method and an evaluator that do nothing, as plug-ins in a temporary folder, through the launchers of this machine.
Every run is a fresh process with a fresh store; what a cell costs is the difference between a long and a short run over
the difference in cells, so the start of the processes (imports, data set, asking git) is left out. Half of the cells
distill one image of 8 px, the others evaluate it. A profile of a long run in one process says where the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.execution import local
from bench.execution.options import Options
from bench.execution.scheduling import Schedule, prepare
from bench.planning import plan
from bench.planning.grid import Request
from bench.store.artifacts import Store

PLUGINS = """
from pathlib import Path

from bench.api import Distiller, Evaluator, Images, MethodInfo, Protocol
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule


class Nothing(Distiller):
    info = MethodInfo(name="nothing", title="nothing", version=1, paper="", labels="hard")

    def teachers(self, setting):
        return ()

    def distill(self, task):
        import torch

        return Images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), "png")


class Nobody(Evaluator):
    name, version, Config, protocols = "nobody", 1, Protocol, "nothing_at_all"

    def schedule(self, protocol, dataset, images, seed):
        return AugmentationSchedule(plan=AugmentationConfig(size=8), images=images, epochs=1, batch_size=1)

    def evaluate(self, task):
        return {"top1": 0.0}
"""
ENTRY_POINTS = """
[bench.methods]
nothing = nothing_at_all:Nothing

[bench.evaluators]
nobody = nothing_at_all:Nobody
"""
PROTOCOL = 'name = "none"\nversion = 1\ntrack = "common"\ntitle = "nothing"\n'
# what a cell does, by the functions that do it: (file, function) -> the line of the table
PARTS = {
    ("stages.py", "make_images"): "the cell's own work: one image written",
    ("stages.py", "evaluate"): "the cell's own work: one image read",
    ("worker.py", "_look"): "is it done, are its parents whole",
    ("worker.py", "_settle"): "seeds of the global streams",
    ("heartbeat.py", "__enter__"): "heartbeat: begin",
    ("heartbeat.py", "__exit__"): "heartbeat: end",
    ("artifacts.py", "commit"): "commit: flush and rename",
    ("artifacts.py", "facts"): "digests of the files",
    ("artifacts.py", "draft"): "the draft's folder",
    ("locks.py", "lease"): "lease",
    ("worker.py", "facts"): "facts of the run",
    ("scheduling.py", "settle"): "schedule: settle",
    ("scheduling.py", "ready"): "schedule: what is ready",
}


class Unwatched:
    """Shows nothing."""

    def update(self, schedule: Schedule) -> None:
        """Nothing."""


def install(folder: Path) -> None:
    """Write the plug-ins where an interpreter with ``folder`` on its path finds them."""
    package, facts = folder / "nothing_at_all", folder / "nothing_at_all-1.dist-info"
    package.mkdir()
    facts.mkdir()
    (package / "__init__.py").write_text(PLUGINS)
    (package / "none.toml").write_text(PROTOCOL)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: nothing-at-all\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)


def run(cells: int, jobs: int, store: Path, profile: bool) -> None:
    """Work off a grid in this process (``jobs`` 0) or in a pool, and print the seconds as JSON."""
    plan.EVALUATOR = "nobody"
    seeds = tuple(range(cells // 2))
    request = Request(methods=("nothing",), ipc=(1,), seeds=seeds, labels=("hard",), baselines=False)
    grid = plan.plan(request)
    options = Options(store=store, device="cpu")
    schedule, profiler = prepare(grid, Store(store)), cProfile.Profile()
    if profile:
        from bench.execution import worker  # noqa: F401 — outside of the profile

        profiler.enable()
    if jobs:
        local.run(schedule, options, jobs, Unwatched())
    else:
        local.run_inline(schedule, options, Unwatched())
    profiler.disable()
    assert len(schedule.computed) == cells, schedule.counts("evaluate")
    if profile:
        table(profiler, cells)
        return
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps(sum(one.ru_utime + one.ru_stime for one in used)))


def table(profiler: cProfile.Profile, cells: int) -> None:
    """Print milliseconds a cell; the profiler itself makes them some two times what they are."""
    found = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    print("\nwhere the time goes, on the clock and under a profiler, ms a cell:")
    for (file, name), what in PARTS.items():
        spent = sum(row[3] for (path, _, called), row in found.items() if called == name and Path(path).name == file)
        print(f"  {what:42} {1000 * spent / cells:8.2f}")
    whole = sum(row[3] for (path, _, name), row in found.items() if name == "run_inline" and path.endswith("local.py"))
    print(f"  {'all':42} {1000 * whole / cells:8.2f}")


def fresh(cells: int, jobs: int, *flags: str) -> str:
    """What a run in a process of its own prints."""
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, __file__, "--run", str(cells), str(jobs), f"{folder}/store", *flags]
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=400, help="of the long runs (default: 400)")
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=3, metavar=("CELLS", "JOBS", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(int(options.run[0]), int(options.run[1]), Path(options.run[2]), options.profile)
        return
    few = 20
    for jobs, what in ((0, "in one process"), (2, "in a pool of 2")):
        start, whole = (float(fresh(cells, jobs)) for cells in (few, options.cells))
        each = (whole - start) / (options.cells - few)
        print(f"{what}: {1000 * each:.1f} ms a cell, {start - few * each:.1f} s to start")
    print(fresh(options.cells, 0, "--profile"), end="")


if __name__ == "__main__":
    main()
