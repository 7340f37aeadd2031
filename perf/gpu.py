"""All that an accelerator changes, in one command of at most eight minutes: parity with the processor, and speed.

Parity is the largest difference of an outcome on the device from the same on the processor, over the largest value:
images recovered by SRe2L and G_VBSM in four iterations, RDED's scores, the projector's logits, labels under codecs.
Speed is that of the other scripts here (student loop, recovery, projector, RDED's scoring), of two concurrent cells on
one device against one at a time, and of the efficiency evaluator at ImageNet-1K's shape. A team of two processes trains
a teacher: on two accelerators by NCCL, else on processors by gloo.

    python perf/gpu.py [--out perf/gpu] [--device cpu --tiny]

It prints ``ratio NAME VALUE`` lines and writes them as a table, named by the device, into ``--out``.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import projector  # beside this file, as the next
import rded
import recovery
import student_loop
import torch
from clock import Ratios
from torch import Tensor

from bench.api import catalogue
from bench.api.stored.codec import LabelCodec
from bench.kit import data
from bench.kit.labels.storing import store
from bench.kit.running import RunningTask, prepare
from bench.kit.views import AugmentationStream
from evaluators.efficiency import Efficiency, EfficiencyProtocol
from methods.rded import RDED

CODECS = ("fp16", "int8", "topk5+int8")


def outcomes(device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Yield what should be the same on every device."""
    labels = (torch.arange(20, device=device) // 10)[None]
    net = recovery.network("convnet3-w32", 16, 10, device)
    yield "sre2l", recovery.sre2l(net, labels, 16, 4)()
    pool = ("convnet2-w8", "convnet3-w8")
    nets = [recovery.network(arch, 16, 10, device) for arch in pool]
    yield "g_vbsm", recovery.g_vbsm(pool, nets, labels[0], 16, 4, 2)()
    digits = data.load(catalogue.dataset("digits"))
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        task = RunningTask(
            dataset=digits.info, ipc=1, seed=0, data=digits, device=device, work=Path(folder),
            teachers=(rded.untrained(digits, Path(folder), device),), on_progress=lambda *_, **__: None,
        )  # fmt: skip
        yield "rded", prepare(RDED(RDED.Config(pool=4)), task)["scores"]
    torch.manual_seed(0)
    answer, _ = projector.serving(("one", "two"), 4, device)
    yield "projector", answer()
    for codec in CODECS:
        torch.manual_seed(0)
        source = student_loop.teacher_labels(digits, device)
        with student_loop.task_on(digits, 1, device) as (asked, train, schedule), tempfile.TemporaryDirectory() as work:
            schedule = schedule.model_copy(update={"epochs": 1})
            how = (Path(work), device, lambda *_, **__: None)
            stored = store(source, asked.images, schedule, LabelCodec.parse(codec), "0" * 64, *how)
            stream = AugmentationStream(schedule.plan, len(train))
            views = next(iter(train.views(stream.config, 0, schedule.batch_size, device)))
            yield f"labels_{codec}", stored.soft_labels(views, 0)


def parity(device: torch.device) -> Ratios:
    """Yield the relative differences."""
    mine = {name: found.float().cpu() for name, found in outcomes(device)}
    for name, found in outcomes(torch.device("cpu")):
        finite = found.isfinite() & mine[name].isfinite()
        apart = (mine[name] - found.float())[finite].abs().max() / found[finite].abs().max()
        yield f"parity_{name}", float(apart)


def efficiency(device: torch.device, tiny: bool) -> Ratios:
    """Yield bare over whole milliseconds an image of a ResNet-18 at ImageNet-1K's shape, with a teacher's labels."""
    size, student, ipc = (16, "convnet2-w8", 1) if tiny else (224, "resnet18", 10)
    real = student_loop.random_images(size, student, 10 * ipc)
    steps = {"untimed": 1, "steps": 1, "blocks": 2} if tiny else {}
    with student_loop.task_on(real, ipc, device) as (task, _, _):
        protocol = EfficiencyProtocol(**{**task.protocol.model_dump(), "evaluator": "efficiency", **steps})
        for name, value in (("protocol", protocol), ("labels", student_loop.teacher_labels(real, device))):
            object.__setattr__(task, name, value)
        yield "efficiency_imagenet", 1 / Efficiency().evaluate(task)["cost"]["times_bare"]


def seconds(device: str, epochs: int, *flags: str) -> tuple[float, set[str]]:
    """Run a small grid in a store of its own; its seconds, and how many processes shared its teacher."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "bench", "run", "--methods", "random_real", "--ipc", "1", "--seeds", "0,1"),
            *("--labels", "teacher:fp16", "--no-baselines", "--set", f"protocol.epochs={epochs}", "--device", device),
            *("--set", f"teacher.epochs={max(1, epochs // 20)}", "--cluster", "local", *flags),
        ]
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        spent = time.perf_counter() - started
        records = [json.loads(path.read_text()) for path in Path(folder).glob(".bench/cells/teacher*/record.json")]
        return spent, {one["run"]["environment"].get("processes", "1") for one in records}


def cells(device: torch.device, tiny: bool) -> Ratios:
    """Yield the seconds of one cell at a time over those of two, and check that a team of two makes its cell."""
    epochs = 1 if tiny else 200
    if not tiny:
        one, two = (seconds(device.type, epochs, "--jobs", jobs)[0] for jobs in "12")
        yield "two_concurrent_cells", one / two
    place = "cuda" if device.type == "cuda" and torch.cuda.device_count() > 1 else "cpu"
    began, shared = seconds(place, epochs, "--jobs", "2", "--processes", "2")
    if shared != {"2"}:
        raise RuntimeError(f"the teacher was trained by {shared} processes, not by 2")
    yield f"team_of_two_on_{place}_seconds", began


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="the smallest form, which measures nothing: for tests")
    parser.add_argument("--out", type=Path, default=Path("perf") / "gpu", metavar="FOLDER")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    parts: list[Callable[[], Ratios]] = [lambda: parity(device), lambda: efficiency(device, options.tiny)]
    if not options.tiny:
        for script in (student_loop, recovery, projector, rded):
            parts.append(lambda script=script: script.measure(device, False))  # type: ignore[misc]
    parts.append(lambda: cells(device, options.tiny))
    rows = []
    for part in parts:
        for what, ratio in part():
            print(f"ratio {what} {ratio:.3g}", flush=True)
            rows.append(f"| {what} | {ratio:.3g} |")
    options.out.mkdir(parents=True, exist_ok=True)
    title = f"{name}, torch {torch.__version__}"
    path = options.out / f"{name.lower().replace(' ', '-')}.md"
    path.write_text("\n".join([f"# {title}", "", "| what | ratio |", "|:--|--:|", *rows]) + "\n", encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
