"""Seconds of this package over those of an official repository, on the same images and networks.

RDED (github.com/LINs-lab/RDED): one class of JPEG files read, cropped (`host`), scored by a ResNet-18 and ranked
(`scoring`), by its `MultiRandomCrop` and `selector` and by the method's `prepare`. Without an accelerator its calls of
`.cuda()` do nothing.

    python perf/official.py --rded PATH [--images 40] [--size 224]
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import torch
from clock import side_by_side  # beside this file
from PIL import Image
from rded import untrained
from reader import jpegs
from torchvision import transforms

from bench.api import Dataset, DatasetInfo, TeacherSpec
from bench.kit.data.dataset import Files
from bench.kit.running import RunningTask, prepare
from methods.rded import RDED

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rded", type=Path, metavar="PATH", help="a checkout of LINs-lab/RDED")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.rded is None:
        parser.error("which repository? expected --rded PATH, a checkout of LINs-lab/RDED")
    torch.set_num_threads(1)
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
