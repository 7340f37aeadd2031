"""Listing of users' folders: every file once, whatever links there are, and splits under their usual names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.kit.data.listing import list_folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for index in range(3):
                (folder / f"{index}.png").touch()
    return tmp_path / "pets"


def link(place: str, target: str) -> Callable[[Path], None]:
    return lambda pets: (pets / place).symlink_to(target)


def make(place: str | bytes) -> Callable[[Path], None]:
    return lambda pets: (pets / os.fsdecode(place)).touch()


@pytest.mark.parametrize(
    ("spoil", "refused"),
    {
        "parent": (link("train/ant/more", ".."), "train/ant/more: leads to .*/train"),
        "root": (link("train/ant/more", "/"), "train/ant/more: leads to /"),
        "sibling": (link("train/fly", "bee"), "leads to"),
        "other split": (link("val/ant/more", "../../train/ant"), "val/ant/more: leads to .*train/ant"),
        "loop of two": (lambda pets: (link("train/ant/a", "b")(pets), link("train/ant/b", "a")(pets)), "link to"),
        "itself": (link("train/ant/a.png", "a.png"), "ant/a.png, a link to a.png,"),
        "nowhere": (link("train/ant/9.png", "../../away/9.png"), "9.png, a link to ../../away/9.png, can't be read"),
        "class nowhere": (link("train/cat", "/away/cat"), "train/cat, a link to /away/cat, can't be read"),
        "file twice": (link("train/ant/9.png", "0.png"), "ant/9.png: a link to .*ant/0.png, which is listed"),
        "pipe": (lambda pets: os.mkfifo(pets / "train/ant/9.png"), "9.png: not a regular file"),
        "device": (link("train/ant/9.png", "/dev/zero"), "9.png: not a regular file"),
        "file not UTF-8": (make(b"train/ant/caf\xe9.png"), re.escape("caf\\xe9.png: its name is not UTF-8")),
        "class not UTF-8": (
            lambda pets: (pets / "train" / os.fsdecode(b"caf\xe9")).mkdir(),
            re.escape("caf\\xe9: its name is not UTF-8"),
        ),
        "class with an escape": (lambda pets: (pets / "train/\x1b[31mred").mkdir(), re.escape("\\x1b[31mred: its")),
        "no images": (lambda pets: (pets / "train/cow").mkdir(), "class 'cow' is empty"),
    }.values(),
)  # fmt: skip
def test_what_would_count_twice_or_can_not_be_read_is_named(
    pets: Path, spoil: Callable[[Path], object], refused: str
) -> None:
    spoil(pets)
    with pytest.raises(UserError, match=refused) as caught:
        list_folder(pets)
    assert str(caught.value).isprintable()


def test_links_to_places_outside_are_followed_once(pets: Path, tmp_path: Path) -> None:
    (pets / "train/ant").rename(tmp_path / "ants")
    (pets / "train/ant").symlink_to(tmp_path / "ants")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/9.png").touch()
    (pets / "train/bee/more").symlink_to(tmp_path / "pool")
    for name in ("8", "9"):
        (pets / f"val/bee/{name}.png").symlink_to(tmp_path / "pool/9.png")  # as git-annex has them
    train, val = list_folder(pets)
    assert train.files == {
        "ant": ("ant/0.png", "ant/1.png", "ant/2.png"),
        "bee": ("bee/0.png", "bee/1.png", "bee/2.png", "bee/more/9.png"),
    }
    assert len(val.files["bee"]) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_can_not_be_read_is_named(pets: Path) -> None:
    (pets / "train/ant").chmod(0)
    with pytest.raises(UserError, match="train/ant: can't be read"):
        list_folder(pets)


@pytest.mark.parametrize("names", [("Train", "Val"), ("train", "valid"), ("TRAINING", "Validation"), ("train", "test")])
def test_splits_have_their_usual_names(pets: Path, names: tuple[str, str]) -> None:
    for usual, other in zip(("train", "val"), names, strict=True):
        (pets / usual).rename(pets / "moved")
        (pets / "moved").rename(pets / other)
    assert [listing.root.name for listing in list_folder(pets)] == list(names)


def test_splits_that_are_missing_or_ambiguous_are_named(pets: Path) -> None:
    (pets / "val").rename(pets / "valid")
    (pets / "test").mkdir()
    with pytest.raises(UserError, match="both test/ and valid/; expected val/"):
        list_folder(pets)
    (pets / "valid").rename(pets / "val")
    assert len(list_folder(pets)) == 2  # the exact name is meant
    (pets / "train").rename(pets / "images")
    with pytest.raises(
        UserError, match=r"holds images/, test/, val/; expected train/ \(or Train/, training/\), .*call"
    ):
        list_folder(pets)
    with pytest.raises(UserError, match=f"did you mean folder:{re.escape(str(pets))}\\?"):
        list_folder(pets / "val")
