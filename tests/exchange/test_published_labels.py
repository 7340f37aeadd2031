"""Label files in the layouts of SRe2L, G_VBSM, LPQLD and HALD, written here and read back."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.api import Images
from bench.errors import UserError
from bench.exchange.published_labels import _misfits, import_labels
from bench.kit import labels as label_sources
from bench.kit.data.dataset import Resident
from bench.kit.labels.storing import coordinates
from bench.kit.views import AugmentationConfig, AugmentationStream

CLASSES, IPC, BATCH, SIDE = 12, 1, 5, 16
COUNT = CLASSES * IPC
STREAM = AugmentationStream(AugmentationConfig(size=SIDE, min_scale=0.3, flip=True, mix="cutmix", seed=2), COUNT)
NOISE = torch.Generator().manual_seed(0)
IMAGES = Images(torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8, generator=NOISE), torch.arange(COUNT))
LOGITS = torch.randn(COUNT, CLASSES, generator=NOISE) + 8 * torch.eye(CLASSES)[IMAGES.labels]  # of each image
# folders of classes are listed by name, so that image 7 of ImageFolder is not image 7 of ours
FILES = {label: [Path(f"set/{(label * 5) % CLASSES:02d}/0.png")] for label in range(CLASSES)}
FOLDER = [next(place for place, one in FILES.items() if one[0].parent.name == f"{rank:02d}") for rank in range(COUNT)]
REAL: Any = SimpleNamespace(info=SimpleNamespace(classes=CLASSES, logits=CLASSES), order_hash="ab")


def parts(kind: str, epoch: int, batch: int) -> list[Any]:
    """A batch of our views, as each writes it."""
    held = coordinates(STREAM, epoch, batch, BATCH, SIDE, SIDE)
    coords, flip, partner = held["coords"], held["flip"][:, 0], held["partner"][:, 0]
    top, left, bottom, right = held["box"][0].tolist()
    mix = [np.float64(held["weight"].item()), [top, left, bottom, right]]
    indices = STREAM.order(epoch)[batch * BATCH : (batch + 1) * BATCH]
    logits = LOGITS[indices]
    if kind == "fkd":
        return [coords, flip, partner, *mix, logits.half()]
    if kind == "g_vbsm":
        return [coords, flip, partner, *mix, logits.half(), torch.tensor([FOLDER.index(int(i)) for i in indices])]
    if kind == "hald":
        return [(logits / 20).softmax(1).half(), coords.half(), flip, partner, *mix]
    top3 = logits.topk(3, 1)
    box = [torch.tensor(side, dtype=torch.uint8) for side in (top, left, bottom, right)]
    return [top3.values.half(), top3.indices.short(), coords.half(), flip, partner.to(torch.uint8), float(mix[0]), *box]


def written(folder: Path, content: Any, epoch: int = 0, batch: int | str = 0) -> Path:
    (folder / f"epoch_{epoch}").mkdir(exist_ok=True)
    torch.save(content, folder / f"epoch_{epoch}" / f"batch_{batch}.tar")
    return folder


def released(place: Path, kind: str) -> tuple[Path, Path]:
    """Label files of two epochs, and the list of their images."""
    (folder := place / "labels").mkdir()
    for epoch, batch in ((0, 0), (0, 1), (0, 2), (10, 1), (10, 0), (10, 2)):  # told apart by number, not by name
        written(folder, parts(kind, epoch, batch), epoch, batch)
    order = [[FOLDER.index(int(index)) for index in STREAM.order(epoch)] for epoch in (0, 10)]
    (place / "order.json").write_text(json.dumps([[one[:4], one[4:]] for one in order]))
    return folder, place / "order.json"


def taken(folder: Path, order: str | Path | None, target: Path) -> str:
    return import_labels(folder, None if order is None else str(order), FILES, IMAGES, REAL, target)[1]


@pytest.mark.parametrize("kind", ["fkd", "g_vbsm", "hald", "lpqld"])
def test_the_published_views_come_back_with_their_labels(tmp_path: Path, kind: str) -> None:
    folder, order = released(tmp_path, kind)
    assert "100% of the labels" in taken(folder, None if kind == "g_vbsm" else order, tmp_path / "ours")
    source = label_sources.load(tmp_path / "ours", torch.device("cpu"), {})
    source.check(IMAGES, "ab")
    assert source.complete == (kind != "lpqld")
    split = source.views_of(Resident(IMAGES.pixels, IMAGES.labels))
    for ours, epoch in enumerate((0, 10)):
        for batch, found in enumerate(split.views(AugmentationConfig(size=SIDE), ours, BATCH, "cpu")):
            wanted = STREAM.again(IMAGES.pixels, IMAGES.labels, epoch, batch, BATCH)
            torch.testing.assert_close(found.pixels, wanted.pixels, atol=1e-5, rtol=0)
            for name in ("indices", "labels", "partner_indices", "partner_labels"):
                assert torch.equal(getattr(found, name), getattr(wanted, name)), name
            assert found.weight == pytest.approx(wanted.weight)
            if batch == 0:
                first = found
            logits = source.soft_labels(found, 0)
            if kind == "lpqld":
                assert torch.equal(logits.topk(3, 1).indices, LOGITS[wanted.indices].topk(3, 1).indices)
                assert logits.softmax(1).topk(3, 1).values.sum(1).allclose(torch.ones(len(found)))
                continue
            shift = (logits - LOGITS[wanted.indices]).mean(1, keepdim=True)
            torch.testing.assert_close(logits - shift, LOGITS[wanted.indices], atol=0.03, rtol=2e-3)
        with pytest.raises(ValueError, match="belong to their own views"):
            source.soft_labels(replace(first, indices=first.indices.flip(0)), 0)
    # a longer training goes through all batches again, in another order
    again = [(one.epoch, one.batch) for epoch in (2, 3) for one in split.views(STREAM.config, epoch, BATCH, "cpu")]
    assert sorted(again) == [(epoch, batch) for epoch in (0, 1) for batch in (0, 1, 2)] != again
    resumed = [(one.epoch, one.batch) for one in split.views(STREAM.config, 3, BATCH, "cpu", first=1)]
    assert resumed == again[4:]


def test_sre2l_s_sampler_is_drawn_again_from_its_seed(tmp_path: Path) -> None:
    """Two epochs of torch's RandomSampler; another seed fits the labels no better than chance, and is refused."""
    (folder := tmp_path / "labels").mkdir()
    stream = torch.Generator().manual_seed(42)
    sampler = torch.utils.data.RandomSampler(range(COUNT), generator=stream)
    for epoch in range(2):
        images = torch.tensor(FOLDER)[list(sampler)]
        for batch, indices in enumerate(images.split(BATCH)):
            count = len(indices)
            whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, 4).clone()
            content = [whole, torch.zeros(count, dtype=torch.bool), torch.arange(count), LOGITS[indices].half()]
            written(folder, content, epoch, batch)
    assert "100% of the labels" in taken(folder, "42", tmp_path / "ours")
    with pytest.raises(UserError, match="by chance.; the images are in another order"):
        taken(folder, "41", tmp_path / "wrong")


def odd(place: int, *values: Any) -> list[Any]:
    """A batch whose parts from ``place`` on are others."""
    content = parts("g_vbsm", 0, 0)
    return [*content[:place], *values, *content[place + len(values) :]]


class Trap:
    def __reduce__(self) -> Any:
        return print, ("code ran",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "can't be read as tensors and numbers: EOFError"),
        ({"a": 1}, "holds a dict, expected the list"),
        ([torch.zeros(3, 4)], "holds no flips"),
        ([torch.zeros(BATCH, 7), torch.zeros(BATCH, dtype=torch.bool)], r"labels \(B, 12\) of a batch"),
        (parts("fkd", 0, 0), "add --label-order FILE"),
        ([*parts("g_vbsm", 0, 0), "x"], "something else beside its tensors"),
        (odd(3, 1.5), "a mix beyond its images; expected a weight of 0 to 1"),
        (odd(3, float("nan")), "a mix beyond its images"),
        (odd(4, [0, 0, 17, 1]), "pixels of 0 to 16"),
        (odd(3, 0.0, [0, 0, 0, 0]), r"batch_0\.tar has a mix box of pixels \[0, 0, 0, 0\], too small for the weight 0"),
        (odd(3, 0.5, [8, 8, 2, 2]), "too small for the weight 0.5"),
        (odd(2, torch.full((BATCH,), -1)), "partners that are no permutation"),
        (odd(2, torch.zeros(BATCH, dtype=torch.int64)), "partners that are no permutation"),
        (odd(0, torch.zeros(BATCH, 4)), r"batch_0\.tar has crops without area"),
        (odd(0, torch.tensor([[0.5, 0.0, 0.6, 1.0]] * BATCH)), "crops without area, or beyond"),
        ([*odd(5, torch.rand(BATCH, 2)), torch.tensor([[0, CLASSES]] * BATCH)], "classes 0 to 12; expected 0 to 11"),
    ],
)
def test_what_is_no_batch_is_told(tmp_path: Path, content: Any, says: str) -> None:
    written(tmp_path, content)
    if content is None:
        (tmp_path / "epoch_0" / "batch_0.tar").write_bytes(b"")
    with pytest.raises(UserError, match=says):
        taken(tmp_path, None, tmp_path / "ours")


def test_odd_orders_and_epochs_are_told(tmp_path: Path) -> None:
    folder, order = released(tmp_path, "fkd")
    order.write_text(json.dumps([[0, 1]] * 2))
    with pytest.raises(UserError, match="epoch_0 has 12 views, not all of these 12 images"):
        taken(folder, order, tmp_path / "one")
    order.write_text("[[0")
    with pytest.raises(UserError, match="a JSON list of the images of each epoch"):
        taken(folder, order, tmp_path / "two")
    order.write_text("[" * 100_000)
    for at, unread in enumerate((order, "9" * 30)):
        with pytest.raises(UserError, match="expected a seed, or a JSON list"):
            taken(folder, unread, tmp_path / f"deep{at}")
    for at, more in enumerate(("42", order)):  # which of all epochs the second is, its number may say or not
        order.write_text(json.dumps([[0]] * 11))
        with pytest.raises(
            UserError, match="some between epoch_0 and epoch_10 have no labels; list the images of the 2"
        ):
            taken(folder, more, tmp_path / f"gap{at}")
    (folder / "epoch_10").rename(folder / "epoch_1")
    (folder / "epoch_1" / "batch_2.tar").unlink()
    with pytest.raises(UserError, match="epoch_1 has batches of other sizes"):
        taken(folder, "42", tmp_path / "three")
    for epoch in (0, 1):
        (folder / f"epoch_{epoch}" / "batch_1.tar").rename(folder / f"epoch_{epoch}" / "batch_3.tar")
    with pytest.raises(UserError, match="epoch_0 lacks a batch"):
        taken(folder, "42", tmp_path / "four")
    written(folder, [], 0, "2.bak")
    with pytest.raises(UserError, match=r"2\.bak\.tar is none of the files"):
        taken(folder, "42", tmp_path / "five")


@pytest.mark.parametrize(("wrong", "named"), [("order", r"epoch_10: "), ("file", r"epoch_10/batch_1\.tar: ")])
def test_labels_of_one_epoch_or_file_that_are_of_other_images_are_named(tmp_path: Path, wrong: str, named: str) -> None:
    """Half of all labels, or fewer, fit no image: an average would hide it."""
    folder, order = released(tmp_path, "fkd")
    if wrong == "order":
        lists = json.loads(order.read_text())
        order.write_text(json.dumps([lists[0], lists[0]]))
    else:
        *views, logits = parts("fkd", 10, 1)
        written(folder, [*views, logits.roll(CLASSES // 2, 1)], 10, 1)
    with pytest.raises(UserError, match=named + r"the likeliest class of \d+% of its labels .* of others 100%"):
        taken(folder, order, tmp_path / "ours")


def test_labels_that_often_name_another_class_are_no_misfit() -> None:
    """Of weak label models and small sets: no epoch of 300 is refused by accident, one by chance among them is."""
    draws = np.random.default_rng(0)
    for views, rate, chance in ((10, 0.7, 0.2), (10, 0.95, 0.2), (5000, 0.4, 0.02), (1024, 0.6, 0.2)):
        sizes, right = np.full(300, views), draws.binomial(views, rate, 300)
        assert not len(_misfits(sizes, right, chance * sizes)[0])
        right[7] = chance * views
        if views > 10 or rate > 0.9:
            assert _misfits(sizes, right, chance * sizes)[0].tolist() == [7]


def test_a_batch_that_is_there_twice_is_told(tmp_path: Path) -> None:
    written(written(tmp_path, parts("g_vbsm", 0, 0)), parts("g_vbsm", 0, 0), 0, "00")
    with pytest.raises(UserError, match="are the same batch; move one elsewhere"):
        taken(tmp_path, None, tmp_path / "ours")


def test_no_code_is_run_and_an_empty_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"holds no epoch_E/batch_B"):
        taken(tmp_path, None, tmp_path / "one")
    written(tmp_path, [Trap()])
    with pytest.raises(UserError, match="can't be read as tensors and numbers"):
        taken(tmp_path, None, tmp_path / "two")
    (tmp_path / "epoch_0" / "batch_0.tar").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="can't be read"):
        taken(tmp_path, None, tmp_path / "three")
    assert "code ran" not in capsys.readouterr().out
