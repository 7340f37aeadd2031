"""Images on disk: names, encodings, order, and files that are no longer whole."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api import Images
from bench.errors import UserError
from bench.kit import images


def made(ipc: int = 3, classes: int = 4, side: int = 12) -> Images:
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (classes * ipc, 3, side, side), generator=stream, dtype=torch.uint8)
    return Images(pixels, torch.arange(classes).repeat_interleave(ipc))


def test_files_have_rdeds_names(tmp_path: Path) -> None:
    images.save(made(ipc=2, classes=2), tmp_path, "jpeg")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg")) == [
        "00000/class00000_id00000.jpg",
        "00000/class00000_id00001.jpg",
        "00001/class00001_id00000.jpg",
        "00001/class00001_id00001.jpg",
    ]


def test_png_loses_nothing(tmp_path: Path) -> None:
    before = made()
    images.save(before, tmp_path, "png")
    after = images.load(tmp_path)
    assert torch.equal(after.pixels, before.pixels) and torch.equal(after.labels, before.labels)
    assert after.pixels.is_contiguous()


def test_jpeg_is_pils_default(tmp_path: Path) -> None:
    """Quality 75 with 4:2:0 chroma, to the last bit, as SRe2L and RDED publish their sets."""
    before = made()
    images.save(before, tmp_path, "jpeg")
    plain = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(before.pixels[4].permute(1, 2, 0).numpy())).save(plain, format="JPEG")
    assert (tmp_path / "00001" / "class00001_id00001.jpg").read_bytes() == plain.getvalue()
    after = images.load(tmp_path)
    again = torch.from_numpy(np.asarray(Image.open(plain)).copy()).permute(2, 0, 1)
    assert torch.equal(after.pixels[4], again)


def test_order_is_by_class_and_number_beyond_nine(tmp_path: Path) -> None:
    before = made(ipc=12, classes=11, side=4)
    images.save(before, tmp_path, "png")
    after = images.load(tmp_path)
    assert torch.equal(after.labels, before.labels) and torch.equal(after.pixels, before.pixels)


def test_classes_in_any_order_come_back_class_major(tmp_path: Path) -> None:
    before = made()
    mixed = torch.randperm(len(before), generator=torch.Generator().manual_seed(1))
    images.save(Images(before.pixels[mixed], before.labels[mixed]), tmp_path, "png")
    assert torch.equal(images.load(tmp_path).labels, before.labels)


def test_a_record_beside_the_images_is_not_one(tmp_path: Path) -> None:
    images.save(made(), tmp_path, "png")
    (tmp_path / "record.json").write_text("{}")
    assert len(images.load(tmp_path)) == 12


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    images.save(made(), tmp_path, "jpeg")
    broken = tmp_path / "00002" / "class00002_id00001.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UserError, match="class00002_id00001.jpg"):
        images.load(tmp_path)
