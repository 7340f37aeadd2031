"""The heavy stages of the methods, shared by two and three processes, against one process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench import stopping
from bench.api import Dataset, DatasetInfo, Progress, TeacherSpec, registry
from bench.kit import distributed, running
from bench.kit.data.dataset import Resident
from bench.kit.running import RunningTask
from bench.kit.teachers import trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from methods import rded
from methods.g_vbsm import GVBSM
from methods.hello import lora, train
from methods.hello.config import Config
from methods.sre2l import SRe2L
from tests.methods import test_hello_projector as hello
from tests.precision import double_precision
from tests.processes import run_ranks

CLASSES, EACH, SIDE = 5, 8, 16
POOL = ("convnet2-w8", "resnet10-small-w4")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CPU = torch.device("cpu")
SIZES = (1, 2, 3)
Stage = Callable[[Path, Progress], dict[str, Tensor]]


def network(folder: Path, arch: str) -> Trajectory:
    """A random network with random statistics, always the same."""
    made = Network(arch=arch, classes=CLASSES, image_size=SIDE, mean=MEAN, std=STD)
    torch.manual_seed(0)
    state = made.build().net.state_dict()
    for name, tensor in state.items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    folder.mkdir()
    trajectory.save(folder, made, "none", {1: state}, {1: 0.5}, 0.5)
    return Trajectory.load(folder, CPU)


def task(folder: Path, progress: Progress) -> RunningTask:
    info = DatasetInfo(
        name="noise", title="Noise", classes=CLASSES, image_size=SIDE, smallest_class=EACH,
        train_images=CLASSES * EACH, test_images=CLASSES, mean=MEAN, std=STD, clip="icon-clip",
        teacher=TeacherSpec(arch=POOL[0], image_size=SIDE), student=POOL[0],
    )  # fmt: skip
    pixels = torch.randint(
        0, 256, (CLASSES * EACH, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
    )
    images = Resident(pixels, torch.arange(CLASSES * EACH) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    work, own = folder / "work", folder / f"rank-{distributed.rank()}"
    teachers = tuple(network(own / arch, arch) for arch in POOL)
    return RunningTask(
        dataset=info, ipc=2, seed=0, data=Dataset(info, names, names, images, images), teachers=teachers, device=CPU,
        work=work, on_progress=progress,
    )  # fmt: skip


# -- the stages


def project(folder: Path, progress: Progress) -> dict[str, Tensor]:
    """HeLlO's projector: 24 images in batches of 23, so that the last has none for all ranks but the first."""
    with pytest.MonkeyPatch.context() as patch:
        hello.use_tiny_clip(patch)
        config = Config(**{**hello.SHORT, "batch_size": 23})
        trained, _ = train.train_projector(hello.task(folder / "work", progress), config, "tiny")
    return {name: parameter.detach() for name, parameter in lora.adapters(trained).items()}


def measure(folder: Path, progress: Progress) -> dict[str, Tensor]:
    """G_VBSM's statistics: 40 images in 3 mini-batches, the last one smaller."""
    return measured(folder, progress, 16)


def measure_little(folder: Path, progress: Progress) -> dict[str, Tensor]:
    """2 mini-batches, of which a third rank has none."""
    return measured(folder, progress, 24)


def measured(folder: Path, progress: Progress, batch: int) -> dict[str, Tensor]:
    settings: dict[str, Any] = {"pool": POOL, "patch": 4, "crop": "shift", "pad": 2, "statistics_batch": batch}
    return running.prepare(GVBSM(GVBSM.Config(**settings)), task(folder, progress))


def recover(folder: Path, progress: Progress) -> dict[str, Tensor]:
    """SRe2L's images: 6 batches, one at a time."""
    return recovered(folder, progress, groups=1)


def recover_at_once(folder: Path, progress: Progress) -> dict[str, Tensor]:
    """The same, as many batches at once as a rank has."""
    return recovered(folder, progress, groups="auto")


def recovered(folder: Path, progress: Progress, groups: int | str) -> dict[str, Tensor]:
    config = SRe2L.Config(iterations=8, group_classes=2, groups=groups)
    images = running.distill(SRe2L(config), task(folder, progress))
    return {"pixels": images.pixels, "labels": images.labels}


def score(folder: Path, progress: Progress) -> dict[str, Tensor]:
    """RDED's scores: 5 classes in 10 chunks of 4 images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rded.RDED, "crop_bytes", 4 * 12 * SIDE**2 * 3)
        return running.prepare(rded.RDED(rded.RDED.Config(crops=3)), task(folder, progress))


STAGES: dict[str, Stage] = {
    stage.__name__: stage for stage in (project, measure, measure_little, recover, recover_at_once, score)
}
# In double precision: of numbers up to 1 that a few steps of training made, and of statistics stored in float32.
TOLERANCE = dict.fromkeys(STAGES, 0.0) | {"project": 1e-9, "measure": 1e-6, "measure_little": 1e-6}


def work_through(folder: Path, names: tuple[str, ...], stop: int = 0) -> None:
    """Do stages as a rank, each in a folder of its own, and keep what every rank made; on step ``stop`` of its own
    work, a rank that saves for itself is asked to stop."""

    def progress(done: int, total: int, **_: float) -> None:
        nonlocal steps
        steps += 1
        if steps == stop and (distributed.is_main() or names != ("project",)):
            stopping.ask()

    for name in names:
        steps = 0
        home = folder / name
        (home / "work").mkdir(parents=True, exist_ok=True)
        own = home / f"rank-{distributed.rank()}"
        for old in sorted(own.rglob("*"), reverse=True):  # of a run before
            old.unlink() if old.is_file() else old.rmdir()
        own.mkdir(exist_ok=True)
        with double_precision():
            made = STAGES[name](home, progress)
        save_file(
            {key: tensor.contiguous() for key, tensor in made.items()}, home / f"{distributed.rank()}.safetensors"
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What groups of each size made of all stages, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    for size in SIZES:
        run_ranks(size, work_through, folder / str(size), tuple(STAGES))
    return folder


def made_by(folder: Path, name: str, rank: int = 0) -> dict[str, Tensor]:
    return load_file(folder / name / f"{rank}.safetensors")


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("name", STAGES)
def test_a_shared_stage_makes_what_one_process_makes(whole: Path, name: str, size: int) -> None:
    alone, shared = made_by(whole / "1", name), made_by(whole / str(size), name)
    assert shared.keys() == alone.keys()
    for key, tensor in alone.items():
        assert tensor.shape == shared[key].shape
        fault = (tensor.double() - shared[key].double()).abs()
        assert fault.max() <= TOLERANCE[name], f"{key}: {fault.max()}"
    for rank in range(1, size):
        others = made_by(whole / str(size), name, rank)
        assert all(torch.equal(others[key], tensor) for key, tensor in shared.items())


@pytest.mark.parametrize("name", ["project", "measure", "recover", "score"])
def test_stopped_in_the_middle_a_shared_stage_goes_on_to_the_same_bits(whole: Path, tmp_path: Path, name: str) -> None:
    stop = {"project": 3, "measure": 1, "recover": 13, "score": 2}[name]
    assert all(run_ranks(2, work_through, tmp_path, (name,), stop=stop, may_fail=True))
    kept = {re.sub("-[0-9a-f]{8}", "", path.stem) for path in (tmp_path / name / "work").iterdir()}
    assert (
        kept
        == {
            "project": {"checkpoint"},
            "measure": {"work-block-000000", "work-block-000000-1"},
            "score": {"block-000000", "block-000001", "block-000005", "block-000006"},
            "recover": {"block-000000", "work-block-000001", "block-000003", "work-block-000004"},
        }[name]
    )
    run_ranks(2, work_through, tmp_path, (name,))
    for rank in range(2):
        again, undisturbed = made_by(tmp_path, name, rank), made_by(whole / "2", name, rank)
        assert all(torch.equal(again[key], tensor) for key, tensor in undisturbed.items())


@pytest.mark.parametrize("name", ["project", "measure", "recover", "score"])
def test_another_number_of_processes_goes_on_where_it_can(whole: Path, tmp_path: Path, name: str) -> None:
    stop = {"project": 3, "measure": 1, "recover": 11, "score": 2}[name]
    assert any(run_ranks(3, work_through, tmp_path, (name,), stop=stop, may_fail=True))
    run_ranks(2, work_through, tmp_path, (name,))
    again, alone = made_by(tmp_path, name), made_by(whole / "1", name)
    for key, tensor in alone.items():
        assert (tensor.double() - again[key].double()).abs().max() <= TOLERANCE[name]


def test_methods_say_which_stages_can_be_shared() -> None:
    shared = {name: registry.method(name).info.shared for name in registry.method_names()}
    assert {name: stages for name, stages in shared.items() if stages} == {
        "coreset": ("prepare",), "g_vbsm": ("prepare",), "hello": ("label",), "rded": ("prepare", "distill"),
        "sre2l": ("distill",),
    }  # fmt: skip
    assert all(set(stages) <= {"prepare", "distill", "label"} for stages in shared.values())
