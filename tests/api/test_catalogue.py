"""The catalogue of data sets: facts, places, and folders of the user's; all of it without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bench.api import catalogue
from bench.errors import UserError


def write_image(path: Path, size: tuple[int, int] = (40, 40), colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 0, 0)).save(path)


def write_folder(root: Path, size: tuple[int, int] = (40, 40)) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for colour, name in enumerate(("dog", "cat")):
            for i in range(count + colour):
                write_image(root / split / name / f"{i}.png", size, 50 * colour + i)
    return root


def test_importing_the_catalogue_and_looking_up_every_set_needs_no_torch(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    program = (
        "import sys; from bench.api import catalogue\n"
        "for name in (*catalogue.names(), sys.argv[1]): catalogue.dataset(name)\n"
        "assert 'torch' not in sys.modules and 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, f"folder:{folder}"], check=True)


def test_every_set_of_the_catalogue_is_whole_and_consistent() -> None:
    assert {"digits", "icons-100", "icon-scenes", "synthetic"} < set(catalogue.names())
    assert len(catalogue.names()) == 15
    for name in catalogue.names():
        info = catalogue.dataset(name)
        assert info.name == name
        assert info.classes * info.smallest_class <= info.train_images
        assert info.teacher.image_size == info.image_size
        assert ("flip" in info.teacher.augment) <= info.flip
        weights = "none" if name.startswith("synthetic") else "openai"
        assert info.clip == ("icon-clip" if info.image_size <= 64 else f"RN50:{weights}")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'imagenet-100'"):
        catalogue.dataset("imagenet100")


def test_a_missing_set_says_where_to_get_it_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        catalogue.locate("cifar10", tmp_path)
    message = str(caught.value)
    assert "cs.toronto.edu" in message
    assert str(tmp_path / "cifar-10-batches-py") in message
    assert "\n" not in message


def test_the_data_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(catalogue.DATA_ROOT_VARIABLE, str(tmp_path))
    assert catalogue.default_data_root() == tmp_path
    assert catalogue.root_of("mnist") == tmp_path
    assert catalogue.root_of("mnist", tmp_path / "other") == tmp_path / "other"
    assert catalogue.root_of("folder:there", tmp_path) == Path("there")
    monkeypatch.delenv(catalogue.DATA_ROOT_VARIABLE)
    assert catalogue.default_data_root() == Path.home() / ".cache" / "distill-bench" / "data"


def test_a_folder_is_described_by_its_listing(tmp_path: Path) -> None:
    info = catalogue.dataset(f"folder:{write_folder(tmp_path / 'My Pets')}")
    assert (info.name, info.classes, info.image_size) == ("folder-my-pets", 2, 32)
    assert (info.train_images, info.test_images, info.smallest_class) == (7, 5, 3)
    assert info.student == "resnet18-small"
    large = catalogue.dataset(f"folder:{write_folder(tmp_path / 'large', (300, 250))}")
    assert (large.image_size, large.student, large.clip) == (224, "resnet18", "RN50:openai")


def test_moving_a_folder_keeps_its_identity_and_changing_it_does_not(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "here" / "pets")
    info = catalogue.dataset(f"folder:{folder}")
    (tmp_path / "there").mkdir()
    moved = folder.rename(tmp_path / "there" / "pets")
    assert catalogue.dataset(f"folder:{moved}") == info
    write_image(moved / "train" / "dog" / "more.png")
    assert catalogue.dataset(f"folder:{moved}").fingerprint != info.fingerprint


def test_a_folder_that_is_no_data_set_is_refused_with_the_reason(tmp_path: Path) -> None:
    def refused(match: str, folder: Path) -> None:
        with pytest.raises(UserError, match=match):
            catalogue.dataset(f"folder:{folder}")

    refused("no such folder", tmp_path / "nowhere")
    refused("expected train/", tmp_path)
    folder = write_folder(tmp_path / "pets")
    (folder / "train" / "bird").mkdir()
    (folder / "train" / "bird" / "readme.txt").touch()
    refused("class 'bird' is empty", folder)
    write_image(folder / "train" / "bird" / "0.png")
    refused("lacks bird", folder)
    write_image(folder / "val" / "bird" / "0.png")
    write_image(folder / "val" / "wolf" / "0.png")
    refused("adds wolf", folder)
    single = tmp_path / "single"
    write_image(single / "train" / "cat" / "0.png")
    write_image(single / "val" / "cat" / "0.png")
    refused("one class", single)
    (folder / "val" / "wolf" / "0.png").unlink()
    (folder / "val" / "wolf").rmdir()
    (folder / "train" / "bird" / "0.png").write_bytes(b"not an image")
    refused(r"bird/0.png: not a readable image", folder)
