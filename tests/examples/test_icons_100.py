"""icons-100, built from a small package made here in the shape of @iconify/json."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.errors import UserError
from examples.icons_100 import build
from examples.icons_100.build import ICONS_100, build_icons_100, family, split_of
from examples.icons_100.package import PERMISSIVE, canonical_name, rasterise, read_package, style_words

pytest.importorskip("resvg_py", reason="drawing icons needs the extra `icons`")


def square(left: int, side: int) -> dict[str, Any]:
    return {"body": f'<path fill="currentColor" d="M{left} 2h{side}v{side}h-{side}z"/>'}


def write_package(root: Path, sets: dict[str, dict[str, Any]]) -> Path:
    """`sets`: prefix -> {"spdx", "category", "icons", ...}."""
    (root / "json").mkdir(parents=True)
    listed = {}
    for prefix, facts in sets.items():
        licence = {"title": "x", "spdx": facts.get("spdx", "MIT")}
        listed[prefix] = {
            "name": prefix,
            "author": {"name": "A"},
            "license": licence,
            "category": facts.get("category"),
        }
        data = {"prefix": prefix, "icons": facts["icons"], "width": 24, "height": 24, **facts.get("data", {})}
        (root / "json" / f"{prefix}.json").write_text(json.dumps(data))
    (root / "collections.json").write_text(json.dumps(listed))
    (root / "package.json").write_text(json.dumps({"name": "@iconify/json", "version": "0.0.1"}))
    return root


@pytest.fixture
def package(tmp_path: Path) -> Path:
    drawings = {f"anchor-{i}": square(i, 4 + i) for i in range(1, 5)} | {
        f"apple-{i}": square(9 - i, 3 + i) for i in range(4)
    }
    return write_package(
        tmp_path / "package",
        {
            "alpha": {"icons": {**drawings, "anchor-copy-9": square(1, 5), "shopping-bag": square(3, 9)}},
            "beta": {
                "spdx": "CC-BY-4.0",
                "icons": {f"anchor-{i}": square(10, 3 + i) for i in range(3)} | {"apple": {"body": "<path d="}},
            },
            "tabler": {"icons": {"anchor": square(1, 20), "apple": square(4, 17), "boot": square(2, 2)}},
            "jam": {"icons": {"boot-f": square(2, 12)}},
            "gpl": {"spdx": "GPL-3.0", "icons": {"anchor": square(1, 2)}},
            "sa": {"spdx": "CC-BY-SA-4.0", "icons": {"anchor": square(1, 2)}},
            "none": {"spdx": None, "icons": {"anchor": square(1, 2)}},
            "marks": {"category": "Logos", "icons": {"anchor": square(1, 2)}},
        },
    )


@pytest.fixture
def two_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ICONS_100", ("anchor", "apple"))
    for name, value in (("SMALLEST_TRAIN", 1), ("SMALLEST_TEST", 1), ("SMALLEST_CLASS", 2)):
        monkeypatch.setattr(build, name, value)


def test_the_class_list_is_a_hundred_sorted_names() -> None:
    assert len(set(ICONS_100)) == 100
    assert list(ICONS_100) == sorted(ICONS_100)


def test_importing_the_class_list_needs_no_drawing_library() -> None:
    code = "import sys; import examples.icons_100.build; sys.exit('resvg_py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "concept"),
    [
        ("camera-24-filled", "camera"),
        ("baseline-shopping-cart", "shopping cart"),
        ("star2", "star"),
        ("number-5", "number 5"),
        ("5", "5"),
        ("outline", "outline"),
        ("traffic-light", "traffic light"),
        ("mp3", "mp3"),
    ],
)
def test_names_lose_their_style_and_keep_their_meaning(name: str, concept: str) -> None:
    assert canonical_name(name) == concept


def test_an_ambiguous_word_is_style_only_where_a_set_uses_it_so() -> None:
    names = [f"thing{letter}-light" for letter in "abcd"] + ["x", "y"]
    assert canonical_name("lamp-light", style_words(names, {})) == "lamp"
    assert canonical_name("traffic-light", style_words(["traffic-light", *map(str, range(30))], {})) == "traffic light"
    assert canonical_name("lamp-weird", style_words([], {"suffixes": {"weird": "Weird"}})) == "lamp"


def test_only_permissive_sets_that_are_no_brands_take_part(package: Path) -> None:
    found = read_package(package)
    assert sorted(found.sets) == ["alpha", "beta", "jam", "tabler"]
    assert not any(word in licence for licence in PERMISSIVE for word in ("GPL", "NC", "ND", "SA"))


def test_a_tgz_reads_as_its_folder_does(package: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        archive.add(package, arcname="package")
    assert read_package(tmp_path / "p.tgz") == read_package(package)


def test_hidden_icons_and_skin_tones_are_left_out(tmp_path: Path) -> None:
    drawn = {"a": square(1, 9), "b": {**square(1, 9), "hidden": True}, "hand-dark-skin-tone": square(1, 9)}
    root = write_package(tmp_path / "p", {"s": {"icons": drawn}})
    assert [icon.name for icon in read_package(root).icons] == ["a"]


def test_the_glyph_is_dark_on_white_and_keeps_its_shape() -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10" width="9" height="9" color="#000">'
    pixels = rasterise(f'{svg}<path fill="currentColor" d="M0 0h20v10H0z"/></svg>', 40)
    assert pixels.shape == (40, 40, 3) and pixels.dtype == np.uint8
    assert pixels[20, 20].tolist() == [0, 0, 0]
    assert pixels[2, 20].tolist() == pixels[37, 20].tolist() == [255, 255, 255]
    with pytest.raises(ValueError, match="draws nothing"):
        rasterise(f"{svg}</svg>", 40)


@pytest.mark.usefixtures("two_classes")
def test_build(package: Path, tmp_path: Path) -> None:
    report = build_icons_100(package, tmp_path / "out")
    on_disk = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert len(on_disk) == report["train_images"] + report["test_images"]
    assert "val/anchor/tabler__anchor.png" in on_disk and "train/apple/alpha__apple-0.png" in on_disk
    with Image.open(tmp_path / "out" / "val/anchor/tabler__anchor.png") as image:
        assert image.size == (64, 64) and image.mode == "RGB"
    (bad,) = report["not_drawn"]  # the broken drawing is named, and the rest is there
    assert bad.startswith("beta:apple: ")
    sets = {split: {Path(f).name.split("__")[0] for f in on_disk if f.startswith(split)} for split in ("train", "val")}
    assert sets["train"] and sets["val"] and not sets["train"] & sets["val"]
    assert report["sets"]["beta"]["licence"] == "CC-BY-4.0" and report["sets"]["beta"]["author"] == "A"
    assert json.loads((tmp_path / "out" / "icons-100.json").read_text())["sha256"] == report["sha256"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out-")]


@pytest.mark.usefixtures("two_classes")
def test_the_command_writes_where_the_data_set_is_read(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["build", "--source", str(package), "--data-root", str(tmp_path / "data")])
    build.main()
    assert (tmp_path / "data" / "icons-100" / "icons-100.json").is_file()
    monkeypatch.setattr(sys, "argv", ["build", "--source", str(tmp_path / "no"), "--data-root", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        build.main()
    assert "npm pack @iconify/json" in capsys.readouterr().err


@pytest.mark.usefixtures("two_classes")
def test_build_is_repeatable_and_keeps_what_is_there(package: Path, tmp_path: Path) -> None:
    first = build_icons_100(package, tmp_path / "one")
    assert build_icons_100(package, tmp_path / "two")["sha256"] == first["sha256"]
    written = (tmp_path / "one" / "icons-100.json").stat().st_mtime_ns
    assert build_icons_100(package, tmp_path / "one") == first
    assert (tmp_path / "one" / "icons-100.json").stat().st_mtime_ns == written
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="something else"):
        build_icons_100(package, tmp_path / "mine")


@pytest.mark.usefixtures("two_classes")
def test_the_same_drawing_counts_once(tmp_path: Path) -> None:
    apples = {"apple": square(2, 5)}
    drawn = {"anchor": square(1, 9), "anchor-2": square(1, 9), **apples}
    root = write_package(tmp_path / "p", {"alpha": {"icons": drawn}, "tabler": {"icons": {"anchor": square(9, 9)}}})
    (root / "json" / "tabler.json").write_text(json.dumps({"icons": {"anchor": square(9, 5), "apple": square(9, 4)}}))
    assert build_icons_100(root, tmp_path / "out")["counts"]["anchor"] == {"train": 1, "val": 1}


def test_a_build_that_fails_leaves_nothing(package: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="renditions, expected at least 50 and 10"):
        build_icons_100(package, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("two_classes")
def test_a_full_disk_leaves_nothing(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", no_space)
    with pytest.raises(OSError, match="No space"):
        build_icons_100(package, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


@pytest.mark.parametrize("content", [None, b"not an archive"])
def test_a_source_that_is_no_package(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "package.tgz"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UserError, match="npm pack @iconify/json"):
        read_package(source)
    with pytest.raises(UserError, match=r"package\.json is missing"):
        read_package(tmp_path)


def test_families_keep_a_designer_on_one_side() -> None:
    sides = {split_of(prefix) for prefix in ("fa-solid", "fa6-regular", "fa7-solid", "la")}
    assert sides == {"val"}
    assert family("icon-park-outline") == family("icon-park")
    assert build.UNSEEN_FAMILIES < build.TEST_FAMILIES
