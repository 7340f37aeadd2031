"""icon-scenes: stickers, exact masks, prompts, and the same bits each time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api import catalogue
from bench.errors import UserError
from bench.kit import data
from methods.segmentation import scenes as icon_scenes
from methods.segmentation.scenes import CLASSES, innermost, make_scenes, read_scenes, stickers_of

SIDE = 64


def drawing(kind: int, side: int = SIDE) -> np.ndarray:
    """An outlined shape, dark on white, (S, S, 3): a square, a disc, a triangle or a cross; with a mark inside."""
    down, right = np.indices((side, side)) - side // 2
    shapes = (
        np.maximum(abs(down), abs(right)) <= 24,
        down**2 + right**2 <= 26**2,
        (abs(right) * 2 <= down + 26) & (down <= 22),
        (np.minimum(abs(down), abs(right)) <= 8) & (np.maximum(abs(down), abs(right)) <= 24),
    )
    shape = shapes[kind % 4]
    inner = np.zeros_like(shape)
    inner[3:-3, 3:-3] = shape[3:-3, 3:-3] & shape[:-6, 3:-3] & shape[6:, 3:-3] & shape[3:-3, :-6] & shape[3:-3, 6:]
    grey = np.where(shape & ~inner, 0, 255).astype(np.uint8)
    grey[30 + kind % 3 : 34 + kind % 3, 30:34] = 40
    return np.repeat(grey[..., None], 3, 2)


def draw_icons(root: Path, each: int = 2) -> Path:
    """A folder like icons-100's with the ten classes of the scenes; returns the data root."""
    for split in ("train", "val"):
        for index, name in enumerate(CLASSES):
            home = root / "icons-100" / split / name
            home.mkdir(parents=True)
            for copy in range(each):
                Image.fromarray(drawing(index + copy + (split == "val"))).save(home / f"set{copy}__{name}.png")
    return root


def stickers(classes: int = 5) -> list[list[icon_scenes.Sticker]]:
    return [stickers_of(np.stack([drawing(index), drawing(index + 1)])) for index in range(classes)]


def test_a_sticker_is_what_is_drawn_and_all_it_encloses() -> None:
    (grey, shape), *_ = stickers()[0]
    assert shape.shape == (49, 49) and shape.all() and grey.shape == shape.shape  # a square of 49 pixels
    assert grey[24, 24] == 40 and grey[0, 0] == 0 and grey[10, 10] == 255
    disc = stickers_of(drawing(1)[None])[0][1]
    down, right = np.indices(disc.shape) - disc.shape[0] // 2
    assert (disc == (down**2 + right**2 <= 26**2)).all()


def test_of_several_parts_the_largest_is_taken_and_a_stroke_is_none() -> None:
    icon = drawing(0)
    icon[:4, :4] = 0  # a speck
    assert stickers_of(icon[None])[0][1].shape == (49, 49)
    thin = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    thin[30:33] = 0
    assert stickers_of(thin[None]) == [] and stickers_of(np.full_like(thin, 255)[None]) == []


def test_masks_are_what_is_in_sight_pixel_by_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow painter of one scene after the other: who painted a pixel last owns it."""
    laid: list[tuple[int, np.ndarray, np.ndarray]] = []
    grounds: list[np.ndarray] = []
    own = stickers()
    plain_laid, plain_ground = icon_scenes._laid, icon_scenes._ground

    def spy_laid(of_class: list[icon_scenes.Sticker], *rest: object) -> object:
        colours, shape = plain_laid(of_class, *rest)  # type: ignore[arg-type]
        laid.append((next(k for k, one in enumerate(own) if one is of_class), colours.copy(), shape.copy()))
        return colours, shape

    def spy_ground(*arguments: object) -> object:
        image, mean = plain_ground(*arguments)  # type: ignore[arg-type]
        grounds.append(image.copy())
        laid.append((-1, image, mean))
        return image, mean

    monkeypatch.setattr(icon_scenes, "_laid", spy_laid)
    monkeypatch.setattr(icon_scenes, "_ground", spy_ground)
    scenes = make_scenes(own, 40, SIDE, seed=3)
    starts = [place for place, one in enumerate(laid) if one[0] == -1] + [len(laid)]
    hidden = raised = 0
    for index in range(40):
        wanted, things = index % len(own), laid[starts[index] + 1 : starts[index + 1]]
        assert 2 <= len(things) <= 4 and len({kind for kind, _, _ in things}) == len(things)
        place = [kind for kind, _, _ in things].index(wanted)
        for order in (things, [*things[:place], *things[place + 1 :], things[place]]):
            image, owner = grounds[index].copy(), np.full((SIDE, SIDE), -1)
            for kind, colours, shape in order:
                for row, column in zip(*shape.nonzero(), strict=True):
                    image[row, column], owner[row, column] = colours[row, column], kind
            in_sight = (owner == wanted).sum() / things[place][2].sum()
            if in_sight >= icon_scenes.IN_SIGHT:
                break
            raised += 1
        hidden += in_sight < 1
        assert np.array_equal(scenes.extras["masks"][index].numpy(), owner == wanted)
        assert np.array_equal(scenes.pixels[index].permute(1, 2, 0).numpy(), image)
    assert hidden > 3 and raised > 0  # overlaps there are, and one that had to be laid on top


def test_the_prompt_is_the_innermost_pixel() -> None:
    stream = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((12, 14), dtype=bool)
        for _ in range(3):
            top, left = stream.integers(0, 8, 2)
            mask[top : top + stream.integers(1, 6), left : left + stream.integers(1, 6)] = True
        outside = [(r, c) for r in range(-1, 13) for c in range(-1, 15)
                   if not (0 <= r < 12 and 0 <= c < 14) or not mask[r, c]]  # fmt: skip
        depth = {
            (r, c): min((r - a) ** 2 + (c - b) ** 2 for a, b in outside) for r, c in zip(*mask.nonzero(), strict=True)
        }
        found = innermost(mask)
        assert depth[found] == max(depth.values())
        assert found == min(place for place, value in depth.items() if value == max(depth.values()))


def test_samples_take_turns_among_classes_and_their_points_lie_on_them() -> None:
    scenes = make_scenes(stickers(), 25, SIDE, seed=1)
    assert scenes.labels.tolist() == [index % 5 for index in range(25)]
    points, masks = scenes.extras["points"], scenes.extras["masks"]
    assert masks.dtype == torch.uint8 and (masks[torch.arange(25), points[:, 0], points[:, 1]] == 1).all()
    assert scenes.pixels.shape == (25, 3, SIDE, SIDE) and scenes.pixels.dtype == torch.uint8


def test_the_same_icons_and_seed_make_the_same_bits() -> None:
    def digest(seed: int) -> str:
        scenes = make_scenes(stickers(), 12, SIDE, seed)
        parts = (scenes.pixels, scenes.extras["masks"], scenes.extras["points"])
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()

    assert digest(7) == digest(7) != digest(8)
    # on every machine; scenes that change need a new version of the set
    assert digest(7)[:16] == "dccc2cfde21aff7a"


def test_the_set_is_read_from_the_folder_of_icons_100(tmp_path: Path) -> None:
    info = catalogue.dataset("icon-scenes").model_copy(update={"train_images": 20, "test_images": 10})
    found = read_scenes(info, draw_icons(tmp_path) / "icons-100")
    assert found.names == found.ids == CLASSES and len(found.train) == 20 and len(found.test) == 10
    assert found.train.extras.keys() == found.test.extras.keys() == {"points", "masks"}
    assert not torch.equal(found.train.image(0), found.test.image(0))


def test_missing_icons_are_said_in_one_line(tmp_path: Path) -> None:
    info = catalogue.dataset("icon-scenes")
    with pytest.raises(UserError, match="examples.icons_100.build --source"):
        data.load(info, tmp_path)
    root = draw_icons(tmp_path)
    for file in (root / "icons-100" / "train" / "bell").iterdir():
        Image.new("RGB", (SIDE, SIDE), "white").save(file)
    with pytest.raises(UserError, match="bell: no icon there is fit for a scene"):
        data.load(info, root)
