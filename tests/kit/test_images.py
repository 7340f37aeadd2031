"""Images on disk: names, encodings, order, and files that are no longer whole."""

from __future__ import annotations

import io
from dataclasses import replace
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


def extras(count: int, side: int = 16) -> dict[str, torch.Tensor]:
    stream = torch.Generator().manual_seed(1)
    return {
        "bits": torch.randint(0, 2, (count, side, side), generator=stream, dtype=torch.uint8),
        "places": torch.randint(0, side, (count, 2), generator=stream),
        "maps": torch.randint(0, 256, (count, side, side), generator=stream, dtype=torch.uint8),
    }


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_extras_survive_the_disk(tmp_path: Path, encoding: images.Encoding) -> None:
    before = replace(made(side=16), extras=extras(12))
    images.save(before, tmp_path / "one", encoding)
    after = images.load(tmp_path / "one")
    assert after.extras.keys() == before.extras.keys()
    for name, extra in before.extras.items():
        assert torch.equal(after.extras[name], extra) and after.extras[name].dtype == extra.dtype
    images.save(after, tmp_path / "again", "jpeg")  # files that are encoded already keep their bytes
    assert images.files_digest(tmp_path / "again") == images.files_digest(tmp_path / "one")


def test_extras_are_files_of_their_own(tmp_path: Path) -> None:
    before = replace(made(ipc=2, classes=3, side=16), extras=extras(6))
    images.save(before, tmp_path, "png")
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    names = [f"{label:05d}/class{label:05d}_id{index:05d}.png" for label in range(3) for index in range(2)]
    assert files == [
        *names,
        *(f"extras/{key}/{name}" for key in ("bits", "maps") for name in names),
        "extras/places.json",
    ]
    assert [images.is_label(file) for file in files] == [False] * 6 + [True] * 12 + [False]  # maps are labels
    for name, bits in zip(names, before.extras["bits"], strict=True):
        with Image.open(tmp_path / "extras" / "bits" / name) as found:
            assert found.mode == "1"
            assert [[int(found.getpixel((x, y)) > 0) for x in range(16)] for y in range(16)] == bits.tolist()  # type: ignore[operator]
    assert (tmp_path / "extras" / "places.json").stat().st_size < 8 * len(before) + 4


def test_extras_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"extra 'odd' is torch.float32 \(12,\)"):
        images.save(replace(made(), extras={"odd": torch.rand(12)}), tmp_path, "png")


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
