"""`icons-100`, our many-class set of small images, and the icon-name pairs that `icon-clip` learns from.

    python -m bench data icons-100 --source iconify-json-2.2.535.tgz

`build_icons_100` writes `{train,val}/<concept>/<set>__<icon>.png`, 64x64, and `icons-100.json` beside them.
`training_pairs` gives every other icon with its name. Both come from the npm package `@iconify/json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UserError
from bench.kit.data.icon_sets import Icon, IconPackage, digest, rasterise_many, read_package

# The class order. Chosen by hand, once, from the concepts that the most icon sets draw: things one can point at.
ICONS_100: tuple[str, ...] = tuple(
    Path(__file__).with_name("icons_100.txt").read_text(encoding="utf-8").split()
)
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
    "uim": "uil", "uit": "uil", "uis": "uil", "lucide": "feather", "lucide-lab": "feather", "vadivam": "feather", "covid": "streamline",
}  # fmt: skip

# Never seen by icon-clip, so that its accuracy on known concepts in unknown handwriting can be measured.
UNSEEN_FAMILIES = frozenset(
    {"mingcute", "iconoir", "carbon", "majesticons", "teenyicons", "jam", "clarity", "basil", "flat", "vaadin"}
)
# The test split of icons-100: the unseen families and enough others for 20-25 % of the images.
TEST_FAMILIES = UNSEEN_FAMILIES | frozenset()

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
    """Whether an icon's full name has an icons-100 concept in it; strict, so it also fires by mistake.

    A word of the name equals a concept, its plural or its synonym; or a concept of five letters or more is part
    of the name written without dashes ("phone" holds out "smartphone" and "microphone", "light-bulb" counts).
    """
    words = name.lower().split("-")
    joined = "".join(words)
    return any(word in _HELD_OUT_WORDS for word in words) or any(part in joined for part in _HELD_OUT_PARTS)


def _held_out() -> tuple[frozenset[str], tuple[str, ...]]:
    terms = {*ICONS_100, *(synonym for synonyms in SYNONYMS.values() for synonym in synonyms)}
    joined = {term.replace("-", "") for term in terms}
    plurals = {word + ending for word in joined for ending in ("s", "es")}
    return frozenset(joined | plurals), tuple(sorted(word for word in joined if len(word) >= 5))


_HELD_OUT_WORDS, _HELD_OUT_PARTS = _held_out()


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
