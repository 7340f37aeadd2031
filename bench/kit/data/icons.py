"""`icons-100`, our many-class set of small images, and the icon-name pairs that `icon-clip` learns from.

    python -m bench data icons-100 --source iconify-json-2.2.535.tgz

`build_icons_100` writes `{train,val}/<concept>/<set>__<icon>.png`, 64x64, and `icons-100.json` beside them.
`training_pairs` gives every other icon with its name. Both come from the npm package `@iconify/json`.

The class order is `icons_100.txt`, alphabetical, chosen by hand once from the concepts that the most icon sets
draw: things that one can point at.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UserError
from bench.kit.data.icon_sets import Icon, IconPackage, digest, rasterise_many, read_package

ICONS_100: tuple[str, ...] = tuple(Path(__file__).with_name("icons_100.txt").read_text("utf-8").split())
SIZE = 64
SMALLEST_TRAIN, SMALLEST_TEST, SMALLEST_CLASS = 50, 10, 75

# Two renditions of a concept nearer than this (mean absolute difference of grey at 64x64, range 0..1) are one
# drawing: sets copy from each other and redraw the same icon one pixel wider.
SAME_DRAWING = 0.012

# Sets of one designer are one family, and a family is either train or test. A set's family is what stands before
# the first dash of its prefix, except where the family shares drawings under unlike prefixes.
FAMILY = {
    "material-symbols": "google", "material-symbols-light": "google", "ic": "google", "mdi": "google",
    "fa6-solid": "fa", "fa6-regular": "fa", "fa7-solid": "fa", "fa7-regular": "fa", "la": "fa",
    "sidekickicons": "heroicons", "famicons": "ion", "bxs": "bx", "boxicons": "bx",
    "uim": "uil", "uit": "uil", "uis": "uil", "lucide": "feather", "lucide-lab": "feather", "vadivam": "feather",
    "covid": "streamline",
}  # fmt: skip

# Never seen by icon-clip, so that its accuracy on known concepts in unknown handwriting can be measured.
UNSEEN_FAMILIES = frozenset(
    {"mingcute", "iconoir", "carbon", "majesticons", "teenyicons", "jam", "clarity", "basil", "flat", "vaadin"}
)
# The test split of icons-100: the unseen families and enough others for 20-25 % of the images.
TEST_FAMILIES = UNSEEN_FAMILIES | {"fa", "ooui", "osmic", "pepicons", "ph", "reicon", "si", "tabler", "uiw"}

# Other words for an icons-100 concept: their icons are held out of icon-clip as well.
SYNONYMS = {
    "airplane": ("plane", "aeroplane"), "fire": ("flame",), "gamepad": ("joypad",), "leaf": ("leaves",),
    "lightbulb": ("bulb",), "lock": ("padlock", "unlock", "locked", "unlocked"), "magic-wand": ("wand",),
    "shopping-cart": ("cart", "trolley"), "sun": ("sunny", "sunrise", "sunset"), "trash": ("garbage", "bin"),
    "tv": ("television",), "car": ("automobile",), "dice": ("die",), "qr-code": ("qr",), "pencil": ("crayon",),
}  # fmt: skip


def family(prefix: str) -> str:
    return FAMILY.get(prefix, prefix.split("-")[0])


def touches_icons_100(name: str) -> bool:
    """Whether an icon's full name has an icons-100 concept in it, digits aside ("star2").

    It has if a word of the name equals a concept, its plural or its synonym, ends in one ("fullmoon") or, from four
    letters, begins with one ("moonface"); or if a concept of five letters or more is anywhere in the name written
    without dashes ("phone" holds out "microphone"; "light-bulb" counts). Strict, so it fires by mistake too
    ("rhombus" ends in "bus").
    """
    words = re.sub(r"[0-9]+", "", name.lower()).split("-")
    if any(_begins_or_ends_in_a_concept(word) for word in words):
        return True
    joined = "".join(words)
    return any(word in _HELD_OUT_WORDS for word in words) or any(part in joined for part in _HELD_OUT_PARTS)


def _begins_or_ends_in_a_concept(word: str) -> bool:
    # "start" is no kind of star, and several hundred icons long.
    begins = word.startswith(_HELD_OUT_BEGINNINGS) and not word.startswith("start")
    return begins or word.endswith(_HELD_OUT_ENDINGS)


_TERMS = sorted(
    {
        term.replace("-", "")
        for term in (*ICONS_100, *(synonym for synonyms in SYNONYMS.values() for synonym in synonyms))
    }
)
_HELD_OUT_WORDS = frozenset(term + ending for term in _TERMS for ending in ("", "s", "es"))
_HELD_OUT_ENDINGS = tuple(term + ending for term in _TERMS if len(term) >= 3 for ending in ("", "s"))
_HELD_OUT_BEGINNINGS = tuple(term for term in _TERMS if len(term) >= 4)
_HELD_OUT_PARTS = tuple(term for term in _TERMS if len(term) >= 5)


@dataclass(frozen=True)
class TrainingPairs:
    """Icons with their captions ("shopping cart"). `unseen`: the sets that icon-clip never trains on."""

    train: list[tuple[Icon, str]]
    unseen: list[tuple[Icon, str]]
    held_out: int
    package: IconPackage


def training_pairs(source: Path) -> TrainingPairs:
    """Every permissive icon with its name in words, less those that touch an icons-100 concept."""
    package = read_package(source)
    train: list[tuple[Icon, str]] = []
    unseen: list[tuple[Icon, str]] = []
    held_out = 0
    for icon in package.icons:
        if touches_icons_100(icon.name):
            held_out += 1
            continue
        caption = package.concept(icon)
        if any(letter.isalnum() for letter in caption):
            (unseen if family(icon.set) in UNSEEN_FAMILIES else train).append((icon, caption))
    return TrainingPairs(train, unseen, held_out, package)


def build_icons_100(
    source: Path, destination: Path, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Builds icons-100 into `destination` and returns what `icons-100.json` says.

    The rule: an icon is a rendition of a concept when its name without style words is the concept; icons are taken
    in the order of `read_package`; one that draws nothing or what an earlier one of its concept drew
    (`SAME_DRAWING`) is dropped; families of `TEST_FAMILIES` are the test split, which is called `val`. The same
    package gives the same bytes. The folder appears whole or not at all; one that is there already is kept.

    Args:
        source: the npm package `@iconify/json`, as .tgz or unpacked folder.
        destination: the folder to make.
        progress: called with (icons drawn, icons to draw).
    """
    card = destination / "icons-100.json"
    if card.is_file():
        there: dict[str, Any] = json.loads(card.read_text(encoding="utf-8"))
        return {**there, "already_built": True}
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UserError(f"{destination}: holds something else than icons-100; name an empty or a new folder")
    package = read_package(source)
    concepts: dict[str, list[Icon]] = {concept: [] for concept in ICONS_100}
    for icon in package.icons:
        concept = package.concept(icon).replace(" ", "-")
        if concept in concepts:
            concepts[concept].append(icon)
    drawings, skipped = _distinct_drawings(concepts, progress)
    counts = _counts(drawings)
    _refuse_small_classes(counts, source)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        files = _write_images(drawings, temporary)
        report = _report(package, counts, files, skipped)
        (temporary / card.name).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        if destination.exists():
            destination.rmdir()
        temporary.replace(destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return {**report, "already_built": False}


Drawings = dict[str, list[tuple[Icon, NDArray[np.uint8]]]]


def _distinct_drawings(
    concepts: dict[str, list[Icon]], progress: Callable[[int, int], None] | None
) -> tuple[Drawings, list[str]]:
    """Per concept the icons kept, with their pixels; and a line for each icon that would not draw."""
    wanted = [(concept, icon) for concept, icons in concepts.items() for icon in icons]
    drawings: Drawings = {concept: [] for concept in concepts}
    greys: dict[str, list[NDArray[np.float32]]] = {concept: [] for concept in concepts}
    skipped: list[str] = []
    drawn = rasterise_many([icon for _, icon in wanted], SIZE, os.cpu_count() or 1, progress)
    for (concept, icon), (_, pixels) in zip(wanted, drawn, strict=True):
        if isinstance(pixels, str):
            skipped.append(f"{icon.set}:{icon.name}: {pixels}")
            continue
        grey = pixels.mean(axis=2, dtype=np.float32) / np.float32(255)
        if greys[concept] and float(np.abs(np.stack(greys[concept]) - grey).mean(axis=(1, 2)).min()) < SAME_DRAWING:
            continue
        greys[concept].append(grey)
        drawings[concept].append((icon, pixels))
    return drawings, skipped


def split_of(icon: Icon) -> str:
    return "val" if family(icon.set) in TEST_FAMILIES else "train"


def _counts(drawings: Drawings) -> dict[str, dict[str, int]]:
    return {
        concept: {"train": 0, "val": 0} | Counter(split_of(icon) for icon, _ in icons)
        for concept, icons in drawings.items()
    }


def _refuse_small_classes(counts: dict[str, dict[str, int]], source: Path) -> None:
    for concept, of in counts.items():
        if of["train"] < SMALLEST_TRAIN or of["val"] < SMALLEST_TEST or sum(of.values()) < SMALLEST_CLASS:
            raise UserError(
                f"{source}: {concept} has {of['train']} train and {of['val']} test renditions, expected at least "
                f"{SMALLEST_TRAIN} and {SMALLEST_TEST}, {SMALLEST_CLASS} in all; use the whole package, version 2.2.535"
            )


def _write_images(drawings: Drawings, folder: Path) -> dict[str, str]:
    """Writes the images; relative path -> sha256 of the pixels, which no PNG encoder's version changes."""
    files: dict[str, str] = {}
    for concept, icons in drawings.items():
        for icon, pixels in icons:
            path = folder / split_of(icon) / concept / f"{icon.set}__{icon.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            files[path.relative_to(folder).as_posix()] = digest(pixels)
    return files


def _report(
    package: IconPackage, counts: dict[str, dict[str, int]], files: dict[str, str], skipped: list[str]
) -> dict[str, Any]:
    used = sorted({path.rsplit("/", 1)[1].split("__", 1)[0] for path in files})
    lines = "\n".join(f"{path} {sha256}" for path, sha256 in sorted(files.items()))
    return {
        "name": "icons-100",
        "classes": list(ICONS_100),
        "image_size": SIZE,
        "train_images": sum(of["train"] for of in counts.values()),
        "test_images": sum(of["val"] for of in counts.values()),
        "counts": counts,
        "package": f"@iconify/json {package.version}",
        "sets": {prefix: package.sets[prefix] | {"split": split_of(Icon(prefix, "", ""))} for prefix in used},
        "not_drawn": skipped,
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }
