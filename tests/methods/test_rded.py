"""RDED against a slow reference: its authors' description, image by image and crop by crop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bench.api import Dataset, DatasetInfo, GridPoint, Images, Progress, Split, TeacherSpec
from bench.api.seeds import seed_for
from bench.errors import UserError
from bench.kit import running
from bench.kit.data.dataset import Files, Resident
from bench.kit.data.sampling import sample_classes
from bench.kit.images import quantise
from bench.kit.running import RunningTask
from bench.kit.teachers import trajectory
from bench.kit.teachers.trajectory import Network, Trajectory
from bench.kit.views import AugmentationConfig, AugmentationStream
from bench.planning.cells import Cells, labels_itself
from methods import rded
from methods.hello import HeLlO
from methods.rded import RDED, mosaic
from tests.stopping import stopped_every

CLASSES, EACH, SIDE = 3, 20, 16
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def info(image_size: int = SIDE, smallest: int = EACH) -> DatasetInfo:
    return DatasetInfo(
        name="noise", title="Noise", classes=CLASSES, image_size=image_size, smallest_class=smallest,
        train_images=CLASSES * EACH, test_images=CLASSES, mean=MEAN, std=STD, clip="icon-clip",
        teacher=TeacherSpec(arch="convnet2-w8", image_size=image_size), student="convnet2-w8",
    )  # fmt: skip


def labels() -> Tensor:
    """Not sorted by class, as the labels of real files need not be."""
    return torch.arange(CLASSES * EACH) % CLASSES


def noise(height: int = SIDE, width: int = SIDE) -> Tensor:
    stream = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (CLASSES * EACH, 3, height, width), generator=stream, dtype=torch.uint8)


def resident() -> Resident:
    return Resident(noise(), labels())


def files(folder: Path, suffix: str) -> Files:
    """The images of :func:`noise`, 30 wide and between 20 and 25 high."""
    paths = []
    for index, pixels in enumerate(noise(25, 30)):
        paths.append(folder / f"{index}.{suffix}")
        Image.fromarray(pixels[:, : 20 + index % 6].permute(1, 2, 0).contiguous().numpy()).save(paths[-1])
    return Files(paths, labels(), workers=2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """A random network with random statistics: its scores are as good as any."""
    folder = tmp_path_factory.mktemp("teacher")
    network = Network(arch="convnet2-w8", classes=CLASSES, image_size=SIDE, mean=MEAN, std=STD)
    torch.manual_seed(0)
    state = network.build().net.state_dict()
    for name, tensor in state.items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    trajectory.save(folder, network, "none", {1: state}, {1: 0.5}, 0.5)
    return Trajectory.load(folder, torch.device("cpu"))


MakeTask = Callable[..., RunningTask]


def silent(done: int, total: int, **_: float) -> None:
    """Tells nobody."""


@pytest.fixture
def make_task(tmp_path: Path, teacher: Trajectory) -> MakeTask:
    def make(train: Split, ipc: int, seed: int = 0, place: str = "work", progress: Progress = silent) -> RunningTask:
        work = tmp_path / place
        work.mkdir(exist_ok=True)
        names = tuple(map(str, range(CLASSES)))
        data = Dataset(info(), names, names, train, train)
        return RunningTask(
            dataset=info(), ipc=ipc, seed=seed, data=data, teachers=(teacher,), device=torch.device("cpu"), work=work,
            on_progress=progress,
        )  # fmt: skip

    return make


def distill(task: RunningTask, **config: Any) -> Images:
    """Both stages: the scores of the pool, then the images made from them."""
    method = RDED(RDED.Config(**config))
    (mosaics := task.work / "mosaics").mkdir()
    return running.distill(method, dataclasses.replace(task, work=mosaics, prepared=running.prepare(method, task)))


# -- the reference


def reference(task: RunningTask, factor: int, pool: int, crops: int) -> list[Tensor]:
    """Float images in [0, 1], class by class; no two images at once."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    net = task.teacher.model().net.eval()
    small = SIDE // factor
    plan = AugmentationConfig(
        size=small, ratio=(1, 1), min_scale=0.08, max_scale=1, seed=seed_for("rded-crops", task.seed)
    )
    stream = AugmentationStream(plan, len(task.data.train))
    taken = sample_classes(task.data.train.labels, CLASSES, pool, task.seed, most=True)
    images = []
    for label in range(CLASSES):
        candidates: list[tuple[float, Tensor]] = []
        for index in taken.tolist():
            if int(task.data.train.labels[index]) != label:
                continue
            image = task.data.train.image(index).float() / 255
            height, width = image.shape[1:]
            best: tuple[float, Tensor] | None = None
            for crop in range(crops):
                sizes = torch.tensor([height]), torch.tensor([width])
                box = stream.boxes(crop, torch.tensor([index]), *sizes)[0].tolist()
                assert box[2] == box[3]  # squares
                patch = transforms.resized_crop(image, *box, [small, small], antialias=True)
                normalised = (patch - mean) / std
                padded = torch.zeros(3, SIDE, SIDE)
                edge = (SIDE - small) // 2
                padded[:, edge : edge + small, edge : edge + small] = normalised
                with torch.no_grad():
                    loss = -float(net(padded[None])[0].softmax(0)[label].log())
                if best is None or loss < best[0]:
                    best = loss, normalised
            assert best is not None
            candidates.append(best)
        ranked = [patch for _, patch in sorted(candidates, key=lambda pair: pair[0])]
        for image_number in range(task.ipc):
            canvas = torch.zeros(3, SIDE, SIDE)
            for row in range(factor):
                for column in range(factor):
                    patch = ranked[(row * factor + column) * task.ipc + image_number]
                    place = slice(row * small, (row + 1) * small), slice(column * small, (column + 1) * small)
                    canvas[:, place[0], place[1]] = patch
            images.append(canvas * std + mean)
    return images


def assert_same(made: Tensor, wanted: list[Tensor]) -> None:
    """Equal; but normalising and its inverse move what is close to a whole level across it now and then."""
    levels = torch.stack(wanted).clamp(0, 1) * 255
    assert made.dtype == torch.uint8 and made.shape == levels.shape
    apart = (made.float() - levels.floor()).abs()
    assert apart.max() <= 1
    assert not (apart[(levels - levels.round()).abs() > 1e-3] > 0).any()


@pytest.mark.parametrize(("factor", "ipc"), [(1, 1), (1, 7), (2, 3), (4, 1)])
def test_equals_the_reference_on_images_in_memory(make_task: MakeTask, factor: int, ipc: int) -> None:
    task = make_task(resident(), ipc)
    made = distill(task, factor=factor, pool=17, batch_size=20)
    assert_same(made.pixels, reference(task, factor, 17, 5))
    assert made.labels.tolist() == [label for label in range(CLASSES) for _ in range(ipc)]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_equals_the_reference_on_files_of_many_sizes(make_task: MakeTask, tmp_path: Path, suffix: str) -> None:
    task = make_task(files(tmp_path, suffix), ipc=2)
    made = distill(task, factor=2, crops=3)
    assert_same(made.pixels, reference(task, 2, 300, 3))


def test_one_crop_an_image_and_at_most_one_patch_of_it(make_task: MakeTask) -> None:
    """With crops of the whole image, patches tell which image they are from."""
    real = resident()
    task = make_task(real, ipc=EACH // 4)
    made = distill(task, factor=2, crops=1, min_scale=1).pixels
    shrunk = transforms.resize(real.pixels.float() / 255, [SIDE // 2, SIDE // 2], antialias=True)
    shrunk = quantise(shrunk).float()
    half = SIDE // 2
    cells = torch.stack([made[:, :, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]).flatten(0, 1)
    distance = (cells.float()[:, None] - shrunk).abs().amax((2, 3, 4))
    assert distance.min(1).values.max() <= 1
    origins = distance.argmin(1)
    assert len(set(origins.tolist())) == len(origins) == CLASSES * EACH // 4 * 4


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_images(make_task: MakeTask) -> None:
    first, again, other = (
        distill(make_task(resident(), 4, seed, place)).pixels
        for place, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_batch_size_does_not_matter(make_task: MakeTask) -> None:
    one, other = (distill(make_task(resident(), 4, 0, str(size)), batch_size=size).pixels for size in (1, 64))
    assert torch.equal(one, other)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_killed_in_the_middle_it_goes_on_to_the_same_scores(make_task: MakeTask) -> None:
    whole = running.prepare(RDED(), make_task(resident(), 4, place="whole"))

    def killed(done: int, total: int, **_: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.prepare(RDED(), make_task(resident(), 4, progress=killed))
    made: list[int] = []
    again = running.prepare(RDED(), make_task(resident(), 4, progress=lambda done, total, **_: made.append(done)))
    assert made == [2, 3]  # the first class was there
    assert same(again, whole)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("lazily", [False, True])
def test_stopped_again_and_again_it_ends_with_the_same_bits(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, lazily: bool
) -> None:
    monkeypatch.setattr(rded.RDED, "crop_bytes", 7 * 5 * 12 * SIDE**2)  # 7 images at once: a class takes 3 chunks
    train = files(tmp_path, "png") if lazily else resident()
    whole = running.prepare(RDED(), make_task(train, 4, place="whole"))
    stopped, told = stopped_every(
        every, lambda progress: running.prepare(RDED(), make_task(train, 4, place="scores", progress=progress))
    )
    assert told == list(range(1, 10))
    assert same(stopped, whole)

    def distill_from_scores(progress: Progress, place: str = "mosaics") -> Images:
        task = make_task(train, 4, place=place, progress=progress)
        return running.distill(RDED(), dataclasses.replace(task, prepared=whole))

    made, told = stopped_every(every, distill_from_scores)
    assert told == [1, 2, 3]
    assert torch.equal(made.pixels, distill_from_scores(silent, "undisturbed").pixels)


def test_one_scoring_serves_every_ipc(make_task: MakeTask) -> None:
    few, many = make_task(resident(), 1, place="few"), make_task(resident(), 6, place="many")
    cells = Cells(info())
    one, other = (cells.images(RDED(), point) for point in (few, many))
    assert one.id != other.id and one.parents == other.parents
    scores = running.prepare(RDED(), make_task(resident(), 1, place="scores"))
    best, all_six = (running.distill(RDED(), dataclasses.replace(task, prepared=scores)).pixels for task in (few, many))
    assert torch.equal(best, all_six[::6])


def test_mosaic_puts_rank_k_ipc_plus_q_into_cell_k_of_image_q() -> None:
    ipc = 3
    patches = torch.arange(4 * ipc).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    images = mosaic(patches, ipc)
    assert images.shape == (ipc, 3, 4, 4)
    for q in range(ipc):
        corners = [int(images[q, 0, y, x]) for y in (0, 2) for x in (0, 2)]
        assert corners == [q, q + ipc, q + 2 * ipc, q + 3 * ipc]
        assert torch.equal(images[q, :, :2, :2], torch.full((3, 2, 2), q))
    assert torch.equal(mosaic(patches, 4 * ipc), patches)  # factor 1: no mosaic


def test_levels_are_truncated_and_never_wrap_around() -> None:
    values = torch.tensor([-1e-8, 0.0, 0.999 / 255, 1 / 255, 254.999 / 255, 1.0, 1 + 1e-6]).view(1, 1, 1, -1)
    assert quantise(values.expand(1, 3, 1, -1))[0, 0, 0].tolist() == [0, 0, 0, 1, 254, 255, 255]


def test_the_factor_is_2_from_128_px_up() -> None:
    assert [RDED().factor(size) for size in (16, 28, 32, 64, 128, 224)] == [1, 1, 1, 1, 2, 2]
    assert RDED(RDED.Config(factor=3)).factor(224) == 3


def test_an_ipc_beyond_the_pool_is_refused() -> None:
    RDED().check(GridPoint(info(), EACH, 0))
    with pytest.raises(UserError, match=r"rded at IPC 21 on noise needs 21 patches .* pool has 20 images"):
        RDED().check(GridPoint(info(), EACH + 1, 0))
    with pytest.raises(UserError, match="needs 40 patches per class"):
        RDED(RDED.Config(factor=2)).check(GridPoint(info(), 10, 0))
    with pytest.raises(UserError, match="pool has 300 images"):
        RDED().check(GridPoint(info(224, smallest=1300), 76, 0))
    with pytest.raises(UserError, match=r"rded.factor 3 does not divide .*'s 16 px"):
        RDED(RDED.Config(factor=3)).check(GridPoint(info(), 1, 0))


def test_identities_hold_what_decides_and_are_shared() -> None:
    point, cells = GridPoint(info(), 5, 1), Cells(info())
    method = RDED(RDED.Config(crops=3, batch_size=7))
    made = cells.images(method, point)
    assert made.fields == {"dataset": "noise", "ipc": 5, "seed": 1}  # the crops come with the prepared scores
    assert cells.by_id[made.parents["prepared"]].fields == {"dataset": "noise", "config": {"crops": 3}, "seed": 1}
    assert made.call["settings"] == {"crops": 3, "batch_size": 7}  # the batch size affects speed alone
    assert not labels_itself(RDED())
    assert cells.images(HeLlO(), point) is cells.images(RDED(), point)  # made once for both


def test_the_score_is_the_cross_entropy_of_the_true_class(teacher: Trajectory) -> None:
    model, crops = teacher.model(), torch.rand(6, 3, 8, 8)
    found = rded.score(model, crops, 1, SIDE)
    for crop, value in zip(crops, found.tolist(), strict=True):
        # grey of the mean around the patch is zero after normalising
        canvas = torch.tensor(MEAN).view(3, 1, 1).expand(3, SIDE, SIDE).clone()
        canvas[:, 4:12, 4:12] = crop
        assert math.isclose(value, -float(model(canvas[None])[0].log_softmax(0)[1]), rel_tol=1e-4, abs_tol=1e-5)
