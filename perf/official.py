"""Seconds of this package over those of an official repository, on the same images and networks.

RDED (github.com/LINs-lab/RDED): one class of JPEG files read, cropped (`host`), scored by a ResNet-18 and ranked
(`scoring`), by its `MultiRandomCrop` and `selector` and by the method's `prepare`. Without an accelerator its calls of
`.cuda()` do nothing.

`--cell EPOCHS`: a whole cell instead, by its main.py and by `bench run`, each a process with all that it starts: 10
classes of 32 px, a trained ConvNet-3 as teacher and a new one as student, a pool of `--images` a class, IPC 10, tests
when the official code tests. Theirs reads in its main process, as ours does, which costs it least. With `--cell 12
--images 60` each part is a fifth of that of 60 epochs, a pool of 300 and two tests on CIFAR-10.

    python perf/official.py --rded PATH [--images 40] [--size 224]
    python perf/official.py --rded PATH --cell 12 --images 60
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from clock import side_by_side  # beside this file
from PIL import Image
from rded import untrained
from reader import jpegs
from torch.nn.functional import cross_entropy, interpolate
from torchvision import transforms

from bench.api import Dataset, DatasetInfo, TeacherSpec
from bench.kit.data.dataset import Files
from bench.kit.models import build
from bench.kit.running import RunningTask, prepare
from methods.rded import RDED

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES, SIDE = 10, 32  # of the whole cell
OFFICIAL = """
import runpy, sys, torch
torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
sys.path.insert(0, sys.argv.pop(1))
tested = int(sys.argv.pop(1))
from argument import args
args.val_ipc = tested
runpy.run_path(sys.path[0] + "/main.py", run_name="__main__")
"""


def draw(root: Path, each: int, tested: int) -> torch.Tensor:
    """Write noisy pieces of a pattern per class as PNG files; return those of training, (10, ``each``, 3, 32, 32)."""
    stream, kept = torch.Generator().manual_seed(0), []
    patterns = interpolate(torch.rand(CLASSES, 3, 6, 6, generator=stream), 2 * SIDE, mode="bicubic")
    for split, label in itertools.product(("train", "val"), range(CLASSES)):
        (folder := root / split / f"{label:05d}").mkdir(parents=True)
        count = each if split == "train" else tested
        pieces = [
            patterns[label, :, top : top + SIDE, left : left + SIDE]
            for top, left in torch.randint(SIDE, (count, 2), generator=stream).tolist()
        ]
        noise = torch.rand(count, 3, SIDE, SIDE, generator=stream)
        pixels = (0.25 * torch.stack(pieces) + 0.75 * noise).clamp_(0, 1).mul_(255).byte()
        for index, image in enumerate(pixels):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:05d}.png")
        kept += [pixels] if split == "train" else []
    return torch.stack(kept)


def train_teacher(pixels: torch.Tensor, path: Path, steps: int = 30) -> None:
    """Train a ConvNet-3 and save it as RDED does."""
    torch.manual_seed(0)
    model = build("convnet3", CLASSES, SIDE, MEAN, STD)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(steps):
        labels = torch.randint(CLASSES, (50,))
        batch = pixels[labels, torch.randint(pixels.shape[1], (50,))].float() / 255
        optimizer.zero_grad()
        cross_entropy(model(batch), labels).backward()
        optimizer.step()
    kinds = {0: "conv", 1: "norm"}
    named = {
        re.sub(r"features\.(\d+)", lambda at: f"layers.{kinds[int(at[1]) % 4]}.{int(at[1]) // 4}", name): tensor
        for name, tensor in model.net.state_dict().items()
    }
    path.parent.mkdir(parents=True)
    torch.save({"model": named}, path)
    path.with_suffix(".toml").write_text(f"arch = 'convnet3'\nmean = {[*MEAN]}\nstd = {[*STD]}\n")


def seconds_of(command: Sequence[str], home: Path) -> tuple[float, str]:
    """Run a command; return the processor's seconds of it and all that it started, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


def whole_cell(checkout: Path, epochs: int, each: int) -> None:
    """Measure a cell on both sides and print it; the teacher is there before."""
    tests = [epoch for epoch in range(epochs) if (epoch % 10 == 9 or epoch == epochs - 1) and epoch > 0.8 * epochs]
    tested = each * 20 // 3 // len(tests)  # images a class
    with tempfile.TemporaryDirectory() as folder:
        home, teacher = Path(folder), "data/pretrain_models/cifar10_conv3.pth"
        train_teacher(draw(home / "data" / "cifar10", each, tested), home / teacher)
        ours = [
            *(sys.executable, "-m", "bench", "run", "--seeds", "0", "--dataset", "folder:data/cifar10"),
            *("--teacher", f"convnet3={teacher}", "--students", "convnet3", "--no-baselines", "--cluster", "inline"),
        ]
        first = ["--methods", "random_real", "--ipc", "1", "--labels", "teacher:fp32", "--set", "protocol.epochs=1"]
        seconds_of([*ours, *first], home)  # reads and tests the teacher
        settings = (f"protocol.epochs={epochs}", f"protocol.test_from={tests[0] + 1}", f"rded.pool={each}")
        flags = ["--methods", "rded", "--ipc", "10", "--protocol", "official"]
        spent, shown = seconds_of([*ours, *flags, *(word for one in settings for word in ("--set", one))], home)
        theirs = [
            *(sys.executable, "-c", OFFICIAL, str(checkout.absolute()), str(tested), "--subset", "cifar10"),
            *("--arch-name", "conv3", "--stud-name", "conv3", "--factor", "1", "--num-crop", "5", "--ipc", "10"),
            *("--mipc", str(each), "--re-epochs", str(epochs), "--re-batch-size", "50", "--workers", "0"),
        ]
        official, said = seconds_of(theirs, home)
        print(f"{shown}\n{said.strip().splitlines()[-1]}\nours {spent:.1f} s, theirs {official:.1f} s")
        print(f"ratio official_rded_cell {spent / official:.3f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rded", type=Path, metavar="PATH", help="a checkout of LINs-lab/RDED")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cell", type=int, metavar="EPOCHS", help="measure a whole cell of so many epochs")
    options = parser.parse_args()
    if options.rded is None:
        parser.error("which repository? expected --rded PATH, a checkout of LINs-lab/RDED")
    torch.set_num_threads(1)
    if options.cell is not None and options.cell < 6:
        parser.error(f"--cell {options.cell}: the official code tests no student of fewer than 6 epochs")
    if options.cell:
        whole_cell(options.rded, options.cell, options.images)
        return
    sys.path.insert(0, str(options.rded))
    sys.argv = sys.argv[:1]  # its modules parse them
    theirs = importlib.import_module("synthesize.utils")
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
    size, count = options.size, options.images
    with tempfile.TemporaryDirectory() as folder:
        paths = jpegs(Path(folder), count, size * 9 // 8, size * 5 // 4)
        split = Files(paths, torch.zeros(count, dtype=torch.int64), workers=0)  # whose seconds would not be counted
        (Path(folder) / "teacher").mkdir()
        info = DatasetInfo(
            name="noise", title="Noise", classes=1, image_size=size, smallest_class=count, train_images=count,
            test_images=count, mean=MEAN, std=STD, student="resnet18", clip="icon-clip",
            teacher=TeacherSpec(arch="resnet18", image_size=size),
        )  # fmt: skip
        teacher = untrained(Dataset(info, ("one",), ("one",), split, split), Path(folder) / "teacher", device)
        method = RDED(RDED.Config(pool=count))
        crops, factor = method.config.crops, method.factor(size)
        transform = transforms.Compose(
            [transforms.ToTensor(), theirs.MultiRandomCrop(crops, size, factor), theirs.normalize]
        )

        def their_crops() -> torch.Tensor:
            return torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])

        def their_scores() -> None:
            theirs.selector(
                factor**2, teacher.model().net, their_crops(), torch.zeros(count, dtype=torch.int64), size, crops
            )

        def task(work: str) -> RunningTask:
            return RunningTask(
                dataset=info, ipc=1, seed=0, data=Dataset(info, ("one",), ("one",), split, split), teachers=(teacher,),
                device=device, work=Path(work), on_progress=lambda *_, **__: None,
            )  # fmt: skip

        def our_crops() -> None:
            split.crops(method._crops(task(folder)), torch.arange(count), crops, torch.device("cpu"))

        def our_scores() -> None:
            with tempfile.TemporaryDirectory() as work:
                prepare(method, task(work))

        pairs = {"host": (our_crops, their_crops), "scoring": (our_scores, their_scores)}
        for name, (ours, official) in pairs.items():
            ratio = side_by_side({"ours": ours, "theirs": official}, device, options.rounds)["theirs"]
            print(f"ratio official_rded_{name} {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
