"""Data sets of image files: every layout, class orders, broken files, and reading them lazily."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api import Dataset, DatasetInfo, catalogue
from bench.errors import UserError
from bench.kit import data
from bench.kit.data import decoding, image_folders, names
from bench.kit.data.dataset import Files, Resident
from bench.kit.data.reading import cut_centre, default_workers, read_batches
from bench.kit.views import AugmentationConfig, AugmentationStream


@pytest.fixture(autouse=True)
def few_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTILL_BENCH_WORKERS", "0")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def write_image(path: Path, size: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).save(path)


def write_tree(root: Path, classes: list[str], size: tuple[int, int], suffix: str = ".JPEG") -> None:
    for split, count in (("train", 2), ("val", 1)):
        for seed, name in enumerate(classes):
            for i in range(count):
                write_image(root / split / name / f"{i}{suffix}", size, 10 * seed + i)


def resized(name: str, **facts: int) -> DatasetInfo:
    """The catalogue's facts for a set of another size."""
    return catalogue.dataset(name).model_copy(update=facts)


# -- layouts and class orders


def test_the_imagenet100_list_is_idcs_in_idcs_order() -> None:
    ids = image_folders.imagenet100_ids()
    assert len(set(ids)) == 100
    assert (ids[0], ids[1], ids[-1]) == ("n02869837", "n01749939", "n02090622")
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    assert digest == "b06db93f7ac2851ef476c162d6c4cbba17197be0269c88005add46486f682cb0"
    assert set(ids) <= names.imagenet().keys()


def test_imagenet100_is_picked_out_of_imagenet1k_in_its_own_order(tmp_path: Path) -> None:
    ids = image_folders.imagenet100_ids()
    write_tree(tmp_path / "imagenet-1k", [*sorted(ids), "n01440764"], (24, 20))
    found = data.load(catalogue.dataset("imagenet-100"), tmp_path)
    assert found.ids == ids
    assert found.names[:3] == ("poke bonnet", "green mamba", "langur")
    assert isinstance(found.train, Files)
    assert found.train.labels.tolist() == [label for label in range(100) for _ in range(2)]
    assert [path.parent.name for path in [*found.train.paths][::2]] == list(ids)
    assert found.order_hash == "b06db93f7ac2851ef476c162d6c4cbba17197be0269c88005add46486f682cb0"


def test_imagenet1k_has_its_sorted_wnids_and_names_a_class_without_folder(tmp_path: Path) -> None:
    wnids = list(names.imagenet())
    assert len(wnids) == 1000
    assert wnids == sorted(wnids)
    assert names.imagenet()["n01440764"] == "tench"
    assert names.imagenet()["n15075141"] == "toilet paper"
    write_tree(tmp_path / "imagenet-1k", wnids[:2], (24, 20))
    with pytest.raises(UserError, match=f"class '{wnids[2]}' has no folder"):
        data.load(catalogue.dataset("imagenet-1k"), tmp_path)


def test_imagenette_is_its_sorted_folders_with_imagenets_names(tmp_path: Path) -> None:
    wnids = ["n03445777", "n01440764", "n02102040"]
    write_tree(tmp_path / "imagenette2", wnids, (30, 40))
    info = resized("imagenette", classes=3, train_images=6, test_images=3)
    found = data.load(info, tmp_path)
    assert found.ids == tuple(sorted(wnids))
    assert found.names == ("tench", "English Springer Spaniel", "golf ball")
    with pytest.raises(UserError, match="holds 3 classes, 6 training images"):
        data.load(catalogue.dataset("imagenette"), tmp_path)


@pytest.mark.parametrize("sorted_val", [False, True])
def test_tiny_imagenet_has_the_order_of_wnids_txt(tmp_path: Path, sorted_val: bool) -> None:
    place, wnids = tmp_path / "tiny-imagenet-200", ["n02", "n03", "n01"]
    for seed, wnid in enumerate(wnids):
        for i in range(2):
            write_image(place / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (64, 64), 10 * seed + i)
    listed = ""
    for i, wnid in enumerate(["n01", "n02", "n03", "n01"]):
        folder = place / "val" / (wnid if sorted_val else "images")
        write_image(folder / f"val_{i}.JPEG", (64, 64), 50 + i)
        listed += f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t62\n"
    if not sorted_val:
        (place / "val" / "val_annotations.txt").write_text(listed)
    (place / "wnids.txt").write_text("\n".join(wnids))
    (place / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tpop bottle\nn03\tcliff, drop\n")
    found = data.load(resized("tiny-imagenet", classes=3, train_images=6, test_images=4), tmp_path)
    assert found.ids == ("n02", "n03", "n01")
    assert found.names == ("pop bottle", "cliff", "goldfish")
    assert isinstance(found.train, Resident)
    assert found.train.pixels.shape == (6, 3, 64, 64)
    assert found.test.labels.tolist() == [0, 1, 2, 2]
    last = decoding.decode(place / "val" / ("n01" if sorted_val else "images") / "val_3.JPEG")
    assert torch.equal(found.test.image(3), last)


@pytest.mark.parametrize("nested", [False, True])
def test_places_has_the_order_of_its_categories_under_both_kinds_of_folder(tmp_path: Path, nested: bool) -> None:
    ids = (Path(image_folders.__file__).with_name("places365.txt")).read_text().split()
    assert len(ids) == 365
    # a folder is searched to its depths, so no class may lie within another
    assert not any(other.startswith(name + "/") for name in ids for other in ids)
    write_tree(
        tmp_path / "places365_standard",
        [f"{name[0]}/{name}" if nested else name.replace("/", "-") for name in ids],
        (8, 9),
        ".jpg",
    )
    found = data.load(resized("places365", train_images=730, test_images=365), tmp_path)
    # as in categories_places365.txt of the Places365 development kit
    assert (found.ids.index("apartment_building/outdoor"), found.ids.index("zen_garden")) == (8, 364)
    assert (found.names[0], found.names[8]) == ("airfield", "outdoor apartment building")
    assert (found.names[31], found.names[129]) == ("bakery shop", "elevator door")


def test_icons_need_the_mark_of_a_whole_build(tmp_path: Path) -> None:
    classes = (Path(image_folders.__file__).with_name("icons_100.txt")).read_text().split()
    write_tree(tmp_path / "icons-100", classes, (64, 64), ".png")
    with pytest.raises(UserError, match=r"icons-100.json: no such file"):
        data.load(catalogue.dataset("icons-100"), tmp_path)
    (tmp_path / "icons-100" / "icons-100.json").write_text("{}")
    found = data.load(catalogue.dataset("icons-100"), tmp_path)
    assert isinstance(found.train, Resident)
    assert found.ids == tuple(classes)
    assert not any("-" in name for name in found.names)


def load_own(folder: Path) -> Dataset:
    name = f"folder:{folder}"
    return data.load(catalogue.dataset(name), catalogue.root_of(name))


def test_a_folder_of_the_users_is_read_wherever_it_lies_until_it_changes(tmp_path: Path) -> None:
    write_tree(tmp_path / "a" / "pets", ["wild_cat", "dog"], (32, 32), ".png")
    info = catalogue.dataset(f"folder:{tmp_path / 'a' / 'pets'}")
    (tmp_path / "a").rename(tmp_path / "b")
    found = data.load(info, tmp_path / "b" / "pets")
    assert isinstance(found.train, Resident)
    assert found.ids == ("dog", "wild_cat")
    assert found.names == ("dog", "wild cat")
    write_image(tmp_path / "b" / "pets" / "val" / "dog" / "new.png", (32, 32), 1)
    with pytest.raises(UserError, match="not those that were planned with"):
        data.load(info, tmp_path / "b" / "pets")


# -- broken files


@pytest.mark.parametrize("size", [(32, 32), (90, 70)], ids=["in memory", "lazily"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_named_before_anything_is_computed(
    tmp_path: Path, size: tuple[int, int], suffix: str
) -> None:
    folder = tmp_path / "pets"
    write_tree(folder, ["cat", "dog"], size, suffix)
    broken = folder / "train" / "dog" / f"1{suffix}"
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(UserError) as caught:
        _ = load_own(folder).train
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(32, 32), (90, 70)], ids=["in memory", "lazily"])
@pytest.mark.parametrize("first", [0, 1], ids=["seen by the plan", "seen when read"])
def test_all_broken_images_are_told_at_once(tmp_path: Path, size: tuple[int, int], first: int) -> None:
    write_tree(tmp_path / "pets", ["cat", "dog"], size, ".jpg")
    broken = [tmp_path / "pets" / "train" / name / f"{first}.jpg" for name in ("cat", "dog")]
    for path in broken:
        path.write_bytes(path.read_bytes()[: -40 * first])
    with pytest.raises(UserError, match=r"^2 of \d+ images cannot be read, e.g. [^\n]+$") as caught:
        _ = load_own(tmp_path / "pets").train
    assert all(f"{path}: not a readable image" in str(caught.value) for path in broken)


def test_broken_images_are_counted_and_five_are_named(tmp_path: Path) -> None:
    for i in range(9):
        write_image(tmp_path / f"{i}.png", (9, 9), i)
    for i in range(2, 9):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    with pytest.raises(UserError, match="^7 of 9 images cannot be read, e.g. ") as caught:
        decoding.check_all([tmp_path / f"{i}.png" for i in range(9)], "x", tmp_path)
    assert [f"{i}.png: not a readable image" in str(caught.value) for i in range(9)] == [2 <= i < 7 for i in range(9)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_later_stops_the_reading_and_is_named(tmp_path: Path, workers: int) -> None:
    for i in range(6):
        write_image(tmp_path / f"{i}.png", (20, 20), i)
    (tmp_path / "4.png").write_bytes(b"broken")
    split = Files([tmp_path / f"{i}.png" for i in range(6)], torch.zeros(6, dtype=torch.int64), workers)
    batches = split.centered(16, "cpu", batch_size=2)
    assert len(next(batches)[0]) == 2
    with pytest.raises(UserError, match=r"^[^\n]*4.png: not a readable image[^\n]*$"):
        list(batches)


def test_a_long_check_is_remembered_by_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        write_image(path, (9, 9), i)
    decoding.check_all(paths, "one", tmp_path / "stamps")
    assert not (tmp_path / "stamps").exists()
    monkeypatch.setattr(decoding, "WORTH_A_STAMP", -1.0)
    decoding.check_all(paths, "one", tmp_path / "stamps")
    assert [path.name for path in (tmp_path / "stamps" / "checked").iterdir()] == ["one"]
    paths[1].write_bytes(b"x")
    decoding.check_all(paths, "one", tmp_path / "stamps")  # trusted: contents are hashed elsewhere
    with pytest.raises(UserError, match=r"1\.png"):
        decoding.check_all(paths, "other", tmp_path / "stamps")


# -- lazy reading


@pytest.fixture
def lazy(tmp_path: Path) -> Files:
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        write_image(path, (30 + i, 50 - i), i)
    return Files(paths, torch.arange(12) % 3, workers=0)


def by_image(split: Files, plan: AugmentationConfig, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    stream = AugmentationStream(plan, len(split))
    views = list(split.views(stream.config, epoch=2, batch_size=batch_size, device="cpu"))
    order = torch.cat([batch.indices for batch in views]).argsort()
    return torch.cat([batch.pixels for batch in views])[order], torch.cat([b.labels for b in views])[order]


def test_views_of_files_do_not_depend_on_batches_or_workers(lazy: Files) -> None:
    plan = AugmentationConfig(size=16, flip=True, seed=1)
    pixels, labels = by_image(lazy, plan, batch_size=5)
    assert torch.equal(labels, lazy.labels)
    assert pixels.shape == (12, 3, 16, 16)
    assert torch.equal(by_image(lazy, plan, batch_size=12)[0], pixels)
    assert torch.equal(by_image(Files(lazy.paths, lazy.labels, workers=2), plan, batch_size=3)[0], pixels)
    assert not torch.equal(by_image(lazy, plan.model_copy(update={"seed": 2}), 5)[0], pixels)


def test_files_and_memory_give_the_same_views(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        write_image(path, (32, 32), i)
    labels = torch.arange(6)
    resident = Resident(decoding.decode_all(paths, 32), labels)
    files = Files(paths, labels, workers=0)
    stream = AugmentationStream(AugmentationConfig(size=24, flip=True, mix="cutmix", seed=4), 6)
    for lazily, held in zip(
        files.views(stream.config, 1, 4, "cpu"), resident.views(stream.config, 1, 4, "cpu"), strict=True
    ):
        assert torch.equal(lazily.labels, held.labels)
        assert torch.equal(lazily.partner_labels, held.partner_labels)
        assert lazily.weight == held.weight
        assert (lazily.pixels - held.pixels).abs().max() <= 1.01 / 255  # files are cut in whole levels
    indices = torch.tensor([5, 0])
    crops = [split.crops(stream.config, indices, 3, "cpu") for split in (files, resident)]
    assert (crops[0] - crops[1]).abs().max() <= 1.01 / 255
    centred = [torch.cat([x for x, _ in split.centered(32, "cpu", 4)]) for split in (files, resident)]
    assert torch.equal(*centred)


def test_a_plan_that_needs_memory_is_refused_in_one_line(lazy: Files) -> None:
    for workers in (0, 1):
        split = Files(lazy.paths, lazy.labels, workers)
        with pytest.raises(UserError, match=r"^[^\n]*needs images in memory[^\n]*$"):
            list(split.views(AugmentationStream(AugmentationConfig(size=16, shuffle=2), 12).config, 0, 4, "cpu"))


def test_reading_leaves_the_global_random_stream_alone(lazy: Files) -> None:
    state = torch.random.get_rng_state()
    list(Files(lazy.paths, lazy.labels, workers=1).centered(16, "cpu"))
    assert torch.equal(torch.random.get_rng_state(), state)


def warn_and_cut(images: Sequence[torch.Tensor], indices: torch.Tensor) -> list[torch.Tensor]:
    """Send the own worker the warning that a cluster sends to all processes of a job."""
    os.kill(os.getpid(), signal.SIGUSR2)
    return cut_centre(16, False, images, indices)


def test_workers_outlive_the_warning_of_a_jobs_end(lazy: Files) -> None:
    groups = torch.arange(4).split(2)  # type: ignore[no-untyped-call]
    batches = list(read_batches(lazy.paths, groups, warn_and_cut, torch.device("cpu"), workers=1))
    assert [len(batch) for batch in batches] == [2, 2]


def test_the_number_of_workers_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_BENCH_WORKERS", "3")
    assert default_workers() == 3
    monkeypatch.setenv("DISTILL_BENCH_WORKERS", "many")
    with pytest.raises(UserError, match="'many'"):
        default_workers()
    monkeypatch.delenv("DISTILL_BENCH_WORKERS")
    assert 1 <= default_workers() <= 16
