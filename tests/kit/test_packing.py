"""Packed data sets, and the test views that a store keeps: same pixels, resumable, checked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.api import AugmentationConfig, Dataset, catalogue
from bench.errors import UserError
from bench.execution.datasets import pack
from bench.kit import data
from bench.kit.data import dataset, packing, reading
from bench.kit.data.dataset import FileDataset, Files, Resident
from bench.kit.data.packing import write_squares

SIZE, SIDE = 64, 72  # pixels of the test view, and the short side that it is cut out of


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTILL_BENCH_WORKERS", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(packing, "BATCH", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of images of unlike sizes: three and two of training, two and one of testing."""
    generator = np.random.default_rng(0)
    for split, counts in (("train", (3, 2)), ("val", (2, 1))):
        for label, count in enumerate(counts):
            home = tmp_path / "pets" / split / "ab"[label]
            home.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (90 + 7 * index, 120 - 11 * label, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(home / f"{index}.png")
    return tmp_path / "pets"


def centred(split: Any, size: int = SIZE) -> Tensor:
    return torch.cat([pixels for pixels, _ in split.centered(size, "cpu", 2)])


def opened(name: str) -> Dataset:
    return data.load(catalogue.dataset(name), catalogue.root_of(name))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_packed_set_has_the_same_test_views_and_another_identity(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, in_memory: bool
) -> None:
    shown: list[tuple[int, int]] = []
    name = f"folder:{pack(f'folder:{folder}', tmp_path / 'root', SIDE, lambda *at: shown.append(at))}"
    assert shown == [(2, 8), (4, 8), (5, 8), (7, 8), (8, 8)]
    monkeypatch.setattr(dataset, "MOST_RESIDENT", 2**30 if in_memory else 0)
    real, packed = opened(f"folder:{folder}"), opened(name)
    assert isinstance(packed.train, Resident if in_memory else Files)
    assert packed.info.name == "folder-pets-packed-72" and packed.info.title == "pets, packed at 72 px"
    assert packed.digest == packed.info.fingerprint != real.digest
    assert (packed.ids, packed.names) == (real.ids, real.names)
    for one, other in ((packed.train, real.train), (packed.test, real.test)):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(centred(one), centred(other))
        assert one.image(1).shape == (3, SIDE, SIDE)
    views = next(packed.train.views(AugmentationConfig(size=32, crop="rrc"), 0, 5, "cpu"))
    assert views.pixels.shape == (5, 3, 32, 32)
    assert pack(f"folder:{folder}", tmp_path / "root", SIDE, lambda *at: shown.append(at)) and len(shown) == 5
    card = Path(name.removeprefix("folder:")) / packing.CARD
    written = card.read_text()
    for edited in (written.replace('"size": 72', '"size": 36'), written.replace("pets-packed", "rats-packed"), "[]"):
        card.write_text(edited)
        with pytest.raises(UserError, match="not what was packed; delete the folder"):
            catalogue.dataset(name)
    card.write_text(written)
    contents = card.parents[1] / packing.CONTENTS
    whole = contents.read_bytes()
    for harmed in (whole[: len(whole) // 2], b""):
        contents.write_bytes(harmed)
        with pytest.raises(UserError, match="not what was packed; delete the folder"):
            opened(name)
    contents.write_bytes(whole)
    squares = Path(name.removeprefix("folder:")) / "val" / "squares.u8"
    content = bytearray(squares.read_bytes())
    content[7] ^= 1
    squares.write_bytes(content)
    with pytest.raises(UserError, match="not what was packed; delete the folder"):
        catalogue.dataset(name)


def test_a_killed_writer_is_taken_up_where_its_work_is_whole(folder: Path, tmp_path: Path) -> None:
    split, path = opened(f"folder:{folder}").train, tmp_path / "squares.u8"

    def killed(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    whole = write_squares(tmp_path / "whole.u8", split, SIDE).stacked()
    for damage in (None, 3 * SIDE**2 + 5):
        with pytest.raises(KeyboardInterrupt):
            write_squares(path, split, SIDE, progress=killed)
        assert not path.exists()
        if damage is not None:
            with path.with_suffix(".draft").open("r+b") as stream:  # what a power failure may leave
                stream.seek(damage)
                stream.write(b"\0\0\0")
        steps: list[int] = []
        found = write_squares(path, split, SIDE, progress=lambda done, _, steps=steps: steps.append(done))
        assert steps == ([5] if damage is None else [2, 4, 5])
        assert torch.equal(found.stacked(), whole)
        assert not list(tmp_path.glob("squares.d*"))
        path.unlink()


def test_what_is_not_packed_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected --pack 72 or more, not 64"):
        pack(f"folder:{folder}", tmp_path, 64, lambda *_: None)
    with pytest.raises(UserError, match="digits is held in memory anyway; leave out --pack"):
        pack("digits", tmp_path, 64, lambda *_: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
    with pytest.raises(
        UserError, match=r"^[^\n]*the disk is full; free 0.0 GiB there for squares.u8: the same command"
    ):
        pack(f"folder:{folder}", tmp_path, SIDE, lambda *_: None)


def test_a_store_decodes_its_test_images_once(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    info = catalogue.dataset(f"folder:{folder}")
    first = opened(f"folder:{folder}")
    assert isinstance(first, FileDataset)
    kept = first.contents.save(tmp_path / "store", info.name)
    real, decoded = centred(first.test), list[Path]()

    def counted(path: Path) -> Tensor:
        decoded.append(path)
        return plain(path)

    plain = reading.decode
    monkeypatch.setattr(reading, "decode", counted)
    monkeypatch.setattr(packing, "MOST_SHARES", 2)
    few = data.load(info, None, kept).test
    list(few.centered(SIZE, "cpu", indices=torch.tensor([2])))
    assert len(decoded) == 1, "one image is not worth decoding all"
    for _ in range(3):
        assert torch.equal(centred(data.load(info, None, kept).test), real)
    assert len(decoded) == 4
    assert torch.equal(next(few.centered(SIZE, "cpu", indices=torch.tensor([2])))[0], real[2:])
    assert len(decoded) == 4
    [squares] = (tmp_path / "store").glob("*.u8")
    whole = squares.read_bytes()
    for damaged in (b"\0" * len(whole), whole[: len(whole) // 2], whole[:-1], b""):
        squares.write_bytes(damaged)
        decoded.clear()
        assert torch.equal(centred(few), real) and len(decoded) == 3 and squares.read_bytes() == whole
    shutil.copy2(squares, tmp_path / "copy")
    (tmp_path / "copy").replace(squares)
    assert torch.equal(centred(few), real) and len(decoded) == 3, "a whole copy is believed"
    assert caplog.text.count("is not what was written") == 4
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))  # type: ignore[attr-defined]
        assert len(centred(few, 32)) == 3 and len(decoded) == 6
    assert "would take half of the free space" in caplog.text

    def broken(path: Path) -> Tensor:
        raise UserError("no image")

    monkeypatch.setattr(reading, "decode", broken)
    with pytest.raises(UserError, match="no image"):
        centred(data.load(info, None, kept).test, 40)
    assert not list((tmp_path / "store").glob("*.draft"))
    assert sorted(path.suffix for path in (tmp_path / "store").iterdir()) == [
        ".digests",
        ".lock",
        ".lock",
        ".npz",
        ".sum",
        ".u8",
    ]
