"""The method ``external``: files as they are, refused where they are not what was imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api import Dataset, DatasetInfo, GridPoint, Images, TeacherSpec
from bench.errors import UserError
from bench.kit import images as image_files
from bench.kit.data.dataset import Resident
from bench.kit.running import RunningTask
from bench.planning.cells import Cells, labels_itself
from methods.external import External

CLASSES, IPC, SIDE = 3, 2, 8
INFO = DatasetInfo(
    name="noise", title="Noise", classes=CLASSES, image_size=SIDE, smallest_class=9, train_images=27, test_images=3,
    mean=(0.5,) * 3, std=(0.25,) * 3, teacher=TeacherSpec(), clip="icon-clip", student="convnet2",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An imported set of JPEG files."""
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (CLASSES * IPC, 3, SIDE, SIDE), generator=stream, dtype=torch.uint8)
    (tmp_path / "set" / "images").mkdir(parents=True)
    made = Images(pixels, torch.arange(CLASSES).repeat_interleave(IPC))
    image_files.save(made, tmp_path / "set" / "images", "jpeg")
    return tmp_path / "set"


def method(place: Path, **more: Any) -> External:
    facts = {"set": "x", "folder": str(place), "stands_for": "noise", "ipc": IPC, **more}
    facts.setdefault("images", image_files.files_digest(place / "images"))
    return External.for_dataset(INFO, **facts)


def task(tmp_path: Path, seed: int = 0) -> RunningTask:
    split, ids = Resident(torch.zeros(3, 3, SIDE, SIDE, dtype=torch.uint8), torch.arange(3)), ("a", "b", "c")
    return RunningTask(
        dataset=INFO, ipc=IPC, seed=seed, data=Dataset(INFO, ids, ids, split, split), teachers=(),
        device=torch.device("cpu"), work=tmp_path, on_progress=lambda *_, **__: None,
    )  # fmt: skip


def test_files_are_kept_byte_by_byte(folder: Path, tmp_path: Path) -> None:
    made = method(folder).distill(task(tmp_path))
    assert made.labels.tolist() == [0, 0, 1, 1, 2, 2]
    image_files.save(made, tmp_path / "cell", "jpeg")
    assert image_files.files_digest(tmp_path / "cell") == image_files.files_digest(folder / "images")
    assert torch.equal(image_files.load(tmp_path / "cell").pixels, made.pixels)


def test_the_identity_is_the_content_not_the_place_or_the_seed(folder: Path, tmp_path: Path) -> None:
    moved = Path(folder.rename(tmp_path / "elsewhere"))
    here, points = method(moved), [GridPoint(INFO, IPC, seed) for seed in (0, 1)]
    there = method(moved, folder="/gone", set="other", images=here.config.model_dump()["images"])
    ids = {Cells(INFO).images(one, point).id for one in (here, there) for point in points}
    assert len(ids) == 1
    path = next((moved / "images").rglob("*.jpg"))
    path.write_bytes(path.read_bytes() + b"\0")
    assert Cells(INFO).images(method(moved), points[0]).id not in ids


def test_changed_and_missing_files_are_refused(folder: Path, tmp_path: Path) -> None:
    taken = method(folder)
    path = next((folder / "images").rglob("*.jpg"))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="the images of external:x .* are not those that were imported"):
        taken.distill(task(tmp_path))
    folder.rename(tmp_path / "gone")
    with pytest.raises(UserError, match="are gone; import them again"):
        taken.distill(task(tmp_path))


@pytest.mark.parametrize(
    ("facts", "ipc", "words"),
    [
        ({"set": ""}, IPC, "bench import DIR"),
        ({"stands_for": "cifar10"}, IPC, "a distilled cifar10, not noise"),
        ({}, 5, "has IPC 2 alone, not 5; say --ipc 2"),
    ],
)
def test_what_it_can_not_do_is_said_when_it_is_planned(
    folder: Path, facts: dict[str, Any], ipc: int, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        method(folder, **facts).check(GridPoint(INFO, ipc, 0))
    assert words in str(caught.value)


def test_another_class_order_is_refused(folder: Path, tmp_path: Path) -> None:
    assert method(folder, order_hash=task(tmp_path).data.order_hash).distill(task(tmp_path))
    with pytest.raises(UserError, match="another class order"):
        method(folder, order_hash="0" * 64).distill(task(tmp_path))


def test_its_own_labels_are_its_native_ones(folder: Path) -> None:
    point = GridPoint(INFO, IPC, 0)
    assert not labels_itself(method(folder)) and method(folder).info.name == "external:x"
    own = method(folder, labels="stored", labels_digest="1")
    images = Cells(INFO).images(own, point)
    stored = Cells(INFO).label_model(own, point, images)
    assert own.info.fixed_labels and own.info.labels == "own stored" and stored.parents == {"images": images.id}
    teacher = method(folder, labels="teacher", labels_digest="2")
    model = Cells(INFO).label_model(teacher, point, images)
    assert labels_itself(teacher) and not teacher.info.fixed_labels and model.parents == {} and model.id != stored.id
    assert External.info.name == "external" and External.info.labels == "teacher"
