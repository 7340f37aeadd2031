"""Data sets in memory: the embedded one, IDX and CIFAR files; and what a split hands out."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from bench.api import DatasetInfo, catalogue
from bench.api.dataset import order_hash
from bench.errors import UserError
from bench.execution.datasets import describe
from bench.kit import data
from bench.kit.data.arrays import digits_test_indices
from bench.kit.data.dataset import Files, Resident
from bench.kit.views import AugmentationConfig, AugmentationStream
from bench.kit.views.geometry import centre


def counts_of(info: DatasetInfo, train: int, test: int) -> DatasetInfo:
    return info.model_copy(update={"train_images": train, "test_images": test})


# -- digits


def resized_digits(size: int) -> DatasetInfo:
    return catalogue.dataset("digits").model_copy(update={"image_size": size})


def test_the_digits_split_is_written_down_stratified_and_fixed() -> None:
    indices = digits_test_indices()
    assert hashlib.sha256(",".join(map(str, indices)).encode()).hexdigest().startswith("2b34a89618d0d4df")
    digits = data.load(catalogue.dataset("digits"))
    assert len(digits.train) == 1437
    assert len(digits.test) == 360
    shares = torch.bincount(digits.test.labels) / torch.bincount(torch.cat([digits.train.labels, digits.test.labels]))
    assert (shares - 0.2).abs().max() < 0.004
    assert digits.info.smallest_class == torch.bincount(digits.train.labels).min()


def test_digits_are_scikit_learns_in_its_order() -> None:
    digits, source = data.load(resized_digits(8)), load_digits()
    test = torch.zeros(1797, dtype=torch.bool)
    test[list(digits_test_indices())] = True
    for split, chosen in ((digits.train, ~test), (digits.test, test)):
        assert isinstance(split, Resident)
        ink = torch.from_numpy(source.images)[chosen] * 255 / 16
        assert torch.equal(split.pixels[:, 0], ink.round().to(torch.uint8))
        assert torch.equal(split.labels, torch.from_numpy(source.target)[chosen])


def test_digits_are_white_on_black_at_their_size_with_the_catalogues_mean() -> None:
    digits = data.load(catalogue.dataset("digits"))
    assert isinstance(digits.train, Resident)
    pixels = digits.train.pixels
    assert pixels.shape == (1437, 3, 16, 16)
    assert pixels.dtype == torch.uint8
    values = pixels.double() / 255
    assert values.mean().item() == pytest.approx(digits.info.mean[0], abs=1e-4)
    assert values.std().item() == pytest.approx(digits.info.std[0], abs=1e-4)
    assert digits.ids == tuple("0123456789")
    assert digits.names[3] == "number three"


# -- IDX


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape)
    raw = header + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_mnist(place: Path, suffix: str = "") -> NDArray[np.uint8]:
    images = np.arange(20 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(20, 28, 28)
    for split, part in (("train", slice(0, 14)), ("t10k", slice(14, 20))):
        labels = np.arange(20, dtype=np.uint8)[part] % 10
        write_idx(place / f"{split}-images-idx3-ubyte{suffix}", images[part])
        write_idx(place / f"{split}-labels-idx1-ubyte{suffix}", labels)
    return images


@pytest.mark.parametrize(
    ("name", "place", "suffix"), [("mnist", "MNIST/raw", ""), ("fashion-mnist", "fashion-mnist", ".gz")]
)
def test_idx_files_are_read_plain_or_gzipped(name: str, place: str, suffix: str, tmp_path: Path) -> None:
    images = write_mnist(tmp_path / place, suffix)
    found = data.load(counts_of(catalogue.dataset(name), 14, 6), tmp_path)
    assert isinstance(found.test, Resident)
    assert found.test.pixels.shape == (6, 3, 28, 28)
    assert np.array_equal(found.test.pixels[2, 1].numpy(), images[16])
    assert found.train.labels.tolist() == [*range(10), 0, 1, 2, 3]
    assert len(found.ids) == 10


def test_a_copy_with_other_counts_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    with pytest.raises(UserError, match="14 training images, 6 test images, expected 10 classes, 60000"):
        data.load(catalogue.dataset("mnist"), tmp_path)


def test_broken_idx_files_are_named(tmp_path: Path) -> None:
    info = counts_of(catalogue.dataset("mnist"), 14, 6)
    write_mnist(tmp_path / "mnist", ".gz")
    images = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: not a whole IDX file"):
        data.load(info, tmp_path)
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-5]))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: not a whole IDX file"):
        data.load(info, tmp_path)
    images.unlink()
    with pytest.raises(UserError, match="holds neither train-images-idx3-ubyte nor"):
        data.load(info, tmp_path)


# -- CIFAR


def write_cifar100(place: Path) -> NDArray[np.uint8]:
    place.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (150, 3072), dtype=np.uint8)
    for name, part in (("train", slice(0, 100)), ("test", slice(100, 150))):
        labels = [index % 100 for index in range(150)[part]]
        (place / name).write_bytes(pickle.dumps({"data": pixels[part], "fine_labels": labels}))
    names = ["aquarium_fish" if index == 1 else f"class_{index}" for index in range(100)]
    (place / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    return pixels


def test_cifar_is_read_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    pixels = write_cifar100(tmp_path / "cifar-100-python")
    found = data.load(counts_of(catalogue.dataset("cifar100"), 100, 50), tmp_path)
    assert isinstance(found.test, Resident)
    assert torch.equal(found.test.pixels[3], torch.from_numpy(pixels[103]).view(3, 32, 32))
    assert found.test.labels[3] == 3
    assert found.ids[1] == "aquarium_fish"
    assert found.names[1] == "aquarium fish"


def test_a_cifar_file_that_is_not_the_published_one_is_never_unpickled(tmp_path: Path) -> None:
    write_cifar100(tmp_path / "cifar-100-python")
    with pytest.raises(UserError, match="cifar-100-python: a file is missing or not the published one"):
        data.load(catalogue.dataset("cifar100"), tmp_path)


# -- splits


def test_views_of_an_epoch_hold_every_image_once_in_the_streams_order() -> None:
    digits = data.load(catalogue.dataset("digits"))
    stream = AugmentationStream(AugmentationConfig(size=16, seed=3), len(digits.test))
    batches = list(digits.test.views(stream.config, epoch=1, batch_size=100, device="cpu"))
    assert [len(views) for views in batches] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([views.indices for views in batches]), stream.order(1))
    assert torch.equal(torch.cat([views.labels for views in batches]), digits.test.labels[stream.order(1)])


@pytest.mark.parametrize("first", [0, 1, 3, 4, 9])
def test_views_from_a_batch_on_are_those_of_the_whole_epoch(first: int) -> None:
    digits = data.load(catalogue.dataset("digits"))
    stream = AugmentationStream(AugmentationConfig(size=16, seed=3, mix="cutmix"), len(digits.test))
    for replay in (None, [(0, 3), (5, 0), (2, 2), (0, 0)]):
        whole = list(digits.test.views(stream.config, 1, 100, "cpu", replay))
        rest = list(digits.test.views(stream.config, 1, 100, "cpu", replay, first=first))
        assert len(rest) == max(0, 4 - first)
        for views, wanted in zip(rest, whole[first:], strict=True):
            assert torch.equal(views.pixels, wanted.pixels) and torch.equal(views.indices, wanted.indices)
            assert (views.epoch, views.batch, views.weight) == (wanted.epoch, wanted.batch, wanted.weight)


@pytest.mark.parametrize("workers", [0, 1])
def test_files_of_batches_before_the_first_are_not_read(tmp_path: Path, workers: int) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(10)]
    for index, path in enumerate(paths):
        Image.fromarray(np.full((16, 16, 3), 20 * index, dtype=np.uint8)).save(path)
    split = Files(paths, torch.arange(10), workers)
    stream = AugmentationStream(AugmentationConfig(size=16, seed=3, mix="cutmix"), 10)
    whole = list(split.views(stream.config, 2, 4, "cpu"))
    for index in stream.order(2)[:8].tolist():
        paths[index].unlink()
    (last,) = split.views(stream.config, 2, 4, "cpu", first=2)
    assert torch.equal(last.pixels, whole[2].pixels) and torch.equal(last.indices, whole[2].indices)
    assert (last.batch, last.weight) == (2, whole[2].weight)


def test_centred_images_are_the_images_themselves_below_64_pixels() -> None:
    digits = data.load(catalogue.dataset("digits"))
    assert isinstance(digits.test, Resident)
    images = torch.cat([images for images, _ in digits.test.centered(16, "cpu", batch_size=100)])
    assert torch.equal(images, digits.test.pixels)
    chosen = torch.tensor([7, 3])
    ((images, labels),) = digits.test.centered(16, "cpu", indices=chosen)
    assert torch.equal(images, digits.test.pixels[chosen])
    assert torch.equal(labels, digits.test.labels[chosen])


@pytest.mark.parametrize(
    ("size", "short", "whole"),
    [(224, 256, False), (128, 144, False), (64, 72, False), (64, 64, True), (32, 32, False), (28, 28, False)],
)
def test_centred_images_are_resized_and_cropped_as_in_torchvision(size: int, short: int, whole: bool) -> None:
    rows, columns = np.mgrid[0:300, 0:400]
    picture = np.stack([rows % 256, columns % 256, (rows * columns) // 500 % 256], 2).astype(np.uint8)
    image = Image.fromarray(picture)
    expected = v2.functional.pil_to_tensor(
        v2.CenterCrop(size)(v2.Resize(short, interpolation=v2.InterpolationMode.BILINEAR)(image))
    )
    found = centre(torch.from_numpy(picture).permute(2, 0, 1), size, whole)
    assert found.shape == (3, size, size)
    assert (found.int() - expected.int()).abs().max() <= 1


def test_crops_are_the_unflipped_views_of_the_epochs() -> None:
    digits = data.load(catalogue.dataset("digits"))
    stream = AugmentationStream(AugmentationConfig(size=16, seed=5), len(digits.train))
    indices = torch.tensor([4, 1000, 17])
    crops = digits.train.crops(stream.config, indices, 3, "cpu")
    assert crops.shape == (3, 3, 3, 16, 16)
    assert isinstance(digits.train, Resident)
    views = stream.make(digits.train.pixels, digits.train.labels, indices, epoch=2, batch=0)
    assert torch.allclose(crops[2], views.pixels, atol=1e-5)


# -- what is said of a set


def test_a_description_says_what_was_found() -> None:
    found = describe("digits", None)
    assert "problem" not in found and found["found in"] == "the scikit-learn package"
    assert found["images"] == "1,437 train, 360 test; 139 in the smallest class"
    assert found["pixels"] == "16 x 16, used at 16; in memory"
    assert found["class order"] == order_hash(list("0123456789"))
    assert found["classes"].startswith("10, in this order: number zero, number one, number two, number three, ")
    assert found["classes"].count(", number ") == 9
    assert describe("synthetic", None)["classes"].endswith("order: synthetic thing 0000 … synthetic thing 0099")
    assert float(found["mean, std"].split()[0]) == pytest.approx(0.305, abs=0.02)


def test_a_description_of_a_missing_set_says_what_to_do(tmp_path: Path) -> None:
    found = describe("places365", tmp_path)
    assert "found in" not in found
    assert "places2.csail.mit.edu" in found["problem"]
