"""What image files hold: digests, the cache of hashes, and images that change under a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api import Dataset
from bench.api.catalogue import ImageFiles
from bench.errors import UserError
from bench.kit import data
from bench.kit.data import contents
from bench.kit.data.contents import CheckedPaths, Contents, DataChanged, contents_of
from bench.kit.data.dataset import FileDataset, Files
from bench.kit.data.decoding import decode
from bench.kit.data.listing import list_folder
from bench.kit.overlap import Leakage, too_many

OLD = (1_700_000_000, 1_700_000_000)


def listed(folder: Path) -> ImageFiles:
    train, val = list_folder(folder)
    return ImageFiles(train, val, tuple(train.files))


def digest(folder: Path) -> str:
    return contents_of(listed(folder), folder / "no-cache").digest


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_name("spare"))
    other.rename(one)
    one.with_name("spare").rename(other)


def test_the_digest_is_of_images_with_class_and_split_and_not_of_places(colours: Path, tmp_path: Path) -> None:
    before = digest(colours)
    moved = shutil.copytree(colours, tmp_path / "elsewhere" / "other")
    assert digest(moved) == before
    for split in ("train", "val"):
        swap(moved / split / "colour 0", moved / split / "colour 1")
        assert digest(moved) != before
        swap(moved / split / "colour 0", moved / split / "colour 1")
    assert digest(moved) == before
    swap(moved / "train", moved / "val")
    assert digest(moved) != before


def remember(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Remember all hashes, and return the list to which every file read later is added."""
    monkeypatch.setattr(contents, "WORTH_KEEPING", -1.0)
    monkeypatch.setattr(contents, "YOUNG", -(10**12))  # files of this test are as good as old ones
    contents_of(listed(folder), cache)
    read: list[str] = []
    hashed = contents._hash
    monkeypatch.setattr(contents, "_hash", lambda path: read.append(Path(path).name) or hashed(path))
    return read


def test_only_changed_files_are_read_again(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = remember(colours, tmp_path / "cache", monkeypatch)
    before = contents_of(listed(colours), tmp_path / "cache").digest
    assert read == []
    (colours / "train" / "colour 1" / "7.png").rename(colours / "train" / "colour 1" / "70.png")
    assert contents_of(listed(colours), tmp_path / "cache").digest != before or read == ["70.png"]
    assert read == ["70.png"]  # other names, other places of all that follow


@pytest.mark.parametrize("how", ["in place", "another file"])
def test_a_file_of_the_same_size_and_time_is_read_again(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    path = colours / "val" / "colour 2" / "1.png"
    os.utime(path, OLD)
    read = remember(colours, tmp_path / "cache", monkeypatch)
    before, whole = digest(colours), path.read_bytes()
    read.clear()
    if how == "another file":
        path.unlink()
    path.write_bytes(whole[:-1] + b"?")
    os.utime(path, OLD)
    assert contents_of(listed(colours), tmp_path / "cache").digest != before
    assert read == ["1.png"]


def test_young_files_and_a_damaged_cache_are_not_believed(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = remember(colours, tmp_path / "cache", monkeypatch)
    (kept, _) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    contents_of(listed(colours), tmp_path / "cache")
    assert len(read) in (12, 24)  # the split whose file was damaged
    read.clear()
    monkeypatch.setattr(contents, "YOUNG", 2 * 10**9)
    contents_of(listed(colours), tmp_path / "cache")
    assert len(read) == 36


def test_a_store_keeps_what_its_cells_read(colours: Path, tmp_path: Path) -> None:
    made = contents_of(listed(colours))
    kept = made.save(tmp_path / "datasets", "folder-colours")
    assert Contents.load(kept).digest == made.digest
    info = data.catalogue.dataset(f"folder:{colours}")
    shutil.rmtree(colours / "train")  # a student does not look for it
    found = data.load(info, colours, kept)
    assert isinstance(found, FileDataset)
    assert found.digest == made.digest == info.fingerprint
    assert len(found.test) == 12
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(UserError, match="run the same command again"):
        Contents.load(kept)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_changes_under_a_run_is_named(colours: Path, workers: int) -> None:
    part = contents_of(listed(colours)).parts["val"]
    path = colours / "val" / "colour 1" / "3.png"
    os.utime(path)  # touched, and the same
    split = Files(CheckedPaths(part), torch.zeros(12, dtype=torch.int64), workers)
    assert len(list(split.centered(16, "cpu", 4))) == 3
    path.write_bytes((colours / "val" / "colour 0" / "3.png").read_bytes())
    with pytest.raises(DataChanged, match=r"colour 1/3\.png has changed since"):
        list(split.centered(16, "cpu", 4))
    path.unlink()
    with pytest.raises(DataChanged, match=r"colour 1/3\.png can't be read"):
        _ = CheckedPaths(part)[7]


def test_arrays_are_digested_by_their_pixels() -> None:
    one, other = (data.load(data.catalogue.dataset("digits")) for _ in range(2))
    assert one.digest == other.digest
    other.test.pixels[0, 0, 0, 0] += 1  # type: ignore[attr-defined]
    other.__dict__.pop("digest")
    assert one.digest != other.digest


def own(folder: Path) -> Dataset:
    return data.load(data.catalogue.dataset(f"folder:{folder}"), folder)


def test_test_images_among_the_training_images_are_counted_by_their_pixels(colours: Path) -> None:
    clean = Leakage.of(own(colours))
    assert (clean.counts.tolist(), clean.refusal) == ([12, 0], "")
    for index in range(2):  # the same pixels in another format
        path = colours / "val" / "colour 0" / f"{index}.png"
        Image.open(path).save(colours / "train" / "colour 2" / f"copy{index}.bmp")
    assert "2 of 12 test images are training images" in Leakage.of(own(colours)).refusal


@pytest.mark.parametrize(("size", "image_size"), [(32, 32), (64, 64), (90, 64)])
def test_copies_among_synthetic_images_are_known_as_they_are_and_nearly(
    tmp_path: Path, size: int, image_size: int
) -> None:
    """As files, encoded again, and resized by another filter; not images of the same class, nor training images."""
    stream = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 4)):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for index in range(count):
                coarse = stream.integers(0, 256, (3, 3, 3), dtype=np.uint8)
                shown = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
                shown.save(tmp_path / "set" / split / name / f"{index}.png")
    found = own(tmp_path / "set")
    assert found.info.image_size == image_size
    leakage, kept = Leakage.of(found), tmp_path / "kept.npz"
    leakage.save(kept)
    leakage = Leakage.load(kept) or leakage
    tested, trained = (
        torch.cat([x for x, _ in split.centered(image_size, "cpu")]) for split in (found.test, found.train)
    )
    assert (leakage.among(tested), leakage.among(trained)) == (8, 0)
    assert (leakage.among(tested.flip(3)), leakage.among(trained.flip(3))) == (8, 0)
    again = []
    for pixels in tested:
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "again.jpg", quality=75)
        again.append(decode(tmp_path / "again.jpg"))
    assert leakage.among(torch.stack(again)) == 8
    assert Leakage.load(tmp_path / "none.npz") is None


def test_one_in_a_hundred_is_said_and_more_are_refused() -> None:
    assert not too_many(10, 1000, "")
    assert too_many(11, 1000, "")
