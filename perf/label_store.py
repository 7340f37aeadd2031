"""Stored labels in the student loop: the share of its time that reading them takes, and the memory.

1. `train_student` under the digits protocol (batches of 10 and 100) with stored labels, against the same loop with
   random labels that stay on the device. Both train side by side, a step of one, a step of the other, in one process
   and on the same views.
2. Pruned replays of 10,000 images and 300 epochs: a batch from anywhere, against a batch in its turn.
3. A store of ``--gigabytes``, read epoch by epoch (Linux): RssAnon + RssFile; on the processor under a limit that
   lets the process map no more than ``ROOM`` beyond what it has when it begins.

    python perf/label_store.py [--device cuda] [--threads 1] [--blocks 25] [--steps 40] [--gigabytes 1.5]

A ratio is the median over the blocks; 1 means that reading costs nothing.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import torch
from clock import now  # beside this file
from torch import Tensor
from torch.nn import functional as F

from bench.api import DatasetInfo, Images, LabelSource, catalogue
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.stored.codec import LabelCodec
from bench.kit.data.dataset import Resident
from bench.kit.labels.stored import StoredLabels
from bench.kit.labels.storing import store
from bench.kit.models import build
from bench.kit.views import AugmentationStream, AugmentedBatch
from bench.planning.protocols import choose
from evaluators.classification import Classification, ClassificationProtocol
from evaluators.student_training import make_optimizer

WARM_UP = 3  # blocks
ROOM = 384  # MiB
ORDER = "0" * 64


class Resting(LabelSource):
    """Random logits that stay on the device: what a loop costs whose labels cost nothing."""

    kind = "resting"

    def __init__(self, rows: int, classes: int, device: torch.device):
        self.logits = torch.randn(rows, classes, device=device)

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        return self.logits[: len(views)]

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        raise NotImplementedError


def quiet(done: int, total: int, **_: float) -> None:
    """Tell nobody."""


class Loop:
    """A student that trains on labels of one source; :meth:`run` goes on where it stopped."""

    def __init__(
        self, info: DatasetInfo, images: Images, plan: AugmentationSchedule, labels: LabelSource,
        rules: ClassificationProtocol, device: torch.device,
    ):  # fmt: skip
        self.plan, self.labels, self.heat, self.device = plan, labels, rules.temperature, device
        student = build(info.student, info.classes, info.image_size, info.mean, info.std).to(device)
        self.student = student.to(memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(self.student, rules, rules.lr)
        self.train, self.stream = Resident(images.pixels, images.labels), AugmentationStream(plan.plan, plan.images)
        self.views = self.forever()

    def forever(self) -> Iterator[AugmentedBatch]:
        """The views of all epochs, again and again."""
        while True:
            for epoch in range(self.plan.epochs):
                replay = self.labels.replay(epoch)
                yield from self.train.views(self.stream.config, epoch, self.plan.batch_size, self.device, replay=replay)

    def run(self, steps: int) -> float:
        """Seconds a step of ``steps`` steps."""
        started = now(self.device)
        for _ in range(steps):
            views = next(self.views)
            soft = self.labels.soft_labels(views, 0)
            logits = self.student(views.pixels)
            loss = F.kl_div(
                F.log_softmax(logits / self.heat, 1), F.log_softmax(soft / self.heat, 1), reduction="batchmean",
                log_target=True,
            )  # fmt: skip
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return (now(self.device) - started) / steps


def reading(codec: str, batch_size: int, work: Path, options: argparse.Namespace, device: torch.device) -> float:
    """The ratio of the loops with stored labels and without, as printed."""
    info = catalogue.dataset("digits")
    rules = choose(Classification, "common", info, "rded")
    assert isinstance(rules, ClassificationProtocol)
    count = batch_size if batch_size == 10 else 5 * batch_size
    images = Images(torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8), torch.arange(count) % info.classes)
    plan = AugmentationSchedule(
        plan=AugmentationConfig(size=16, min_scale=rules.min_scale, mix="cutmix"),
        images=count,
        epochs=300,
        batch_size=batch_size,
    )
    resting = Resting(batch_size, info.classes, device)
    work.mkdir()
    stored = store(resting, images, plan, LabelCodec.parse(codec), ORDER, work, device, quiet, shard_bytes=2**20)
    loops = [Loop(info, images, plan, labels, rules, device) for labels in (resting, stored)]
    ratios, bare_times = [], []
    for _ in range(WARM_UP + options.blocks):
        bare, read = 0.0, 0.0
        for _step in range(options.steps):  # by turns: what else the machine does falls on both alike
            bare += loops[0].run(1)
            read += loops[1].run(1)
        ratios.append(read / bare)
        bare_times.append(bare / options.steps)
    low, middle, high = statistics.quantiles(sorted(ratios[WARM_UP:]), n=4)
    milliseconds = 1e3 * statistics.median(bare_times[WARM_UP:])
    print(f"{codec}, batches of {batch_size}: bare step {milliseconds:.2f} ms; ratio {low:.3f} to {high:.3f}")
    return middle


def pruned_views(device: torch.device) -> tuple[float, float, float]:
    """Milliseconds a batch of 100 of 10,000 images of 32 px: in its turn; from anywhere, at first and again."""
    count, batch_size = 10_000, 100
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    plan = AugmentationConfig(size=32, flip=True, mix="cutmix")

    def timed(epochs: list[list[tuple[int, int]] | None]) -> float:
        made, started = 0, now(device)
        for epoch, replay in enumerate(epochs):
            for _ in train.views(stream.config, epoch, batch_size, device, replay=replay):
                made += 1
        return 1e3 * (now(device) - started) / made

    train, stream = Resident(pixels, labels), AugmentationStream(plan, count)
    # what a 40th of the batches is: 750, each from another epoch than the one before
    anywhere: list[tuple[int, int]] = [(37 * index % 300, (index + index // 300) % batch_size) for index in range(750)]
    return timed([None] * 3), timed([anywhere]), timed([anywhere])


def memory(*kinds: str) -> float:
    """MiB of this process by the kernel's account, of these kinds together."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024


def resident() -> float:
    """MiB of this process in memory, pages of mapped files included."""
    return memory("RssAnon", "RssFile")


def flatness(gigabytes: float, work: Path, device: torch.device) -> None:
    """Write a store of so many GB and read all of it, epoch by epoch; prints the memory."""
    classes, count, batch_size = 1000, 1000, 100
    epochs = round(gigabytes * 1e9 / (2 * classes * count))
    images = Images(torch.zeros(count, 3, 8, 8, dtype=torch.uint8), torch.arange(count) % classes)
    plan = AugmentationSchedule(
        plan=AugmentationConfig(size=8, crop="none"), images=count, epochs=epochs, batch_size=batch_size
    )
    work.mkdir()
    resting = Resting(batch_size, classes, device)
    source = store(resting, images, plan, LabelCodec(), ORDER, work, device, quiet)
    written = resident()
    served = work / "served"
    served.mkdir()
    source.save(served)
    labels, stream = StoredLabels.load(served, device), AugmentationStream(plan.plan, count)
    train = Resident(images.pixels, images.labels)
    seen, total = [resident()], torch.zeros((), device=device)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if device.type == "cpu":  # an accelerator's driver maps what it likes
        resource.setrlimit(resource.RLIMIT_AS, (int(memory("VmSize") + ROOM) * 2**20, limits[1]))
    started = time.perf_counter()
    for epoch in range(epochs):
        for views in train.views(stream.config, epoch, batch_size, device):
            total += labels.soft_labels(views, 0).sum()
        seen.append(resident())
    seconds = time.perf_counter() - started
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert torch.isfinite(total)
    tenths = [f"{seen[len(seen) * tenth // 10]:.0f}" for tenth in range(10)] + [f"{seen[-1]:.0f}"]
    print(
        f"{source.layout.total / 1e9:.2f} GB in {source.layout.shards} shards: "
        f"resident {written:.0f} MiB when written, {' '.join(tenths)} MiB while reading "
        f"(each tenth of {epochs} epochs, {seconds:.1f} s); the most {max(seen) - seen[0]:.0f} MiB above the beginning"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=25)
    parser.add_argument("--steps", type=int, default=40, help="steps a block of each loop")
    parser.add_argument("--gigabytes", type=float, default=1.5, help="of the store that is read whole")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        if Path("/proc/self/status").exists():
            flatness(options.gigabytes, Path(folder) / "large", device)
        in_turn, first, again = pruned_views(device)
        print(f"views of a batch of 100: {in_turn:.2f} ms in turn, {first:.2f} from anywhere, {again:.2f} once held")
        for codec in ("fp16", "topk5+int8", "prune10+fp16"):
            for batch_size in (10, 100):
                ratio = reading(codec, batch_size, Path(folder) / f"{codec}-{batch_size}", options, device)
                print(f"ratio label_store_{codec}_batch{batch_size} {ratio:.3f}")


if __name__ == "__main__":
    main()
