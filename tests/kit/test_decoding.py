"""Opening images: every form of pixels comes out as 8-bit RGB that shows the same, or is refused by name."""

from __future__ import annotations

import os
import random
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UserError
from bench.kit.data.decoding import check_all, check_varied, decode, decode_all
from tests.conftest import FUZZ

RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
EXPECTED = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)


def grey(values: NDArray[Any], path: Path, **options: Any) -> None:
    Image.fromarray(values).save(path, **options)


@pytest.mark.parametrize(
    ("values", "name", "options"),
    [
        (RAMP, "a.png", {}),
        (RAMP, "a.tif", {}),
        (RAMP.astype(">u2"), "a.tif", {}),
        ((65535 - RAMP), "a.tif", {"tiffinfo": {262: 0}}),  # white is zero
        ((RAMP.astype(np.int64) * 32768).astype(np.int32), "a.tif", {}),
        ((RAMP / 65535).astype(np.float32), "a.tif", {"tiffinfo": {340: 0.0, 341: 1.0}}),  # a stated range
    ],
    ids=["png", "tiff", "big endian", "white is zero", "32 bits", "float with a range"],
)
def test_whole_numbers_are_scaled_by_their_depth(
    tmp_path: Path, values: NDArray[Any], name: str, options: dict[str, Any]
) -> None:
    grey(values, tmp_path / name, **options)
    pixels = decode(tmp_path / name).numpy()
    assert pixels.shape == (3, 8, 8) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - EXPECTED).max() <= 1


@pytest.mark.parametrize(("most", "kind", "bands"), [(65535, b"P5", 1), (1023, b"P5", 1), (65535, b"P6", 3)])
def test_ppm_is_scaled_by_its_largest_value(tmp_path: Path, most: int, kind: bytes, bands: int) -> None:
    values = np.repeat((RAMP.astype(int) * most // 65535)[..., None], bands, 2).astype(">u2")
    (tmp_path / "a.ppm").write_bytes(b"%b 8 8 %d\n" % (kind, most) + values.tobytes())
    assert np.abs(decode(tmp_path / "a.ppm").numpy().astype(int) - EXPECTED).max() <= 1


CASES = [
    (Image.new("RGBA", (4, 4), (10, 20, 30, 255)), "a.png", {}, (10, 20, 30)),
    (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "a.png", {}, (255, 255, 255)),
    (Image.new("RGBA", (4, 4), (0, 0, 0, 51)), "a.webp", {"lossless": True, "exact": True}, (204, 204, 204)),
    (Image.new("LA", (4, 4), (10, 0)), "a.png", {}, (255, 255, 255)),
    (Image.new("P", (4, 4), "red"), "a.png", {}, (255, 0, 0)),
    (Image.new("P", (4, 4), 0), "a.png", {"transparency": 0}, (255, 255, 255)),
    (Image.new("RGB", (4, 4), (1, 2, 3)), "a.png", {"transparency": (1, 2, 3)}, (255, 255, 255)),
    (Image.fromarray(np.full((4, 4), 7, np.uint16)), "a.png", {"transparency": 7}, (255, 255, 255)),
    (Image.new("1", (4, 4), 1), "a.png", {}, (255, 255, 255)),
    (Image.new("CMYK", (4, 4), (0, 0, 255, 0)), "a.tif", {}, (255, 255, 0)),
    (Image.new("CMYK", (4, 4), (0, 0, 255, 0)), "a.jpg", {}, (255, 255, 0)),
]


@pytest.mark.parametrize(("image", "name", "options", "colour"), CASES, ids=[f"{c[0].mode} {c[3]}" for c in CASES])
def test_colours_are_rgb_on_white(
    tmp_path: Path, image: Image.Image, name: str, options: dict[str, Any], colour: tuple[int, ...]
) -> None:
    image.save(tmp_path / name, **options)
    assert (decode(tmp_path / name).numpy() == np.array(colour)[:, None, None]).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_images_are_turned_as_exif_says(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:4, :8] = 255
    # where the bright corner of the file is, once upright: EXIF 2.32, tag 274
    for orientation, (row, column) in enumerate([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0), (0, 1), (1, 1), (1, 0)], 1):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
        upright = decode(tmp_path / f"a.{suffix}").float()[0]
        high, wide = upright.shape
        assert (high, wide) == ((8, 16) if orientation < 5 else (16, 8))
        bright = [[upright[i * high // 2 :, j * wide // 2 :][: high // 2, : wide // 2].mean() > 128 for j in (0, 1)]
                  for i in (0, 1)]  # fmt: skip
        assert bright == [[(i, j) == (row, column) for j in (0, 1)] for i in (0, 1)]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises more than there is."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not one of JPEG"),
        (png(9000, 9000), "9000 x 9000 px are more than"),
        (png(60000, 60000), "decompression bomb"),
        (png(64, 64), "not a readable image"),
        (b"", "not one of JPEG"),
    ],
    ids=["EPS", "large", "bomb", "truncated", "empty"],
)
def test_other_formats_and_bombs_are_refused_before_they_are_decoded(
    tmp_path: Path, content: bytes, refused: str
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    began = time.monotonic()
    for read in (decode, lambda path: check_all([path], "x")):
        with pytest.raises(UserError, match=f"a.png: .*{refused}"):
            read(tmp_path / "a.png")
    assert time.monotonic() - began < 1


def test_floats_negative_numbers_and_frames_are_refused_by_name(tmp_path: Path) -> None:
    grey((RAMP / 65535).astype(np.float32), tmp_path / "float.tif")
    grey(RAMP.astype(np.int32) - 5, tmp_path / "negative.tif")
    grey(np.full((8, 8), np.nan, np.float32), tmp_path / "nan.tif", tiffinfo={340: 0.0, 341: 1.0})
    Image.new("LAB", (4, 4)).save(tmp_path / "lab.tif")
    for suffix in ("webp", "png", "tif"):
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
        frames[0].save(tmp_path / f"frames.{suffix}", save_all=True, append_images=frames[1:])
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=f"{path.name}: not a usable image: .*; (store|convert|keep)"):
            decode(path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png: .*not a regular file"):
        decode(tmp_path / "pipe.png")


def test_a_class_that_shows_nothing_is_refused_by_name(tmp_path: Path) -> None:
    grey(np.zeros((8, 8), np.uint8), tmp_path / "black.png")
    grey(np.eye(8, dtype=np.uint8), tmp_path / "mask.png")  # 0 and 1 of 255
    grey(EXPECTED, tmp_path / "ramp.png")
    black, mask, ramp = (tmp_path / f"{name}.png" for name in ("black", "mask", "ramp"))
    check_varied({"a": [black, mask, ramp], "b": [ramp]})
    for paths in ([black], [black, mask]):
        with pytest.raises(UserError, match="class 'dark': every image is of one colour, e.g. .*black.png"):
            check_varied({"a": [ramp], "dark": paths})
    grey(np.arange(64, dtype=np.uint16).reshape(8, 8) * 16, tmp_path / "ten_bits.png")  # of sixteen: nearly black
    with pytest.raises(UserError, match=r"the images hardly differ: .* std is 1\.\d of 255, e\.g\. .*ten_bits\.png"):
        check_varied({"a": [tmp_path / "ten_bits.png"], "b": [tmp_path / "ten_bits.png"]})


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """Change bytes of every format at random: nothing but an image or a UserError comes out, and soon."""
    draw = random.Random(0)
    seeds = []
    for suffix, options in {"png": {}, "jpg": {}, "tif": {"compression": "tiff_lzw"}, "bmp": {}, "webp": {}}.items():
        Image.fromarray(np.stack([EXPECTED] * 3, -1)).save(tmp_path / f"seed.{suffix}", **options)
        seeds.append((tmp_path / f"seed.{suffix}").read_bytes())
    grey(RAMP, tmp_path / "seed16.tif")
    seeds += [(tmp_path / "seed16.tif").read_bytes(), b"P5 8 8 65535\n" + RAMP.tobytes(), png(8, 8)]
    for _ in range(FUZZ):
        content = bytearray(draw.choice(seeds))
        for _ in range(draw.choice((1, 1, 2, 4, 16))):
            content[draw.randrange(len(content))] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
        path = tmp_path / "fuzz.png"
        path.write_bytes(content[: draw.choice((len(content), draw.randrange(len(content) + 1)))])
        try:
            assert decode(path).shape[0] == 3
        except UserError as error:
            assert str(error).isprintable() and str(path) in str(error)
    assert not [one for one in tmp_path.iterdir() if not one.name.startswith(("seed", "fuzz"))]


def test_many_are_decoded_as_one(tmp_path: Path) -> None:
    for index in range(3):
        grey(np.roll(EXPECTED, index, 0), tmp_path / f"{index}.png")
    paths = sorted(tmp_path.iterdir())
    assert (decode_all(paths, 8).numpy() == np.stack([decode(path).numpy() for path in paths])).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_jpegs_are_the_pixels_of_pillow(tmp_path: Path, mode: str) -> None:
    ramp = np.add.outer(np.arange(37) * 3, np.arange(51)).astype(np.uint8)
    image = Image.merge(
        "RGB", [Image.fromarray(part) for part in (ramp, ramp.T[:37, :37].repeat(2, 1)[:, :51], ramp // 2)]
    )
    image.convert(mode).save(tmp_path / "a.jpg", quality=85)
    with Image.open(tmp_path / "a.jpg") as opened:
        expected = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
    found = decode(tmp_path / "a.jpg")
    assert found.shape == (3, 37, 51) and found.dtype == torch.uint8
    assert (found.int() - expected.int()).abs().max() <= 1, "two builds of one library"
