"""The baseline of random real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.api import Dataset, DatasetInfo, GridPoint, Images, TeacherSpec
from bench.errors import UserError
from bench.kit.data.dataset import Resident
from bench.kit.running import RunningTask
from bench.planning.cells import Cells, labels_itself
from methods.random_real import RandomReal

CLASSES, EACH = 4, 12


def distill(tmp_path: Path, ipc: int, seed: int = 0, side: int = 16, size: int = 16) -> tuple[Images, Resident]:
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (CLASSES * EACH, 3, side, side), generator=stream, dtype=torch.uint8)
    train = Resident(pixels, torch.arange(CLASSES * EACH) % CLASSES)
    info = DatasetInfo(
        name="noise", title="Noise", classes=CLASSES, image_size=size, smallest_class=EACH, train_images=len(train),
        test_images=1, mean=(0.5,) * 3, std=(0.25,) * 3, teacher=TeacherSpec(), clip="icon-clip", student="convnet2",
    )  # fmt: skip
    names = tuple(map(str, range(CLASSES)))
    task = RunningTask(
        dataset=info, ipc=ipc, seed=seed, data=Dataset(info, names, names, train, train), teachers=(),
        device=torch.device("cpu"), work=tmp_path, on_progress=lambda *_, **__: None,
    )  # fmt: skip
    return RandomReal().distill(task), train


def rows(images: Images) -> set[bytes]:
    return {pixels.numpy().tobytes() for pixels in images.pixels}


def test_images_are_training_images_of_their_class_taken_once(tmp_path: Path) -> None:
    images, train = distill(tmp_path, ipc=5)
    assert images.labels.tolist() == [label for label in range(CLASSES) for _ in range(5)]
    real = {pixels.numpy().tobytes(): int(label) for pixels, label in zip(train.pixels, train.labels, strict=True)}
    found = [real[pixels.numpy().tobytes()] for pixels in images.pixels]
    assert found == images.labels.tolist()
    assert len(rows(images)) == len(images)


def test_seeds_decide_and_a_larger_set_holds_the_smaller(tmp_path: Path) -> None:
    (small, _), (large, _), (other, _) = (
        distill(tmp_path, 2),
        distill(tmp_path, 6),
        distill(tmp_path, 2, seed=1),
    )
    assert torch.equal(small.pixels, distill(tmp_path, 2)[0].pixels)
    assert rows(small) < rows(large)
    assert rows(small) != rows(other)


def test_images_are_seen_as_test_images_are(tmp_path: Path) -> None:
    images, train = distill(tmp_path, ipc=EACH, side=40, size=20)
    assert images.pixels.shape == (CLASSES * EACH, 3, 20, 20)
    shown = torch.cat([pixels for pixels, _ in train.centered(20, "cpu")])
    assert rows(images) == {pixels.numpy().tobytes() for pixels in shown}


def test_more_than_a_class_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"class 0 has 12 training images, fewer than the 13 asked for"):
        distill(tmp_path, EACH + 1)


def test_it_needs_no_teacher_and_brings_no_labels() -> None:
    info = DatasetInfo(
        name="x", title="X", classes=2, image_size=8, smallest_class=9, train_images=18, test_images=2,
        mean=(0.5,) * 3, std=(0.25,) * 3, teacher=TeacherSpec(), clip="icon-clip", student="convnet2",
    )  # fmt: skip
    point = GridPoint(info, 3, 1)
    assert RandomReal().teachers(point) == () and not labels_itself(RandomReal()) and RandomReal.info.labels == "hard"
    assert Cells(info).images(RandomReal(), point).fields == {"dataset": "x", "ipc": 3, "seed": 1}
