"""Does a method keep the contract? A list of checks on a tiny made-up data set, behind ``bench check METHOD``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bench.api import (
    Dataset,
    DatasetInfo,
    Distiller,
    GridPoint,
    Images,
    LabelSource,
    TeacherSpec,
    registry,
)
from bench.api.label_codec import LabelCodec
from bench.kit import images as image_files
from bench.kit import labels as label_folders
from bench.kit import running
from bench.kit.data.dataset import Resident
from bench.kit.labels.online import OnlineTeacher
from bench.kit.running import RunningTask
from bench.kit.teachers.train import train_trajectory
from bench.kit.teachers.trajectory import Trajectory
from bench.kit.validation import check_images
from bench.kit.views import AugmentationConfig, AugmentationStream
from bench.planning.cells import Cells, labels_itself, prepares

CLASSES, SIDE, IPC = 4, 16, 2
_ALLOWED = {".safetensors", ".json", ".jpg", ".png"}


@dataclass(frozen=True)
class Result:
    """The outcome of one check."""

    name: str
    passed: bool
    seconds: float
    detail: str = ""


class Broken(Exception):
    """A check failed; the message says how."""


def check(name: str) -> Iterator[Result]:
    """Run every check on the method called ``name``, in order; what raises counts as failed."""
    with tempfile.TemporaryDirectory() as folder:
        bench = _Workbench(name, Path(folder))
        for title, test in _CHECKS.items():
            started = time.monotonic()
            try:
                test(bench)
                yield Result(title, True, time.monotonic() - started)
            except Exception as error:
                detail = f"{type(error).__name__}: {error}" if not isinstance(error, Broken) else str(error)
                yield Result(title, False, time.monotonic() - started, detail)


def synthetic_data() -> Dataset:
    """Four classes of 16-px stripes, told apart by direction and colour; 12 to train and 6 to test on of each."""
    info = DatasetInfo(
        name="synthetic", title="Synthetic stripes", classes=CLASSES, image_size=SIDE, smallest_class=12,
        train_images=12 * CLASSES, test_images=6 * CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3,
        teacher=TeacherSpec(
            arch="convnet2-w8", image_size=SIDE, epochs=4, batch_size=8, lr=0.05, schedule="cosine", augment="none",
            checkpoints=4,
        ),
        clip="icon-clip", student="convnet2-w8",
    )  # fmt: skip
    stream = torch.Generator().manual_seed(0)

    def split(each: int) -> Resident:
        labels = torch.arange(CLASSES).repeat_interleave(each)
        noise = torch.randint(0, 60, (len(labels), 3, SIDE, SIDE), generator=stream)
        place = torch.arange(SIDE).expand(SIDE, SIDE)
        stripes = torch.stack([place % 4, place.T % 4, (place + place.T) % 8, (place - place.T) % 8]) < 2
        pixels = noise + 180 * stripes[labels][:, None]
        return Resident(pixels.to(torch.uint8), labels)

    names = ("vertical", "horizontal", "falling", "rising")
    return Dataset(info, names, names, split(12), split(6))


class _Workbench:
    """What the checks share; made when the first of them asks."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self.data = registry.method(name).example_data() or synthetic_data()
        self.device = torch.device("cpu")
        self.steps: list[tuple[int, int]] = []

    @cached_property
    def method(self) -> Distiller:
        return registry.method(self.name).for_dataset(self.data.info)

    def setting(self, seed: int = 0) -> GridPoint:
        return GridPoint(self.data.info, IPC, seed)

    @cached_property
    def teachers(self) -> tuple[Trajectory, ...]:
        return tuple(self._teacher(spec, f"teacher-{k}") for k, spec in enumerate(self.method.teachers(self.setting())))

    def _teacher(self, spec: TeacherSpec, place: str) -> Trajectory:
        made, work = self.folder / place, self.folder / f"{place}-work"
        made.mkdir()
        work.mkdir()
        train_trajectory(spec, self.data, made, work, self.device, lambda done, total, **_: None)
        return Trajectory.load(made, self.device)

    @property
    def maker(self) -> Distiller:
        """Whose images these are: the method's own, or another's."""
        return self.method.images_from(self.setting()) or self.method

    def prepare(self, place: str, stop_after: int | None = None) -> dict[str, Tensor]:
        """What the method prepares, or else who makes its images."""
        own = self.method.prepared_from(self.setting()) or self.method
        preparing = own if prepares(own) else self.maker
        if not prepares(preparing):
            return {}
        return running.prepare(preparing, self.task(place, stop_after, prepared=False))

    @cached_property
    def prepared(self) -> dict[str, Tensor]:
        return self.prepare("prepare")

    def task(self, place: str, stop_after: int | None = None, seed: int = 0, prepared: bool = True) -> RunningTask:
        work = self.folder / place
        work.mkdir(exist_ok=True)
        calls = 0

        def progress(done: int, total: int, **_: float) -> None:
            nonlocal calls
            calls += 1
            self.steps.append((done, total))
            if stop_after is not None and calls > stop_after:
                raise KeyboardInterrupt

        return RunningTask(
            dataset=self.data.info, ipc=IPC, seed=seed, data=self.data, teachers=self.teachers,
            device=self.device, work=work, on_progress=progress, prepared=self.prepared if prepared else {},
        )  # fmt: skip

    def distill(self, place: str, stop_after: int | None = None) -> Images:
        return running.distill(self.maker, self.task(place, stop_after))

    @cached_property
    def images(self) -> Images:
        return self.distill("distill")

    def label(self, place: str, stop_after: int | None = None) -> LabelSource:
        task = self.task(place, stop_after)
        if not labels_itself(self.method):
            teacher = task.teacher
            assert isinstance(teacher, Trajectory)
            return OnlineTeacher.of(teacher)
        if "images" in self.method.needs("labels", task):
            task = replace(task, images=self.images)
        return running.label_model(self.method, task)

    @cached_property
    def source(self) -> LabelSource | None:
        return None if self.method.info.labels == "hard" else self.label("label")

    @cached_property
    def saved(self) -> Path:
        folder = self.folder / "labels"
        folder.mkdir()
        assert self.source is not None
        self.source.save(folder)
        return folder

    def logits(self, source: LabelSource) -> Tensor:
        schedule = source.schedule()
        plan = (
            schedule.plan
            if schedule is not None
            else AugmentationConfig(size=SIDE, min_scale=0.5, flip=True, mix="cutmix")
        )
        stream = AugmentationStream(plan, len(self.images))
        images = self.images
        known = Resident(images.pixels, images.labels, channels=source.channels(images))
        batch, indices = next(stream.batches(0, len(images)))
        views = stream.make(known.layers(self.device), known.on(self.device)[1], indices, 0, batch)
        return source.soft_labels(views, 0)


def _imports_without_torch(bench: _Workbench) -> None:
    code = (
        f"import sys; from bench.api import registry; registry.method({bench.name!r}); sys.exit('torch' in sys.modules)"
    )
    if subprocess.run([sys.executable, "-c", code], check=False).returncode:
        raise Broken("importing the plug-in imports torch: import it inside the functions that compute")


def _describes_itself(bench: _Workbench) -> None:
    info = bench.method.info
    if info.name != bench.name:
        raise Broken(f"info.name is {info.name!r}, but the entry point is called {bench.name!r}")
    if info.version < 1 or not info.title or not info.labels:
        raise Broken("info needs a title, a word for its labels and a version from 1 on")
    if info.stored:
        LabelCodec.parse(info.stored)


def _identities_tell_seeds_apart(bench: _Workbench) -> None:
    first, second = (Cells(bench.data.info).images(bench.method, bench.setting(seed)) for seed in (0, 1))
    if first.id == second.id:
        raise Broken("the identity of the images is the same for seeds 0 and 1: see Distiller.depends_on")


def _preparation_resumes(bench: _Workbench) -> None:
    with suppress(KeyboardInterrupt):
        bench.prepare("prepare-killed", stop_after=1)
    again = bench.prepare("prepare-killed")
    if again.keys() != bench.prepared.keys() or not all(torch.equal(again[n], t) for n, t in bench.prepared.items()):
        raise Broken("killed and run again, prepare made something else")


def _images_are_right(bench: _Workbench) -> None:
    check_images(bench.images, bench.data.info, IPC, bench.name)


def _images_are_deterministic(bench: _Workbench) -> None:
    if not torch.equal(bench.distill("again").pixels, bench.images.pixels):
        raise Broken("the same seed made other images: derive every random draw from task.seed")


def _distill_resumes(bench: _Workbench) -> None:
    with suppress(KeyboardInterrupt):
        bench.distill("killed", stop_after=1)
    if not torch.equal(bench.distill("killed").pixels, bench.images.pixels):
        raise Broken("killed and run again, distill made other images")


def _images_survive_the_disk(bench: _Workbench) -> None:
    folder = bench.folder / "images"
    folder.mkdir()
    image_files.save(bench.images, folder, "png")
    if not torch.equal(image_files.load(folder).pixels, bench.images.pixels.cpu()):
        raise Broken("images written as PNG and read back are not the same")


def _labels_are_logits(bench: _Workbench) -> None:
    if bench.source is None:
        return
    logits, wanted = bench.logits(bench.source), (CLASSES * IPC, bench.data.info.logits)
    if logits.dtype != torch.float32 or tuple(logits.shape) != wanted:
        raise Broken(f"soft labels are {logits.dtype} {tuple(logits.shape)}, not float32 {wanted}")
    if not torch.isfinite(logits).all() or logits.requires_grad:
        raise Broken("soft labels must be finite and carry no gradient")


def _labels_resume(bench: _Workbench) -> None:
    if bench.source is None:
        return
    with suppress(KeyboardInterrupt):
        bench.label("label-killed", stop_after=3)
    again = bench.label("label-killed")
    if not torch.equal(bench.logits(again), bench.logits(bench.source)):
        raise Broken("killed and run again, label made another source")


def _labels_survive_the_disk(bench: _Workbench) -> None:
    if bench.source is None:
        return
    loaded = label_folders.load(bench.saved, bench.device, bench.method.label_kinds)
    if not torch.allclose(bench.logits(loaded), bench.logits(bench.source), atol=1e-4, rtol=1e-4):
        raise Broken("a label source saved and loaded again answers otherwise")


def _files_are_plain(bench: _Workbench) -> None:
    if bench.source is None:
        return
    odd = [path.name for path in bench.saved.rglob("*") if path.is_file() and path.suffix not in _ALLOWED]
    if odd:
        raise Broken(f"a label source may hold safetensors, JSON and encoded images, not {odd[0]}")


def _progress_is_told(bench: _Workbench) -> None:
    wrong = [(done, total) for done, total in bench.steps if not 0 <= done <= total]
    if wrong:
        raise Broken(f"progress({wrong[0][0]}, {wrong[0][1]}): expected 0 <= done <= total")


_CHECKS: dict[str, Callable[[_Workbench], None]] = {
    "its module imports without torch": _imports_without_torch,
    "info says name, title, labels and version": _describes_itself,
    "identities are plain values and tell seeds apart": _identities_tell_seeds_apart,
    "prepare: killed and run again, the same bits": _preparation_resumes,
    "images: uint8, the data set's size, class-major": _images_are_right,
    "images: the same seed makes the same bits": _images_are_deterministic,
    "images: killed and run again, the same bits": _distill_resumes,
    "images: the same after a trip to the disk": _images_survive_the_disk,
    "labels: finite float32 logits without gradient": _labels_are_logits,
    "labels: killed and run again, the same answers": _labels_resume,
    "labels: the same answers after a trip to the disk": _labels_survive_the_disk,
    "labels: safetensors and JSON files only": _files_are_plain,
    "progress counts up to its total": _progress_is_told,
}
